"""A worker that records what it does: its messages, shards and stripes, and the kernels inside a micro-batch.

The kernels' times are stamps of the one compiled call (kernels/stamps.py), the same machine code as without a
trace. Imported where a run is traced only.
"""

import time
from collections import Counter
from collections.abc import Sequence

from feste_dp.data.order import Spacing
from feste_dp.data.tokens import TokenData
from feste_dp.kernels.stamps import BEGINNING, make_clock, places, read_clock
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import Arena
from feste_dp.runtime.shard_computer import ShardComputer, ShardSpec
from feste_dp.runtime.tracing import Recorder, step_of
from feste_dp.runtime.worker import Connection, WorkerSpec

_STAMPS, _STAMPS_PER_LAYER = 32, 40  # of one micro-batch, with room to spare


class TracedConnection(Connection):
    """Records every message of a traced step, and writes the events when such steps are over."""

    def __init__(self, spec: WorkerSpec, recorder: Recorder) -> None:
        super().__init__(spec)
        self._recorder = recorder

    def send(self, message: m.Message) -> None:
        started = time.perf_counter()
        super().send(message)
        self._recorder.sent(self._spec.worker, message, started, time.perf_counter())

    def receive(self) -> m.Message:
        started = time.perf_counter()
        message = super().receive()
        step = step_of(message)
        self._recorder.received(self._spec.worker, message, started, time.perf_counter(), "wait for")
        if self._recorder.is_past(step) or isinstance(message, m.Stop):
            self._recorder.write()
        return message


class TracedShardComputer(ShardComputer):
    """Records each shard of a traced step with its micro-batches and kernels, and each stripe."""

    def __init__(self, spec: ShardSpec, arena: Arena, data: TokenData, recorder: Recorder) -> None:
        super().__init__(spec, arena, data)
        self._recorder = recorder
        micro_batches = spec.sequences_per_shard // spec.micro_batch
        self._clock = make_clock(micro_batches * (_STAMPS + _STAMPS_PER_LAYER * spec.model.n_layer))
        scratch = self._workspace.s._replace(clock=self._clock)
        self._untraced, self._traced = self._workspace, self._workspace._replace(s=scratch)
        self._step = 0

    def shard(self, step: int, shard: int) -> float:
        self._step = step
        if not self._recorder.wants(step):
            return super().shard(step, shard)
        self._workspace = self._traced
        started = time.perf_counter()
        loss_sum = super().shard(step, shard)
        ended = time.perf_counter()
        self._workspace = self._untraced
        self._recorder.slice(f"shard {shard}", "phase", started, ended, step=step, shard=shard)
        record_kernels(self._recorder, read_clock(self._clock), self._spec.model.n_layer)
        return loss_sum

    def validation_unit(self, step: int, unit: int, spacing: Spacing) -> float:
        started = time.perf_counter()
        loss_sum = super().validation_unit(step, unit, spacing)
        if self._recorder.wants(step):
            self._recorder.slice(f"validation {unit}", "phase", started, time.perf_counter(), step=step)
        return loss_sum

    def stripe(self, first: int, last: int) -> None:
        started = time.perf_counter()
        super().stripe(first, last)
        if self._recorder.wants(self._step):  # its order does not say: that of the shards before it
            self._recorder.slice(
                f"sum chunks {first} to {last - 1}", "phase", started, time.perf_counter(), step=self._step
            )


def record_kernels(recorder: Recorder, stamps: Sequence[tuple[int, float]], layers: int) -> None:
    """A slice for each kernel between two stamps, around them one for forward and one for backward, and
    around these one for the micro-batch."""
    began = before = part_began = 0.0
    seen: Counter[int] = Counter()
    backward = False
    for number, at in stamps:
        name, in_loop = places[number]
        if name == BEGINNING:
            began = before = part_began = at
            seen.clear()
            backward = False
            continue
        part = name.split()[0]
        if part in ("forward", "backward"):
            recorder.slice(part, "kernel", part_began, at)
            part_began, backward = at, True
        else:
            layer = {"layer": layers - 1 - seen[number] if backward else seen[number]} if in_loop else {}
            recorder.slice(name, "kernel", before, at, **layer)
            seen[number] += 1
        if part == "cross_entropy_forward":
            part_began = at
        if part == "backward":
            recorder.slice("micro-batch", "kernel", began, at)
        before = at
