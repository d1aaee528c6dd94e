"""The configs that come with the program side by side: what each takes, and how long, from one measurement
for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

from feste_dp.config.loading import load_config
from feste_dp.config.presets import preset_names, purpose
from feste_dp.config.schema import Config
from feste_dp.machine.cpus import default_workers
from feste_dp.machine.limits import available_memory
from feste_dp.model.parameters import parameter_count
from feste_dp.plan.needs import needs
from feste_dp.plan.step_time import Speed, measured_speed, run_seconds, step_at

MEASURED = "medium"
"""The config whose micro-batches are timed."""
MEASURE_S = 0.5


@dataclass(frozen=True)
class PresetPlan:
    """One of them; times are None where nothing was measured."""

    name: str
    purpose: str
    parameters: int
    tokens_per_step: int
    steps: int
    workers: int
    memory_bytes: int
    memory_suffices: bool
    """Of what is available now."""
    step_seconds: float | None
    run_seconds: float | None


@dataclass(frozen=True)
class PresetPlans:
    """All, the smallest model first."""

    presets: list[PresetPlan]
    memory_available: int
    speed: Speed | None


def plan_presets(measure: bool, compile_kernels: Callable[[], None]) -> PresetPlans:
    """With the workers that a launch would take by itself. Measures for half a second, where asked, once the
    kernels are compiled."""
    configs = {name: load_config(name) for name in preset_names()}
    speed = None
    if measure:
        compile_kernels()
        workers = max(_workers(config) for config in configs.values())
        speed = measured_speed(configs[MEASURED], workers, MEASURE_S)
    available = available_memory()
    plans = [_plan(name, config, speed, available) for name, config in configs.items()]
    return PresetPlans(sorted(plans, key=lambda plan: plan.parameters), available, speed)


def _workers(config: Config) -> int:
    return config.run.workers or default_workers(config.train.shards)


def _plan(name: str, config: Config, speed: Speed | None, available: int) -> PresetPlan:
    workers = _workers(config)
    memory = needs(config, workers).memory
    step = None if speed is None else step_at(speed, config, workers)
    return PresetPlan(
        name=name,
        purpose=purpose(name),
        parameters=parameter_count(config.model),
        tokens_per_step=config.tokens_per_step,
        steps=config.train.steps,
        workers=workers,
        memory_bytes=memory.total,
        memory_suffices=memory.to_come <= available,
        step_seconds=None if step is None else step.total,
        run_seconds=None if step is None else run_seconds(config, step),
    )
