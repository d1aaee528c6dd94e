import pytest

from feste_dp.bench import yardsticks
from feste_dp.errors import UsageError
from feste_dp.machine import memory


def test_the_peak_and_the_bandwidth_are_those_of_a_processor(monkeypatch):
    monkeypatch.setattr(yardsticks, "_ROUND_S", 0.002)
    assert 1e8 < yardsticks.peak_flops_per_second("fp32", 2) < 1e13
    assert 1e8 < yardsticks.memory_bytes_per_second(2, 1 << 20) < 1e13
    assert 1e8 < yardsticks.memory_bytes_per_second(1, 1) < 1e13


def test_a_precision_that_the_cpu_lacks_is_one_line():
    with pytest.raises(UsageError, match=r"no fp8 products to measure; use fp32"):
        yardsticks.peak_flops_per_second("fp8", 1)


def test_a_working_set_beyond_the_caches_is_larger_than_any_of_them(monkeypatch):
    monkeypatch.setattr(yardsticks, "available_memory", lambda: 1 << 40)
    assert yardsticks.beyond_caches_bytes() >= 1 << 28
    monkeypatch.setattr(yardsticks, "available_memory", lambda: 1 << 24)
    assert yardsticks.beyond_caches_bytes() == 1 << 22


def test_the_arena_counts_once_and_each_process_without_it(monkeypatch):
    kib = {
        "/proc/1/status": "VmHWM:\t300 kB\nRssShmem:\t100 kB\nName:\tpython",
        "/proc/2/status": "VmHWM:\t500 kB\nRssShmem:\t100 kB",
        "/proc/1/smaps_rollup": "Pss:\t 250 kB",
        "/proc/2/smaps_rollup": "Pss:\t 350 kB",
    }
    monkeypatch.setattr(memory.Path, "read_text", lambda path: kib[str(path)])
    measured = memory.measure(1, [2], 100 * 1024)
    assert (measured.coordinator_bytes, measured.worker_bytes) == (200 * 1024, [400 * 1024])
    assert measured.total_bytes == 700 * 1024 and measured.final_pss_bytes == 600 * 1024
