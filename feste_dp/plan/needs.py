"""What a run needs of the machine, by kind.

Pure: works on a config alone. What of it is missing is preflight.py's.
"""

from dataclasses import dataclass
from typing import NamedTuple

from feste_dp.config.schema import Config
from feste_dp.model.decoder import decoding_bytes, decoding_threads
from feste_dp.model.parameters import parameter_count
from feste_dp.model.sampling import positions_for
from feste_dp.model.workspace import workspace_bytes
from feste_dp.optim.optimizer import state_bytes
from feste_dp.runtime.arena import arena_sizes
from feste_dp.runtime.slots import partial_sums, slot_count

MIB = 1 << 20

# Measured with Python 3.11, numpy 2.4, numba 0.67 on tiny, medium and gpt2_87m, which differed by 3 MiB.
LIBRARIES_BYTES = 100 * MIB  # pages of shared libraries: in memory once, however many processes map them
COORDINATOR_BYTES = 114 * MIB  # beside its arrays: Python, Numba with its code, the text's tokenizer
WORKER_BYTES = 74 * MIB

# Of the coordinator without workers (standard streams, arena, tokens, lock, metrics, a checkpoint's file,
# ZeroMQ), measured 16, and as many in reserve; each worker adds its process handle and its connection. A
# worker itself has 14.
DESCRIPTORS, DESCRIPTORS_PER_WORKER = 40, 2
# A worker has its own thread and two of ZeroMQ. The coordinator, started already, adds ZeroMQ's two, the
# writer of checkpoints and one a CPU for the update, for which 16 are allowed; a replaced worker is reaped
# before its successor starts.
PROCESSES, PROCESSES_PER_WORKER = 20, 3
# Stacks and the allocator's arenas of threads that are mapped but hardly touched.
_MAPPED_BYTES = 512 * MIB

_COORDINATOR, _LIBRARIES = "coordinator process", "shared libraries"


class Kind(NamedTuple):
    """One kind of memory, over all processes."""

    name: str
    bytes: int


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of memory by kind; shared memory counts once."""

    workers: int
    weights: int
    slots: int
    """The gradient slots in use."""
    partial_sums: int
    """What one worker adds up beside them, where shards share a slot."""
    gradient: int
    """The summed gradient and the norms of its chunks."""
    optimizer: int
    """The optimizer's state."""
    staging: int
    """The copy that a save writes from; 0 where nothing is saved."""
    activations: int
    """Activations, their gradients and scratch of one worker."""
    sampling: int
    """Activations of the coordinator, which draws the samples; 0 without samples."""
    coordinator: int = COORDINATOR_BYTES
    """Python and libraries of the coordinator, what is its own of them."""
    worker: int = WORKER_BYTES
    """As `coordinator`, of one worker."""
    libraries: int = LIBRARIES_BYTES
    """Pages of libraries, which all processes share."""
    unused_slots: int = 0
    """Slots that are mapped and take no memory."""

    def kinds(self) -> list[Kind]:
        """All of it, in the order in which it is said; the bytes add up to `total`."""
        return [
            Kind("weights", self.weights),
            Kind("gradient slots", self.slots),
            Kind("partial sums of the workers", self.workers * self.partial_sums),
            Kind("summed gradient", self.gradient),
            Kind("optimizer state", self.optimizer),
            Kind("staging for saves", self.staging),
            Kind("activations of the workers", self.workers * self.activations),
            Kind("activations for samples", self.sampling),
            Kind("worker processes", self.workers * self.worker),
            Kind(_COORDINATOR, self.coordinator),
            Kind(_LIBRARIES, self.libraries),
        ]

    @property
    def arena(self) -> int:
        return self.weights + self.slots + self.gradient

    @property
    def total(self) -> int:
        return sum(kind.bytes for kind in self.kinds())

    @property
    def counted_per_process(self) -> int:
        """The total where libraries count in every process: the sum of the processes' resident memory."""
        return self.total + self.workers * self.libraries

    def kinds_to_come(self) -> list[Kind]:
        """What is still to be taken once the coordinator itself is there."""
        return [kind for kind in self.kinds() if kind.name not in (_COORDINATOR, _LIBRARIES)]

    @property
    def to_come(self) -> int:
        return sum(kind.bytes for kind in self.kinds_to_come())

    @property
    def address_space(self) -> int:
        """The most that one process, once started, still maps."""
        coordinator = self.optimizer + self.staging + self.sampling
        worker = self.activations + self.partial_sums
        return self.arena + self.unused_slots + max(coordinator, worker) + _MAPPED_BYTES


@dataclass(frozen=True)
class Needs:
    """All that a run takes of the machine."""

    memory: MemoryNeed
    disk: int
    descriptors: int
    processes: int


def memory_need(config: Config, workers: int, *, saves: bool = True) -> MemoryNeed:
    """What `workers` workers, their coordinator and the arena take; saves=False for a run that saves nothing
    and draws no samples."""
    model, train = config.model, config.train
    parameters = parameter_count(model)
    sizes, slots = arena_sizes(parameters, train.shards), slot_count(train.shards, workers)
    reserved = sizes.reserved(parameters, slots)
    drawn = 0
    if saves and config.sample.every:
        prompt = len(config.sample.prompt.encode(errors="replace"))
        positions = positions_for(model, prompt + config.sample.tokens)
        drawn = decoding_bytes(model, 1, positions, decoding_threads(model))
    return MemoryNeed(
        workers=workers,
        weights=sizes.grad,
        slots=reserved - sizes.slots,
        partial_sums=4 * parameters * partial_sums(train.shards // slots),
        gradient=sizes.slots - sizes.grad,
        unused_slots=sizes.total - reserved,
        optimizer=state_bytes(config.optim, parameters),
        staging=checkpoint_bytes(config) if saves else 0,
        activations=workspace_bytes(model, train.micro_batch, model.block_size),
        sampling=drawn,
    )


def checkpoint_count(config: Config) -> int:
    """The most checkpoints that lie on disk at once: those kept, the best, the final one, and the one that is
    being written."""
    steps, every = config.train.steps, config.checkpoint.every
    evaluations = steps // config.eval.every if config.eval.every else 0
    saves = (steps // every if every else 0) + evaluations
    return min(config.checkpoint.keep, saves) + bool(evaluations) + 2


def disk_need(config: Config) -> int:
    """Bytes of the checkpoints that lie on disk at once."""
    return checkpoint_count(config) * checkpoint_bytes(config)


def checkpoint_bytes(config: Config) -> int:
    """Of the arrays of one checkpoint: the weights and the optimizer's state."""
    parameters = parameter_count(config.model)
    return 4 * parameters + state_bytes(config.optim, parameters)


def needs(config: Config, workers: int, *, saves: bool = True) -> Needs:
    return Needs(
        memory=memory_need(config, workers, saves=saves),
        disk=disk_need(config) if saves else 0,
        descriptors=DESCRIPTORS + workers * DESCRIPTORS_PER_WORKER,
        processes=PROCESSES + workers * PROCESSES_PER_WORKER,
    )
