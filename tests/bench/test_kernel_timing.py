import pytest

from feste_dp.bench import kernel_timing
from feste_dp.bench.kernel_cases import Case, kernel_cases
from feste_dp.bench.kernel_table import kernel_table
from feste_dp.bench.kernel_timing import KernelReport, against_limit, best_seconds
from feste_dp.config.schema import Config

CONFIG = Config.model_validate(
    {
        "model": {
            "vocab_size": 256,
            "block_size": 16,
            "n_layer": 3,
            "n_head": 2,
            "n_embd": 32,
            "dropout": 0.1,
        },
        "train": {"batch_size": 4, "shards": 2, "micro_batch": 2},
    }
)


def case(flops: float, moved: float) -> Case:
    return Case("a kernel", lambda: None, flops, moved, moved, 4)


def test_the_nearer_limit_is_the_one_that_counts():
    busy = against_limit(case(flops=2e6, moved=1e3), 0.004, peak=1e9, bandwidth=1e9)
    assert (busy.limit, busy.share_of_limit) == ("arithmetic", pytest.approx(0.5))
    moving = against_limit(case(flops=1e3, moved=3e6), 0.004, peak=1e9, bandwidth=1e9)
    assert (moving.limit, moving.share_of_limit) == ("memory", pytest.approx(0.75))
    assert moving.gb_per_second == pytest.approx(0.75) and moving.limit_microseconds == pytest.approx(3000)


def test_every_kernel_of_a_step_has_a_case_forward_and_backward(monkeypatch):
    monkeypatch.setattr(kernel_timing, "_LEAST_S", 0.0)
    cases = list(kernel_cases(CONFIG))
    names = [each.name for each in cases]
    for kernel in (
        "linear",
        "attention",
        "layernorm",
        "dropout",
        "gelu",
        "embedding",
        "head",
        "cross-entropy",
    ):
        for direction in ("forward", "backward"):
            assert any(kernel in name and direction in name for name in names), (kernel, direction)
    assert names[-2:] == ["reduce of 2 slots", "adamw"]
    for each in cases:
        assert best_seconds(each.run) > 0
        assert each.flops > 0 and each.bytes >= each.working_set > 0 and each.calls >= 1


def test_the_products_of_the_cases_are_those_that_the_formula_counts():
    linear = sum(each.flops * each.calls for each in kernel_cases(CONFIG) if each.name.startswith("linear"))
    weights = 3 * (3 + 1 + 4 + 4) * 32 * 32
    assert linear == 6 * weights * 2 * 16


def test_the_table_has_a_line_for_each_kernel():
    times = [against_limit(case(2e6, 1e3), 0.004, 1e9, 1e9)]
    table = kernel_table(KernelReport("a CPU", "fp32", 2, 1, 16, 1.0, 0.9, 10.0, 18.0, times))
    assert "a kernel      4000.0     4     0.5     0.0  arithmetic  50.0%" in table
    assert "0.9 each on 2 at once" in table
