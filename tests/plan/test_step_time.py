"""The estimate of a step adds up what was measured; how near it comes is for benchmarks/estimates.py."""

import os
import threading

import pytest

from feste_dp.config.schema import Config
from feste_dp.plan import step_time
from feste_dp.plan.arithmetic import run_flops
from feste_dp.plan.step_time import (
    StepTime,
    estimated_step,
    micro_batch_seconds,
    run_seconds,
)
from feste_dp.runtime.warmup import compile_kernels

SMALL = {"vocab_size": 256, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}


def config(**sections) -> Config:
    train = {"steps": 100, "batch_size": 16, "shards": 4, "micro_batch": 2}
    return Config.model_validate({"model": SMALL, "train": train} | sections)


@pytest.fixture
def measured(monkeypatch):
    """Two cores; a micro-batch takes 10 ms on either, memory moves 1 GB/s."""
    monkeypatch.setattr(step_time, "usable_cpus", lambda: 2)
    monkeypatch.setattr(step_time, "micro_batch_seconds", lambda config, cores, seconds: 0.01)
    monkeypatch.setattr(step_time, "memory_bytes_per_second", lambda cores, size, seconds: 1e9)


def test_a_step_is_the_micro_batches_of_the_worker_with_the_most_shards(measured):
    # 4 shards of 2 micro-batches
    seconds = [estimated_step(config(), workers, 2.0).compute for workers in (1, 2, 3, 4)]
    assert seconds == pytest.approx([0.08, 0.04, 0.04, 0.04])


def test_more_workers_than_cores_do_not_shorten_the_step(measured):
    assert estimated_step(config(), 4, 2.0).total == estimated_step(config(), 2, 2.0).total


def test_a_run_is_its_steps_and_the_arithmetic_of_its_validation(measured):
    step = StepTime(micro_batch=0.0, compute=0.07, reduce=0.01, update=0.01, control=0.01)
    assert run_seconds(config(eval={"every": 0}), step) == pytest.approx(100 * 0.1)
    validated = config(eval={"every": 10, "batches": 3})
    assert run_seconds(validated, step) == pytest.approx(
        10 * run_flops(validated) / run_flops(config(eval={"every": 0}))
    )


def test_deep_models_are_measured_at_one_and_two_layers(monkeypatch):
    asked = []

    def of_depth(config, layers, cores, seconds):
        asked.append((layers, seconds))
        return 0.3 + 0.2 * layers

    monkeypatch.setattr(step_time, "_seconds_of_depth", of_depth)
    deep = config(model=SMALL | {"n_layer": 12})
    assert micro_batch_seconds(deep, 2, 2.0) == pytest.approx(0.3 + 12 * 0.2)
    assert asked == [(1, 1.0), (2, 1.0)]
    asked.clear()
    assert micro_batch_seconds(config(), 2, 2.0) == pytest.approx(0.7) and asked == [(2, 2.0)]


def test_the_measurement_runs_on_all_cores_at_once_and_gives_a_time():
    compile_kernels(os.environ, lambda seconds: None)
    before = threading.active_count()
    assert 1e-6 < micro_batch_seconds(config(model=SMALL | {"dropout": 0.1}), 2, 0.02) < 10
    assert threading.active_count() == before
