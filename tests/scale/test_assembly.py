"""Measurements become a study: rates, ratios within rounds, and the comparison of losses."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from feste_dp.bench.step_report import Yardsticks
from feste_dp.config.schema import Config
from feste_dp.machine.memory import Memory
from feste_dp.run.step_times import StepTimes
from feste_dp.scale.assembly import machine_warnings, make_study, same_bits
from feste_dp.scale.baselines.running import BaselineRun
from feste_dp.scale.measuring import BaselineRuns, CountRuns, Measurements, Plan
from feste_dp.scale.study import study_from_json, study_to_json
from tests.scale.studies import MACHINE

CONFIG = Config.model_validate(
    {
        "model": {"vocab_size": 256, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8},
        "train": {"batch_size": 8, "shards": 4, "steps": 100},
    }
)
TOKENS = 64
LOSSES = [5.0, 4.0, 3.0]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def runs(workers, seconds, losses=LOSSES):
    """Rounds of two steps after one to warm up, each as long as `seconds` says."""
    return CountRuns(
        workers,
        CONFIG,
        [[StepTimes(s, [0.8 * s] * workers, [0.05 * s], 0.05 * s)] * 2 for s in seconds],
        [list(losses) for _ in seconds],
        [Memory(1 << 20, 1, 1, [1], 1) for _ in seconds],
    )


def study(counts, kind="strong", torch=None):
    plan = Plan(kind, CONFIG, [count.workers for count in counts], 2, 1, len(counts[0].times), True)
    one = BaselineRuns([BaselineRun([0.9, 0.9], [5.0, 4.0, 3.0000003], 1 << 20) for _ in counts[0].times])
    yardsticks = {cores: Yardsticks(1e9, 1e9, 1e9, 1e9) for cores in (1, 2)}
    found = Measurements(counts, one, torch or BaselineRuns(skipped="not there"), yardsticks)
    return make_study(plan, "made-up", MACHINE, found, NOW)


def test_speed_up_is_taken_within_each_round_so_that_drift_cancels():
    made = study([runs(1, [1.0, 2.0, 4.0]), runs(2, [0.5, 1.0, 2.0])])
    one, two = made.counts
    assert one.tokens_per_second_each == [TOKENS, TOKENS / 2, TOKENS / 4]
    assert two.speedup.value == two.speedup.low == pytest.approx(2.0)
    assert two.efficiency.value == pytest.approx(1.0) and two.cores == 2
    assert one.tokens_per_second.high > 2 * one.tokens_per_second.value
    assert sum(two.phases_ms.values()) == pytest.approx(two.step_ms, rel=0.5)
    assert made.created == "2026-01-31T12:00:00+00:00"
    assert study_from_json(study_to_json(made)) == made


def test_counts_above_the_cores_stay_out_of_the_fits():
    made = study([runs(1, [1.0, 1.1]), runs(2, [0.5, 0.55]), runs(4, [0.9, 0.9])])
    assert [count.above_cores for count in made.counts] == [False, False, True]
    assert all(fit.counts == [1, 2] for fit in made.fits)
    assert made.limit.cause == "more workers than cores"
    assert made.counts[2].cores == 2


def test_the_baselines_are_beside_the_counts_or_say_why_not():
    one, torch = study([runs(1, [1.0]), runs(2, [0.5])]).baselines
    assert one.tokens_per_second.value == pytest.approx(TOKENS / 0.9) and "within 1.0e-07" in one.what
    assert (torch.tokens_per_second, torch.skipped) == (None, "not there")


def test_losses_that_differ_in_the_last_bit_are_found():
    nearly = [5.0, 4.0, 3.0000000000000004]
    agreed = same_bits([runs(1, [1.0]), runs(2, [1.0])])
    assert agreed.agree and "all 2 runs of 3 steps gave the same losses, bit for bit" in agreed.sentence
    found = same_bits([runs(1, [1.0]), runs(2, [1.0], nearly)])
    assert not found.agree
    assert "step 3 with 2 workers gave 3.0000000000000004, not 3.0" in found.sentence


def test_weak_counts_are_compared_with_one_worker_on_their_own_batch():
    other = [9.0, 8.0, 7.0]
    two = replace(runs(2, [1.0, 1.0], other), reference=other[:2])
    assert same_bits([runs(1, [1.0, 1.0]), two]).agree
    assert not same_bits([runs(1, [1.0, 1.0]), replace(two, reference=[9.0, 8.5])]).agree
    two.losses[1] = [9.0, 8.0, 7.5]
    assert not same_bits([runs(1, [1.0, 1.0]), two]).agree


def test_weak_scaling_gives_every_worker_as_much():
    plan = Plan("weak", CONFIG, [1, 4], 2, 1, 1, True)
    assert [plan.config_of(n).train.batch_size for n in (1, 4)] == [8, 32]
    assert plan.config_of(4).train.shards == 4


def test_a_busy_machine_and_too_many_workers_are_warned_of():
    assert machine_warnings(MACHINE, [1, 2]) == []
    busy, many = machine_warnings(replace(MACHINE, busy_before=0.5), [1, 4, 8])
    assert "others took 50% of its CPUs" in busy
    assert many.startswith("4, 8 workers share 2 physical cores")
    (during,) = machine_warnings(MACHINE, [1, 2], busy_during=0.31)
    assert during.startswith("others took 31% of the CPUs during the study")
