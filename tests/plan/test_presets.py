"""The list of the configs that come with the program: figures that follow from one measurement."""

import pytest

from feste_dp.config.loading import load_config
from feste_dp.config.presets import preset_names, purpose
from feste_dp.plan import presets, step_time
from feste_dp.plan.arithmetic import flops_per_token
from feste_dp.plan.presets import plan_presets
from feste_dp.plan.step_time import Speed, measured_speed, step_at


def test_all_are_listed_by_size_with_what_they_are_for_and_nothing_is_measured_unasked():
    plans = plan_presets(False, lambda: pytest.fail("nothing to compile"))
    assert plans.speed is None and {plan.name for plan in plans.presets} == set(preset_names())
    assert [plan.parameters for plan in plans.presets] == sorted(plan.parameters for plan in plans.presets)
    tiny = plans.presets[0]
    assert (tiny.name, tiny.parameters, tiny.tokens_per_step, tiny.steps) == ("tiny", 169_728, 512, 1000)
    assert tiny.run_seconds is None and tiny.purpose == purpose("tiny") and "#" not in tiny.purpose


def test_what_the_memory_does_not_suffice_for_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(presets, "available_memory", lambda: 16 << 30)
    plans = {plan.name: plan for plan in plan_presets(False, lambda: None).presets}
    assert plans["tiny"].memory_suffices and plans["gpt2_124m"].memory_suffices
    assert not plans["gpt2_774m"].memory_suffices and not plans["gpt2_1558m"].memory_suffices


def test_all_times_follow_from_one_measurement(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def measured(config, workers, seconds):
        asked.append((config.run.name, seconds))
        return Speed(2, 1e9, 1e9)

    monkeypatch.setattr(presets, "measured_speed", measured)
    monkeypatch.setattr(presets, "default_workers", lambda shards: 2)
    monkeypatch.setattr(step_time, "usable_cpus", lambda: 2)
    compiled = []
    plans = plan_presets(True, lambda: compiled.append(1))
    assert asked == [("medium", 0.5)] and compiled == [1]
    for plan in plans.presets:
        config = load_config(plan.name)
        compute = plan.tokens_per_step * flops_per_token(config.model) / 2e9
        assert plan.step_seconds is not None and plan.run_seconds is not None
        assert compute < plan.step_seconds < 1.6 * compute
        assert plan.run_seconds >= plan.steps * plan.step_seconds


def test_the_speed_of_a_config_foretells_its_own_micro_batches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_time, "usable_cpus", lambda: 2)
    monkeypatch.setattr(step_time, "micro_batch_seconds", lambda config, cores, seconds: 0.01)
    monkeypatch.setattr(step_time, "memory_bytes_per_second", lambda cores, size, seconds: 1e9)
    config = load_config("medium")
    speed = measured_speed(config, 4, 0.5)
    assert speed.cores == 2
    step = step_at(speed, config, 4)
    assert step.micro_batch == pytest.approx(0.01)
    assert step.total == pytest.approx(step_time.estimated_step(config, 4, 0.5).total)
