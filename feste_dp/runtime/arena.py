"""The shared memory of a run: weights, gradient slots, summed gradient, chunk norms; and letterboxes.

One memfd without a name: nothing can be left in /dev/shm, and /dev/shm's size does not matter. What is used
is reserved before, so running out is an error message and not a SIGBUS; the slots come last, and only as many
as are in use take memory. The phase decides who may write (ARCHITECTURE.md has the table): no locks.

The reservation zeroes the pages: 0.23 s a GiB on a Zen 4 core, and the same with two threads. (To touch them
through a mapping takes 0.5 to 0.7 s, with MADV_POPULATE_WRITE or two threads too.) They come from the memory
of the coordinator's NUMA node, unless it was started under `numactl --interleave=all`.
"""

import errno
import mmap
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from feste_dp.errors import UsageError
from feste_dp.kernels.reduction import chunk_count
from feste_dp.machine.limits import available_memory
from feste_dp.runtime.letterbox import BOX_BYTES
from feste_dp.runtime.shared_memory import reserve, reserve_shared_memory

_PAGE = 4096
_FLOAT_BYTES, _DOUBLE_BYTES = 4, 8


class ArenaSizes(NamedTuple):
    """Byte offsets of each array, each on a page of its own."""

    params: int
    grad: int
    norms: int
    orders: int
    reports: int
    slots: int
    total: int
    """With a slot for every shard, which is what is mapped."""

    def reserved(self, parameters: int, slots: int) -> int:
        """Bytes that are there with so many slots in use."""
        return self.slots + _pages(slots * parameters * _FLOAT_BYTES)


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def arena_sizes(parameters: int, shards: int) -> ArenaSizes:
    grad = _pages(parameters * _FLOAT_BYTES)
    norms = grad + _pages(parameters * _FLOAT_BYTES)
    orders = norms + _pages(chunk_count(parameters) * _DOUBLE_BYTES)
    reports = orders + _pages(shards * BOX_BYTES)
    slots = reports + _pages(shards * BOX_BYTES)
    total = slots + _pages(shards * parameters * _FLOAT_BYTES)
    return ArenaSizes(0, grad, norms, orders, reports, slots, total)


class Arena:
    """Views of the shared memory: params (P,), slots (S, P), grad (P,) float32, norms (chunks,) float64;
    orders and reports (S, BOX_BYTES), two letterboxes for each worker that there can be, and report_words
    (S,), the words in front of the latter."""

    def __init__(self, fd: int, parameters: int, shards: int) -> None:
        sizes = arena_sizes(parameters, shards)
        self.fd = fd
        memory = mmap.mmap(fd, sizes.total)

        def view(offset: int, count: int) -> NDArray[np.float32]:
            return np.frombuffer(memory, np.float32, count, offset)

        self.params = view(sizes.params, parameters)
        self.slots = view(sizes.slots, shards * parameters).reshape(shards, parameters)
        self.grad = view(sizes.grad, parameters)
        self.norms: NDArray[np.float64] = np.frombuffer(
            memory, np.float64, chunk_count(parameters), sizes.norms
        )

        def boxes(offset: int) -> NDArray[np.uint8]:
            return np.frombuffer(memory, np.uint8, shards * BOX_BYTES, offset).reshape(shards, BOX_BYTES)

        self.orders, self.reports = boxes(sizes.orders), boxes(sizes.reports)
        self.report_words: NDArray[np.int64] = self.reports.view(np.int64)[:, 0]
        self._sizes = sizes

    def reserve_slots(self, count: int) -> None:
        """Have the first `count` slots there. Raises OSError."""
        _, parameters = self.slots.shape
        reserve(self.fd, self._sizes.slots, self._sizes.reserved(parameters, count))

    @property
    def reserved_bytes(self) -> int:
        """What of it is there."""
        return os.fstat(self.fd).st_blocks * 512


class PrivateArena(Arena):
    """The same arrays in memory of this process alone, with one slot that is the gradient as well."""

    def __init__(
        self,
        parameters: int,
        params: NDArray[np.float32] | None = None,
        grad: NDArray[np.float32] | None = None,
    ) -> None:
        """params and grad (P,) are used where they are given."""
        self.fd = -1
        self.params = pages_of_zeros(parameters) if params is None else params
        self.grad = pages_of_zeros(parameters) if grad is None else grad
        self.slots = self.grad.reshape(1, parameters)
        self.norms: NDArray[np.float64] = np.zeros(chunk_count(parameters))


def pages_of_zeros(count: int) -> NDArray[np.float32]:
    """On pages of its own, as the arrays of an arena are."""
    return np.frombuffer(mmap.mmap(-1, _FLOAT_BYTES * count), np.float32)


def create_arena(parameters: int, shards: int, slots: int | None = None) -> Arena:
    """Map the arena, and reserve it with so many slots, one a shard where it is not said.

    Raises UsageError when the memory is not there.
    """
    slots = shards if slots is None else slots
    sizes = arena_sizes(parameters, shards)
    needed = sizes.reserved(parameters, slots)
    _check_memory(needed, slots)
    fd = -1
    try:
        fd = reserve_shared_memory(sizes.total, needed)
        return Arena(fd, parameters, shards)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        advice = "set train.shards or the model smaller"
        if error.errno == errno.EFBIG:
            advice = (
                "raise the file-size limit of this shell (ulimit -f), which the kernel applies to memory too"
            )
        raise UsageError(
            f"cannot reserve {needed / 2**20:,.0f} MiB of memory for the weights and {slots} gradient slots "
            f"({error.strerror}): {advice}"
        ) from None


def _check_memory(needed: int, slots: int) -> None:
    """Raises UsageError when the arena does not fit into the memory that is left now."""
    available = available_memory()
    if needed > available:
        raise UsageError(
            f"the weights and {slots} gradient slots need {needed / 2**20:,.0f} MiB of memory, "
            f"{available / 2**20:,.0f} MiB are available: set train.shards or the model smaller"
        )
