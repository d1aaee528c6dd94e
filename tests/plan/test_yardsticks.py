import pytest

from feste_dp.errors import UsageError
from feste_dp.plan import yardsticks


def test_the_peak_and_the_bandwidth_are_those_of_a_processor(monkeypatch):
    monkeypatch.setattr(yardsticks, "MEASURE_S", 0.012)
    assert 1e8 < yardsticks.peak_flops_per_second("fp32", 2) < 1e13
    assert 1e8 < yardsticks.memory_bytes_per_second(2, 1 << 20, 0.012) < 1e13
    assert 1e8 < yardsticks.memory_bytes_per_second(1, 1) < 1e13


def test_a_precision_that_the_cpu_lacks_is_one_line():
    with pytest.raises(UsageError, match=r"no fp8 products to measure; use fp32"):
        yardsticks.peak_flops_per_second("fp8", 1)


def test_a_working_set_beyond_the_caches_is_larger_than_any_of_them(monkeypatch):
    monkeypatch.setattr(yardsticks, "available_memory", lambda: 1 << 40)
    assert yardsticks.beyond_caches_bytes() >= 1 << 28
    monkeypatch.setattr(yardsticks, "available_memory", lambda: 1 << 24)
    assert yardsticks.beyond_caches_bytes() == 1 << 22
