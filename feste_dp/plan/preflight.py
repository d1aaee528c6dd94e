"""What a run needs of the machine and does not find there, with the setting to change.

Pure: works on a config and on measured limits (machine/limits.py), so that a plan and a start say the same.
"""

from collections.abc import Iterator
from typing import NamedTuple

from feste_dp.config.schema import Config
from feste_dp.kernels.vector.target import HAS_BF16
from feste_dp.machine.cpus import pin_plan
from feste_dp.machine.limits import Limits
from feste_dp.plan.needs import (
    DESCRIPTORS,
    DESCRIPTORS_PER_WORKER,
    MIB,
    PROCESSES,
    PROCESSES_PER_WORKER,
    checkpoint_bytes,
    checkpoint_count,
    disk_need,
    memory_need,
    needs,
)
from feste_dp.wording import counted


class Shortage(NamedTuple):
    """One thing that does not suffice."""

    what: str
    needed: int
    available: int
    line: str
    """One line: how much is needed and there, and which setting to change."""


def shortages(config: Config, workers: int, limits: Limits, *, saves: bool = True) -> list[Shortage]:
    """Everything that the run needs and `limits` do not give, a line each; empty when it fits."""
    return list(_shortages(config, workers, limits, saves))


def _shortages(config: Config, workers: int, limits: Limits, saves: bool) -> Iterator[Shortage]:
    need = needs(config, workers, saves=saves)
    if need.memory.to_come > limits.memory:
        largest = sorted(need.memory.kinds_to_come(), key=lambda kind: -kind.bytes)[:3]
        parts = ", ".join(f"{kind.name} {_mib(kind.bytes)}" for kind in largest)
        yield Shortage(
            "memory",
            need.memory.to_come,
            limits.memory,
            f"memory: {_mib(need.memory.to_come)} more are needed ({parts}), {_mib(limits.memory)} are "
            f"available: {_smaller(config, workers, limits, saves)}",
        )
    if need.memory.address_space > limits.address_space:
        yield Shortage(
            "address space",
            need.memory.address_space,
            limits.address_space,
            f"address space: a process needs {_mib(need.memory.address_space)} more, its limit leaves "
            f"{_mib(limits.address_space)}: raise it with `ulimit -v unlimited`, or set train.shards or the "
            "model smaller",
        )
    if need.disk > limits.disk:
        each = checkpoint_bytes(config)
        yield Shortage(
            "disk",
            need.disk,
            limits.disk,
            f"disk: {checkpoint_count(config)} checkpoints of {_mib(each)} need {_mib(need.disk)}, "
            f"{_mib(limits.disk)} are free: {_fewer_checkpoints(config, limits)}",
        )
    if need.descriptors > limits.descriptors:
        fewer = (limits.descriptors - DESCRIPTORS) // DESCRIPTORS_PER_WORKER
        yield Shortage(
            "descriptors",
            need.descriptors,
            limits.descriptors,
            f"open files: {counted(workers, 'worker')} need {need.descriptors}, the limit is "
            f"{limits.descriptors}: raise it with `ulimit -n {need.descriptors}`{_or_fewer_workers(fewer)}",
        )
    if need.processes > limits.processes:
        fewer = (limits.processes - PROCESSES) // PROCESSES_PER_WORKER
        yield Shortage(
            "processes",
            need.processes,
            limits.processes,
            f"processes: {counted(workers, 'worker')} need {need.processes} processes and threads, "
            f"{limits.processes} more may be started: raise `ulimit -u` or the control group's pids.max"
            f"{_or_fewer_workers(fewer)}",
        )


def _smaller(config: Config, workers: int, limits: Limits, saves: bool) -> str:
    """The settings that make it fit, first those that leave the result alone."""
    for changes in _smaller_runs(config, workers):
        smaller = config.train.model_copy(
            update={key.partition(".")[2]: value for key, value in changes.items() if key != "run.workers"}
        )
        need = memory_need(
            config.model_copy(update={"train": smaller}), changes.get("run.workers", workers), saves=saves
        )
        if need.to_come <= limits.memory:
            return f"set {' and '.join(f'{key} to {value}' for key, value in changes.items())}"
    return "free memory or raise its limit, or set the model smaller (model.n_layer, n_embd or block_size)"


def _smaller_runs(config: Config, workers: int) -> Iterator[dict[str, int]]:
    """Changes to try: fewer workers, then smaller micro-batches, then fewer shards, then all of these."""
    yield from ({"run.workers": count} for count in range(workers - 1, 0, -1))
    one_sequence = {"train.micro_batch": 1} if config.train.micro_batch > 1 else {}
    if one_sequence:
        yield one_sequence
    shards = [1 << power for power in reversed(range(config.train.shards.bit_length() - 1))]
    yield from ({"train.shards": count} for count in shards if count >= workers)
    yield from ({"run.workers": 1} | one_sequence | {"train.shards": count} for count in shards)


def _fewer_checkpoints(config: Config, limits: Limits) -> str:
    """The largest number of checkpoints to keep that fits, if one does."""
    for keep in range(config.checkpoint.keep - 1, 0, -1):
        smaller = config.checkpoint.model_copy(update={"keep": keep})
        if disk_need(config.model_copy(update={"checkpoint": smaller})) <= limits.disk:
            return f"set checkpoint.keep to {keep}, or run.dir to a larger disk"
    return "free some, or set run.dir to a larger disk"


def _or_fewer_workers(count: int) -> str:
    return f", or set run.workers to {count}" if count >= 1 else ""


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB"


def precision_line(config: Config) -> str | None:
    """By what bfloat16 is multiplied on this CPU; None where it is not wanted. The bits are the same."""
    if config.train.precision != "bf16":
        return None
    if HAS_BF16:
        return "bf16: by this CPU's own instruction for products of bfloat16"
    return (
        "bf16: this CPU has no instruction for products of bfloat16 (AVX512-BF16), each takes two fused "
        "multiply-adds: the same bits at the speed of fp32"
    )


def check_cpus(config: Config, workers: int) -> None:
    """Whether the workers can be pinned so. Raises UsageError."""
    pin_plan(config.run.pin, workers)
