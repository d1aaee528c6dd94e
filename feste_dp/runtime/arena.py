"""The shared memory of a run: weights, gradient slots, summed gradient, chunk norms; and letterboxes.

One memfd without a name: nothing can be left in /dev/shm, and /dev/shm's size does not matter. All of it is
reserved before the run starts, so running out is an error message and not a SIGBUS. The phase decides who
may write (ARCHITECTURE.md has the table), so there are no locks.

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
from feste_dp.runtime.shared_memory import reserve_shared_memory

_PAGE = 4096
_FLOAT_BYTES, _DOUBLE_BYTES = 4, 8


class ArenaSizes(NamedTuple):
    """Byte offsets of each array, each on a page of its own."""

    params: int
    slots: int
    grad: int
    norms: int
    orders: int
    reports: int
    total: int


def arena_sizes(parameters: int, shards: int) -> ArenaSizes:
    def pages(size: int) -> int:
        return -(-size // _PAGE) * _PAGE

    slots = pages(parameters * _FLOAT_BYTES)
    grad = slots + pages(shards * parameters * _FLOAT_BYTES)
    norms = grad + pages(parameters * _FLOAT_BYTES)
    orders = norms + pages(chunk_count(parameters) * _DOUBLE_BYTES)
    reports = orders + pages(shards * BOX_BYTES)
    return ArenaSizes(0, slots, grad, norms, orders, reports, reports + pages(shards * BOX_BYTES))


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


class PrivateArena(Arena):
    """The same arrays in memory of this process alone, with one slot that is the gradient as well."""

    def __init__(self, parameters: int) -> None:
        self.fd = -1
        self.params, self.grad = _pages_of_zeros(parameters), _pages_of_zeros(parameters)
        self.slots = self.grad.reshape(1, parameters)
        self.norms: NDArray[np.float64] = np.zeros(chunk_count(parameters))


def _pages_of_zeros(count: int) -> NDArray[np.float32]:
    """On pages of its own, as the arrays of an arena are."""
    return np.frombuffer(mmap.mmap(-1, _FLOAT_BYTES * count), np.float32)


def create_arena(parameters: int, shards: int) -> Arena:
    """Reserve and map the arena. Raises UsageError when the memory is not there."""
    check_memory(parameters, shards)
    total = arena_sizes(parameters, shards).total
    fd = -1
    try:
        fd = reserve_shared_memory(total)
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
            f"cannot reserve {total / 2**20:,.0f} MiB of memory for the weights and {shards} gradient slots "
            f"({error.strerror}): {advice}"
        ) from None


def check_memory(parameters: int, shards: int) -> None:
    """Raises UsageError when the arena does not fit into the memory that is left now."""
    total, available = arena_sizes(parameters, shards).total, available_memory()
    if total > available:
        raise UsageError(
            f"the weights and {shards} gradient slots need {total / 2**20:,.0f} MiB of memory, "
            f"{available / 2**20:,.0f} MiB are available: set train.shards or the model smaller"
        )
