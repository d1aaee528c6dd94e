"""What the cores of this machine can do at best, all of those asked for at once: the clock falls, and memory
is shared, when all of them work. Knows nothing of models."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from feste_dp.errors import UsageError
from feste_dp.kernels.peak import TRIAD_BYTES, make_register_loop, make_triad_operands, triad
from feste_dp.machine.limits import available_memory
from feste_dp.machine.topology import caches

MEASURE_S = 0.3
"""How long to measure where nobody says."""
_ROUNDS = 6
_TIMEOUT_S = 60.0
_LEAST_MEMORY_BYTES = 1 << 28

Work = Callable[[int], None]
"""Does its piece of work so many times."""


def peak_flops_per_second(precision: str, cores: int) -> float:
    """Multiplications and additions a second of one core while `cores` of them work, out of the L1 cache.

    Raises UsageError where the CPU has no such products.
    """
    loop = make_register_loop(precision)
    if loop is None:
        raise UsageError(f"train.precision: this CPU has no {precision} products to measure; use fp32")
    flops = loop.flops

    def make_work() -> Work:
        loop = make_register_loop(precision)
        assert loop is not None
        return lambda repeats: loop.run(*loop.operands, repeats)

    return flops * _best_repeats_per_second(cores, make_work, MEASURE_S)


def memory_bytes_per_second(cores: int, working_set_bytes: int, seconds: float = MEASURE_S) -> float:
    """What a triad over that many bytes moves a second, spread over `cores` and summed over them; measured
    for about so long."""
    share = max(TRIAD_BYTES, working_set_bytes // cores)

    def make_work() -> Work:
        a, b, scale = make_triad_operands(share)
        return lambda repeats: triad(a, b, scale, repeats)

    return cores * share // 8 * TRIAD_BYTES * _best_repeats_per_second(cores, make_work, seconds)


def beyond_caches_bytes() -> int:
    """A working set that no cache holds: four times the last level, at least 256 MiB where that is free."""
    wanted = max(_LEAST_MEMORY_BYTES, 4 * max([0, *(cache.bytes for cache in caches([0]))]))
    return max(1 << 20, min(wanted, available_memory() // 4))


def _best_repeats_per_second(cores: int, make_work: Callable[[], Work], seconds: float) -> float:
    """Each core repeats work of its own; the fastest of a few rounds that all cores begin together."""
    barrier = threading.Barrier(cores, timeout=_TIMEOUT_S)
    repeats = _repeats_for(make_work(), seconds / _ROUNDS)

    def follow(_: int) -> list[tuple[float, float]]:
        work = make_work()
        work(1)
        spans = []
        for _ in range(_ROUNDS):
            barrier.wait()
            started = time.perf_counter()
            work(repeats)
            spans.append((started, time.perf_counter()))
        return spans

    with ThreadPoolExecutor(cores, "yardstick") as pool:
        rounds = zip(*pool.map(follow, range(cores)), strict=True)
        fastest: float = min(
            max(end for _, end in spans) - min(start for start, _ in spans) for spans in rounds
        )
    return repeats / max(fastest, 1e-9)  # a clock that stands still


def _repeats_for(work: Work, seconds: float) -> int:
    """How often the work fits into so much time."""
    work(1)
    repeats = 1
    while True:
        started = time.perf_counter()
        work(repeats)
        taken = time.perf_counter() - started
        if taken > seconds / 10:
            return max(1, round(repeats * seconds / taken))
        repeats *= 8
