"""The result of a scaling study: what scaling.json holds, and its form there. Pure: measures nothing.

Every figure is of whole training steps, from the initial weights. Times are milliseconds, rates are a second,
memory is bytes, shares and fractions are 0 .. 1.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from feste_dp.errors import UsageError, on_one_line
from feste_dp.files.reading import read_plain
from feste_dp.files.untrusted_json import first_problem
from feste_dp.json_text import json_text
from feste_dp.machine.topology import Cache
from feste_dp.run.step_times import PHASES
from feste_dp.wording import command

FORMAT = 1
FILE_NAME = "scaling.json"
_MOST_WORKERS, _LARGEST = 2**20, 1e18
MAX_BYTES = 2**25  # ours have some 100 KiB

Kind = Literal["strong", "weak"]
Law = Literal["Amdahl", "Gustafson", "USL"]
BaselineName = Literal["one process", "PyTorch"]
Cause = Literal[
    "arithmetic", "memory bandwidth", "stragglers", "control", "network", "more workers than cores"
]


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval; the ends are null where one repeat cannot tell."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bandwidth:
    """What a phase that streams through memory moved, and a triad over as many bytes on the same cores."""

    gb_per_second: float
    share_of_triad: float


@dataclass(frozen=True)
class Exchange:
    """The sum over nodes: what each sent, and got, beside a plain stream between all of them. A small
    gradient is sent whole: most of its time is in the wait, and the rate means little."""

    is_small: bool
    gb_per_second: float
    link_gb_per_second: float
    share_of_link: float
    link_latency_us: float


@dataclass(frozen=True)
class Count:
    """One worker count, or node count: a row of the table."""

    workers: int
    """Of all nodes together."""
    cores: int
    """The cores that the workers can have: no more than are usable."""
    tokens_per_step: int
    tokens_per_second: Interval
    """Median over the repeats, each of which is the median of its steps."""
    tokens_per_second_each: list[float]
    """Of each repeat, in the order of the rounds."""
    speedup: Interval
    """Over the smallest count, taken times that count; each round against itself, so drift cancels."""
    efficiency: Interval
    """speedup / workers."""
    step_ms: float
    """The median step of all repeats."""
    phases_ms: dict[str, float]
    """compute, wait, reduce, exchange (of several nodes), update and control: the mean over the middle half
    by time of the steps of all repeats, so that they add up to one step, nearly step_ms."""
    gflops_per_second_per_core: float
    peak_gflops_per_second_per_core: float
    """Of the micro-kernel alone, out of registers, on as many cores at once."""
    reduce: Bandwidth
    update: Bandwidth
    memory_bytes: int
    """Peak of all processes together, shared memory once; the most of all repeats."""
    loss_sha256: str
    """Over the bits of the losses of all steps, the warm-up included."""
    above_cores: bool
    """Whether there are more workers than physical cores that this process may use."""
    nodes: int | None = None
    """How many nodes, in a study over nodes; speed-up and efficiency are over the smallest number of them,
    memory, reduce and update of the first."""
    exchange: Exchange | None = None

    @property
    def place(self) -> int:
        """Where it stands on the axis of the study."""
        return self.workers if self.nodes is None else self.nodes

    @property
    def unit(self) -> str:
        """Of what: "worker" or "node"."""
        return "worker" if self.nodes is None else "node"


@dataclass(frozen=True)
class Baseline:
    """The same step done without worker processes. The rate is null where it was skipped, which says why."""

    name: BaselineName
    what: str
    """One line: what runs, on how many threads."""
    threads: int
    tokens_per_second: Interval | None
    tokens_per_second_each: list[float]
    memory_bytes: int | None
    skipped: str | None = None


@dataclass(frozen=True)
class CurvePoint:
    workers: int
    """Or nodes, in a study over them."""
    tokens_per_second: Interval


@dataclass(frozen=True)
class Fit:
    """One law fitted to the measured counts; without parameters and curve where they do not determine it."""

    law: Law
    formula: str
    counts: list[int]
    """The counts it was fitted to: those within the physical cores."""
    parameters: dict[str, Interval]
    """Always `tokens_per_second_of_one`; Amdahl and Gustafson `serial_fraction`, USL `contention` (its serial
    fraction), `coherency` and, where coherency is above zero, `best_count`, where its curve has its top."""
    largest_residual: float | None
    """Largest distance of a measured median from the curve, relative; null where the law has as many
    parameters as there are counts, so that it goes through all of them."""
    curve: list[CurvePoint]
    """1, 2, 4 .. 128 workers and the measured counts."""
    note: str
    """What must be known to read it: what the interval covers, or why there is no fit."""


@dataclass(frozen=True)
class Lost:
    """Time of a step that one cause takes beyond perfect scaling."""

    cause: Cause
    milliseconds: float
    share_of_step: float


@dataclass(frozen=True)
class Limit:
    """What holds the largest count back."""

    cause: Cause
    sentence: str
    rule: str
    """How the cause follows from the measured phases."""
    at_workers: int
    lost: list[Lost]
    """Largest first."""


@dataclass(frozen=True)
class SameBits:
    """Whether the losses of all counts and repeats agree bit for bit."""

    agree: bool
    sentence: str


@dataclass(frozen=True)
class Machine:
    """Where it was measured: the CPU's type and the limits on this process; no name of a host."""

    cpu: str
    usable_cpus: int
    """Logical CPUs that this process may use: affinity mask and cgroup quota."""
    physical_cores: int
    """Distinct cores among them."""
    sockets: int
    threads_per_core: int
    numa_nodes: int
    caches: list[Cache]
    memory_bytes: int
    cgroup_cpus: float | None
    """The quota of the tightest cgroup; null without one."""
    cgroup_memory_bytes: int | None
    pin: str
    """run.pin of the config."""
    pinned_cpus: list[int | None]
    """CPU of each worker of the largest count."""
    load_before: float
    """Load average over one minute, before the start."""
    busy_before: float
    """Share of the CPUs' time that others took in a second before the start."""
    versions: dict[str, str]


@dataclass(frozen=True)
class Study:
    """All of scaling.json."""

    format: int
    kind: Kind
    created: str
    """UTC, ISO 8601."""
    config_name: str
    config: dict[str, Any]
    """The resolved config of the smallest count."""
    parameters: int
    flops_per_token: float
    flops_formula: str
    warmup_steps: int
    steps: int
    repeats: int
    intervals: str
    """How the 95 % intervals are made."""
    machine: Machine
    counts: list[Count]
    baselines: list[Baseline]
    fits: list[Fit]
    limit: Limit | None
    """Null where one count was measured: there is nothing to compare."""
    same_bits: SameBits
    warnings: list[str]


_ADAPTER = TypeAdapter(Study)


def study_to_json(study: Study) -> str:
    return json_text(asdict(study), indent=2) + "\n"


def study_from_json(text: str, name: str = FILE_NAME) -> Study:
    """Raises UsageError that names the first thing that is not as it should be."""
    try:
        content = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}: not JSON: {on_one_line(error)}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UsageError(
            f"{name}: not a scaling study of format {FORMAT} (format: {ascii(str(found)[:40])[1:-1]}): "
            f"make it anew with {command('scale')}"
        )
    try:
        study = _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise UsageError(f"{name}: {first_problem(error)}: make it anew with {command('scale')}") from None
    if problem := _problem(study):
        raise UsageError(f"{name}: {problem}: make it anew with {command('scale')}")
    return study


def _problem(study: Study) -> str | None:
    """What no measurement gives, though it has the right form."""
    workers = [number for count in study.counts for number in (count.workers, count.place)]
    if len({count.unit for count in study.counts}) > 1:
        return "counts: some of workers, some of nodes"
    workers += [point.workers for fit in study.fits for point in fit.curve]
    if any(not 1 <= count <= _MOST_WORKERS for count in workers):
        return "counts: a number of workers that cannot be"
    if any(set(PHASES) - set(count.phases_ms) for count in study.counts):
        return "counts: phases_ms lacks a phase"
    if any(count.peak_gflops_per_second_per_core <= 0 for count in study.counts):
        return "counts: a peak of nothing"
    return None if _is_measurable(asdict(study)) else "a figure that cannot be"


def _is_measurable(value: object) -> bool:
    """Whether all numbers in it are of a size that a figure may have."""
    if isinstance(value, dict):
        return all(map(_is_measurable, value.values()))
    if isinstance(value, list):
        return all(map(_is_measurable, value))
    return not isinstance(value, int | float) or abs(value) <= _LARGEST


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def read_study(path: Path) -> Study:
    """The study in a file scaling.json, or in the directory that holds one. Raises UsageError."""
    if path.is_dir():
        path = path / FILE_NAME
    try:
        text = read_plain(path, MAX_BYTES, follow_links=True).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{path}: cannot be read: {reason}") from None
    return study_from_json(text, str(path))
