"""Where the time of a step goes: phases that sum up to all of it, five on one machine, six on several."""

from collections.abc import Container, Iterable
from dataclasses import dataclass, field

PHASES = ("compute", "wait", "reduce", "update", "control")
"""Of one machine."""
EXCHANGE = "exchange"
ALL_PHASES = ("compute", "wait", "reduce", EXCHANGE, "update", "control")
"""Of several, in the order of a step."""


def shown_phases(found: Iterable[Container[str]]) -> tuple[str, ...]:
    """The phases that figures are shown of: the exchange where any of what was found has one."""
    return ALL_PHASES if any(EXCHANGE in phases for phases in found) else PHASES


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one step, and how they fall to the phases, which sum up to `total`."""

    total: float
    worker_compute: list[float]
    """Each worker's own time in its shards."""
    worker_reduce: list[float]
    """Each worker's own time in its stripe."""
    update: float
    """Norm, clip factor, learning rate and AdamW."""
    worker_shards: list[int] = field(default_factory=list)
    """How many shards each worker computed, where that is known."""

    node_seconds: list[float] = field(default_factory=list)
    """The compute time of the slowest worker of each node, where there are several."""
    node_wait: float = 0.0
    """How long this node waited for the slowest."""
    exchange: float = 0.0
    """The sum over nodes, once all were there."""

    @property
    def phases(self) -> tuple[str, ...]:
        """Names of the phases that this step had."""
        return ALL_PHASES if self.node_seconds else PHASES

    @property
    def compute(self) -> float:
        """Mean of the compute times of the workers that had any."""
        worked = [seconds for seconds in self.worker_compute if seconds > 0]
        return sum(worked) / len(worked) if worked else 0.0

    @property
    def wait(self) -> float:
        """What the slowest worker took longer than the mean, and the slowest node than this one."""
        return max(self.worker_compute) - self.compute + self.node_wait

    @property
    def reduce(self) -> float:
        """The slowest worker's reduce time."""
        return max(self.worker_reduce)

    @property
    def control(self) -> float:
        """All the rest: messages, waking up, Python."""
        return self.total - self.compute - self.wait - self.reduce - self.exchange - self.update
