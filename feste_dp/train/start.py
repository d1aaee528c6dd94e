"""What every command does before its first step: look at the machine, prepare tokens and kernels, start the
workers. Creates nothing but caches; knows nothing of run directories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from feste_dp.checkpoint.format import Manifest
from feste_dp.config.schema import Config
from feste_dp.data.tokens import TokenData
from feste_dp.data.whereabouts import Corpus
from feste_dp.errors import UsageError
from feste_dp.machine.cpus import crowding, default_workers
from feste_dp.machine.limits import measure_limits
from feste_dp.machine.variables import threads_in_vain
from feste_dp.nodes.team import NodeFacts
from feste_dp.plan.needs import checkpoint_bytes
from feste_dp.plan.network import part_of
from feste_dp.plan.preflight import check_cpus, precision_line, shortages
from feste_dp.run.initial_weights import (
    InitialWeights,
    check_tokenizer_of,
    initial_weights,
    with_shape_of,
)
from feste_dp.run.record import Record
from feste_dp.run.saved_state import has_tensors_of
from feste_dp.run.screen import Progress
from feste_dp.run.token_data import FoundTokens, find_tokens, prepare_tokens
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.warmup import COMPILING, cache_warnings, compile_kernels
from feste_dp.train.signals import StopSignals
from feste_dp.wording import counted

if TYPE_CHECKING:
    from feste_dp.train.joining import Nodes


@dataclass(frozen=True)
class Surroundings:
    """What a run takes from the process it is in."""

    environ: Mapping[str, str]
    cache_root: Path
    progress: Progress
    signals: StopSignals
    trace: tuple[int, int] | None = None
    """First and last step to trace."""
    nodes: "Nodes | None" = None
    """Where the run is one of several nodes: these."""
    voice: Record | None = None
    """What becomes the record; one that speaks by `progress` if not given."""
    record: Record = field(init=False)
    """The voice of what is about to run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "record", self.voice or Record(self.progress))

    def on_first(self, value: bool) -> bool:
        """What the first node says; alone, what is said here. All nodes call it."""
        return value if self.nodes is None else bool(self.nodes.link.gather(value)[0])

    @property
    def team(self) -> list[NodeFacts]:
        """The nodes whose workers have started; empty on one machine."""
        return [] if self.nodes is None else self.nodes.team

    def tell_of_no_work(self) -> None:
        """In place of start_workers, where there is nothing to train: the other nodes end as well."""
        if self.nodes is not None:
            self.nodes.has_work(False)

    def workers(self, config: Config) -> int:
        """How many the config asks for; without that, as many as this machine is good for."""
        if self.nodes is not None:
            return self.nodes.workers(config.run.workers, config.train.shards)
        return config.run.workers or default_workers(config.train.shards)


def check_machine(
    config: Config, workers: int, around: Surroundings, saves_in: Path | None = None, resumes: bool = False
) -> None:
    """Refuse before the slow parts what cannot go well: precision, CPUs, too little of what the run takes.

    saves_in is where the run will save, None where nothing is saved. A run is not refused for a disk on which
    one checkpoint fits, nor a resumed one for its disk at all: training goes on without further saves, and
    room may be made meanwhile. Tells what is worth a warning. Raises UsageError.
    """
    check_cpus(config, workers)
    if (line := precision_line(config)) is not None:
        around.progress.message(line)
    part = config if around.nodes is None else part_of(config, around.nodes.block(config.train.shards).count)
    found = shortages(part, workers, measure_limits(saves_in), saves=saves_in is not None)
    least_disk = 0 if resumes else checkpoint_bytes(config)
    tolerated = [each for each in found if each.what == "disk" and each.available >= least_disk]
    if len(found) > len(tolerated):
        raise UsageError("; ".join(shortage.line for shortage in found))
    crowded = crowding(workers)
    warnings = [shortage.line for shortage in tolerated]
    warnings += [] if crowded is None else [crowded]
    warnings += threads_in_vain(around.environ)
    for line in warnings:
        around.record.warn(line)


def settle(config: Config) -> tuple[Config, InitialWeights | None]:
    """The config with the shape of the weights that it starts from, and these, where they are not random.
    Raises UsageError."""
    start = initial_weights(config)
    return (config, None) if start is None else (with_shape_of(config, start), start)


def prepare(config: Config, around: Surroundings, start: InitialWeights | None = None) -> TokenData:
    """Token data and compiled kernels: the slow parts of a first start, both cached. The text gets the tokens
    of the weights to start from. Raises UsageError."""
    around.progress.phase("reading the text")
    tokenizer = None if start is None else start.tokenizer
    data = prepare_tokens(config, around.cache_root, around.progress.message, tokenizer)
    if start is not None:
        check_tokenizer_of(data, start)
    compile_for(around, data)
    return data


def prepare_for(
    config: Config,
    run: Path,
    known: Manifest | None,
    around: Surroundings,
    others: Sequence[Corpus] = (),
    asked: bool = False,
) -> FoundTokens:
    """As prepare, for the run in the folder `run`: see find_tokens."""
    around.progress.phase("reading the text")
    found = find_tokens(config, run, known, around.cache_root, others, asked)
    compile_for(around, found.data)
    return found


def compile_for(around: Surroundings, data: TokenData) -> None:
    """Compile the kernels where that was not done before; tells the user when it takes long."""
    announced = False

    def on_wait(seconds: float) -> None:
        nonlocal announced
        if not announced:
            around.progress.phase(COMPILING)
            announced = True

    for line in cache_warnings(around.environ, [data.directory]):
        around.record.warn(line)
    compile_kernels(around.environ, on_wait)


def check_layout(manifest: Manifest, config: Config) -> None:
    """Raises UsageError unless a checkpoint has the model of the config."""
    if not has_tensors_of(manifest, config):
        raise UsageError("the checkpoint's tensors are not those of the config's model: start a new run")


def start_workers(coordinator: Coordinator, config: Config, workers: int, around: Surroundings) -> None:
    """Returns when they are ready, on all nodes. Tells what is worth a warning about how many there are."""
    around.progress.phase(f"starting {counted(workers, 'worker')}")
    coordinator.start()
    if around.nodes is not None:
        link = around.nodes.link
        link.wake = coordinator.watch(link.check)
        around.nodes.has_work(True)
        warnings = around.nodes.meet(config.run.workers, workers, config.train.shards)
        if around.nodes.is_first:
            for line in warnings:
                around.record.warn(line)
