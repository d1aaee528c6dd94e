"""How the processes of a job become the nodes of a run, and how they part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from feste_dp.errors import RunError, UsageError
from feste_dp.interruption import Interrupted
from feste_dp.machine.cpus import usable_cores
from feste_dp.nodes.blocks import node_blocks, uneven
from feste_dp.nodes.introduction import introduce, introduce_workers, sharing
from feste_dp.nodes.link import Link, NodeLostError
from feste_dp.nodes.team import NodeFacts, fewer_workers
from feste_dp.nodes.transport import MpiTransport, Transport
from feste_dp.nodes.world import check_world, world_size
from feste_dp.runtime.slots import ShardBlock
from feste_dp.train.signals import StopSignals

_STOPPED_AT_ONCE_S = 2.0
"""How long who was told twice to stop waits for the others."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of this job, as one of them sees them before it knows what to train."""

    link: Link
    transport: Transport
    sharing: int
    """How many nodes, this one included, run on the CPUs of this one."""
    warnings: tuple[str, ...]
    team: list[NodeFacts] = field(default_factory=list)
    """What each node computes with, once their workers have started."""

    @property
    def is_first(self) -> bool:
        """Whether this node owns the run's directory and speaks for all."""
        return self.link.is_first

    def blocks(self, shards: int) -> list[ShardBlock]:
        """Which shards each node has. Raises UsageError."""
        return node_blocks(shards, self.link.size)

    def block(self, shards: int) -> ShardBlock:
        """Those of this node."""
        return self.blocks(shards)[self.link.rank]

    def workers(self, asked: int | None, shards: int) -> int:
        """How many workers this node starts: as many as it has shards, at most."""
        share = usable_cores() // self.sharing if asked is None else asked
        return max(1, min(share, self.block(shards).count))

    def has_work(self, value: bool) -> bool:
        """Whether there is anything to train, as the first node says. All nodes call it."""
        return bool(self.link.gather(value)[0])

    def meet(self, asked: int | None, workers: int, shards: int) -> list[str]:
        """Return when the workers of all nodes have started, with what is worth a warning about how the
        shards fall to them. All nodes call it."""
        blocks = self.blocks(shards)
        self.team[:] = introduce_workers(self.link, asked, workers, blocks, self.sharing)
        unequal = uneven(blocks)
        return ([] if unequal is None else [unequal]) + fewer_workers(self.team)


def on_all_nodes(
    environ: Mapping[str, str], signals: StopSignals, body: Callable[[Nodes | None], int]
) -> int:
    """body(nodes) on each of the nodes that the launcher started, body(None) on one machine alone; returns
    the exit status that all end with. What fails on a node is raised on the first, and nowhere else."""
    size = world_size(environ)
    if size == 1:
        return body(None)
    transport = MpiTransport()
    try:
        check_world(size, transport.size)
    except UsageError:
        transport.close()
        raise
    link = Link(transport)
    link.own_stop = lambda: signals.stop_signal
    link.pass_on = signals.pass_on
    if not link.is_first:
        signals.mute()
    try:
        warnings = introduce(link)
        status = body(Nodes(link, transport, sharing(link), tuple(warnings)))
    except NodeLostError as error:
        status = link.failed_status
        return _end(link, UsageError(str(error)) if status == 2 else error, status, None)
    except (UsageError, RunError) as error:
        return _end(link, error, 2 if isinstance(error, UsageError) else 1, str(error))
    except Interrupted as error:
        link.close(error.exit_status, str(error), timeout_s=_STOPPED_AT_ONCE_S)
        raise
    except BaseException as error:
        link.close(1, f"{type(error).__name__}: {error}", timeout_s=_STOPPED_AT_ONCE_S)
        raise
    return link.close(status)


def _end(link: Link, error: UsageError | RunError, status: int, reason: str | None) -> int:
    """Part with an error, which the first node tells; others where the first is gone. reason is what the
    others do not know of it yet."""
    common = link.close(status, reason)
    if link.is_first or not link.has_parted:
        raise error
    return common
