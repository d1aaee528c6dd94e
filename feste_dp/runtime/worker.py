"""One worker: a single-threaded process that computes shards, stripes and validation losses on request.

Knows its model, its data and the arena; nothing of optimizers, schedules, files or other workers. Started by
worker_process.py as `python -m feste_dp.runtime.worker`, with its WorkerSpec on standard input.
"""

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from feste_dp.config.schema import ModelConfig
from feste_dp.data.tokens import TokenData, open_token_data
from feste_dp.kernels.reduction import make_tree, reduce_slots
from feste_dp.model.gpt2 import micro_batch_gradient, micro_batch_loss
from feste_dp.model.parameters import parameter_count, view_params
from feste_dp.model.workspace import make_workspace
from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import Arena
from feste_dp.runtime.protocol import Phase, next_phase

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_MS = 1000


class WorkerSpec(BaseModel):
    """All that a worker is told at its start."""

    model_config = ConfigDict(frozen=True, strict=True)

    worker: int
    coordinator_pid: int
    endpoint: str
    token: bytes
    arena_fd: int
    model: ModelConfig
    shards: int
    sequences_per_shard: int
    micro_batch: int
    seed: int
    data_directory: str
    cpu: int | None


class ShardComputer:
    """The numbers' side of a worker: what each order does to the arena. No sockets."""

    def __init__(self, spec: WorkerSpec, arena: Arena, data: TokenData) -> None:
        self._spec, self._arena, self._data = spec, arena, data
        shape = (spec.micro_batch, spec.model.block_size)
        self._params = view_params(arena.params, spec.model)
        self._slots = [view_params(slot, spec.model) for slot in arena.slots]
        self._workspace = make_workspace(spec.model, *shape)
        self._tokens, self._targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        self._tree = make_tree(spec.shards)
        # every shard divides by the token count of the global batch, so the all-reduce is a plain sum
        self._dloss = 1.0 / (spec.shards * spec.sequences_per_shard * spec.model.block_size)

    def shard(self, step: int, shard: int, offsets: m.Ints) -> float:
        """Overwrite the shard's slot with its gradient; returns its sum of losses."""
        self._arena.slots[shard].fill(0)
        loss_sum = 0.0
        first_place = shard * self._spec.sequences_per_shard
        for draw in self._micro_batches(self._data.train, step, first_place, offsets):
            loss_sum += micro_batch_gradient(
                self._slots[shard],
                self._workspace,
                self._params,
                self._tokens,
                self._targets,
                self._dloss,
                self._spec.model.n_head,
                self._spec.model.dropout,
                draw,
            )
        return loss_sum

    def validation_unit(self, step: int, unit: int, offsets: m.Ints) -> float:
        """Sum of losses of one unit of the validation set, dropout off."""
        loss_sum = 0.0
        first_place = unit * self._spec.sequences_per_shard
        for draw in self._micro_batches(self._data.val, step, first_place, offsets):
            loss_sum += micro_batch_loss(
                self._workspace, self._params, self._tokens, self._targets, self._spec.model.n_head, draw
            )
        return loss_sum

    def stripe(self, first: int, last: int) -> None:
        """Overwrite chunks first .. last - 1 of the summed gradient and of the norms."""
        reduce_slots(self._arena.grad, self._arena.norms, self._arena.slots, first, last, self._tree)

    def _micro_batches(
        self, source: NDArray[np.unsignedinteger], step: int, first_place: int, offsets: m.Ints
    ) -> Iterator[tuple[np.uint64, int, NDArray[np.int64]]]:
        """Put each micro-batch's rows into _tokens and _targets; yields what keys its dropout masks."""
        rows, positions = self._tokens.shape
        for start in range(0, len(offsets), rows):
            for row, offset in enumerate(offsets[start : start + rows]):
                self._tokens[row] = source[offset : offset + positions]
                self._targets[row] = source[offset + 1 : offset + positions + 1]
            yield (
                np.uint64(self._spec.seed),
                step,
                np.arange(first_place + start, first_place + start + rows, dtype=np.int64),
            )


class Connection:
    """The words' side of a worker: its socket, and the protocol as seen from here."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec, self._phase = spec, Phase.STARTING
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.IDENTITY, spec.worker.to_bytes(2, "big"))
        self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_FRAME_BYTES)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        self._socket.connect(spec.endpoint)

    def send(self, message: m.Message) -> None:
        self._phase = next_phase(self._phase, message)
        self._socket.send_multipart([self._spec.token, m.encode(message)])

    def receive(self) -> m.Message:
        """The next order. Exits when the coordinator is gone."""
        while True:
            while not self._socket.poll(_PARENT_CHECK_MS):
                exit_if_orphaned(self._spec.coordinator_pid)
            frames = self._socket.recv_multipart()
            if len(frames) != 2 or frames[0] != self._spec.token:
                continue
            message = m.decode(frames[1])
            self._phase = next_phase(self._phase, message)
            return message

    def report_failure(self, reason: str) -> None:
        """Tell the coordinator why this worker ends, giving the message a second to leave."""
        self._socket.setsockopt(zmq.LINGER, 1000)
        self.send(m.Failed(reason))
        zmq.Context.instance().destroy(linger=1000)


def serve(connection: Connection, computer: ShardComputer, sequences_per_shard: int) -> None:
    """Follow orders until told to stop."""
    connection.send(m.Ready(os.getpid()))
    while True:
        order = connection.receive()
        match order:
            case m.Compute(step, shards, offsets):
                for shard, part in zip(shards, _parts(offsets, sequences_per_shard), strict=True):
                    started = time.perf_counter()
                    loss_sum = computer.shard(step, shard, part)
                    connection.send(m.ShardDone(step, shard, loss_sum, time.perf_counter() - started))
            case m.Reduce(step, first, last):
                started = time.perf_counter()
                computer.stripe(first, last)
                connection.send(m.StripeDone(step, first, last, time.perf_counter() - started))
            case m.Evaluate(step, units, offsets):
                for unit, part in zip(units, _parts(offsets, sequences_per_shard), strict=True):
                    started = time.perf_counter()
                    loss_sum = computer.validation_unit(step, unit, part)
                    connection.send(m.UnitDone(step, unit, loss_sum, time.perf_counter() - started))
            case m.Stop():
                return


def _parts(offsets: m.Ints, size: int) -> list[m.Ints]:
    return [offsets[i : i + size] for i in range(0, len(offsets), size)]


def exit_if_orphaned(coordinator_pid: int) -> None:
    if os.getppid() != coordinator_pid:
        os._exit(1)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the coordinator dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    spec = WorkerSpec.model_validate_json(sys.stdin.buffer.read())
    die_with_parent()
    exit_if_orphaned(spec.coordinator_pid)
    if spec.cpu is not None:
        os.sched_setaffinity(0, {spec.cpu})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the coordinator decides when a run stops
    connection = Connection(spec)
    try:
        arena = Arena(spec.arena_fd, parameter_count(spec.model), spec.shards)
        computer = ShardComputer(spec, arena, open_token_data(Path(spec.data_directory)))
        serve(connection, computer, spec.sequences_per_shard)
    except Exception as error:
        connection.report_failure(f"{type(error).__name__}: {error}")
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
