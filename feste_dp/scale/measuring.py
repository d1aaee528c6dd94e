"""Takes the measurements of a study: rounds over all counts and baselines, so that drift of the machine meets
all alike. Knows nothing of intervals, laws and files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from feste_dp.bench.step_bench import measure_yardsticks
from feste_dp.bench.step_report import Yardsticks
from feste_dp.bench.steps import measure_steps, with_room_for
from feste_dp.config.schema import Config
from feste_dp.config.worker_counts import settings_for, too_many_workers
from feste_dp.errors import RunError, UsageError
from feste_dp.machine.cpus import crowding, usable_cpus
from feste_dp.machine.load import OtherWork
from feste_dp.machine.memory import Memory
from feste_dp.run.screen import Progress
from feste_dp.run.step_times import StepTimes
from feste_dp.scale.baselines.running import BaselineRun, run_one_process, run_torch, why_no_torch
from feste_dp.scale.study import Kind
from feste_dp.train.start import Surroundings, check_machine, prepare
from feste_dp.wording import counted

# Steps of the check that weak scaling needs: each count has a batch of its own.
_CHECKED_STEPS = 2


@dataclass(frozen=True)
class Plan:
    """What to measure. `steps` are timed after `warmup`, in each of `repeats` rounds."""

    kind: Kind
    config: Config
    counts: list[int]
    steps: int
    warmup: int
    repeats: int
    baselines: bool

    def config_of(self, workers: int) -> Config:
        """The config of a count: the same batch, or, for weak scaling, one in proportion to the workers, in
        as many shards."""
        config = with_room_for(self.config, self.warmup + self.steps)
        if self.kind == "strong":
            return config
        batch = config.train.batch_size * workers
        return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": batch})})

    @property
    def torch_threads(self) -> int:
        return min(max(self.counts), usable_cpus())


@dataclass
class CountRuns:
    """All rounds of one count."""

    workers: int
    config: Config
    times: list[list[StepTimes]] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    reference: list[float] | None = None
    """Losses of one worker on the same batch, where other counts have other batches."""


@dataclass
class BaselineRuns:
    """All rounds of one baseline, or why there are none."""

    runs: list[BaselineRun] = field(default_factory=list)
    skipped: str | None = None


@dataclass
class Measurements:
    counts: list[CountRuns]
    one_process: BaselineRuns
    torch: BaselineRuns
    yardsticks: dict[int, Yardsticks]
    """By number of cores at once."""
    busy_during: float = 0.0
    """Share of the CPUs' time that others took during the rounds."""


def check_plan(plan: Plan, quiet: Surroundings) -> None:
    """Refuses what cannot be measured, before anything is. Raises UsageError."""
    train = plan.config.train
    if max(plan.counts) > train.shards:
        most = max(plan.counts)
        raise UsageError(too_many_workers(most, train), about="workers", settings=settings_for(most, train))
    for workers in plan.counts:
        check_machine(plan.config_of(workers), workers, quiet)


def measure(plan: Plan, around: Surroundings, quiet: Surroundings) -> Measurements:
    """`quiet` is for the single runs. Raises UsageError, RunError."""
    data = prepare(plan.config, around)
    found = Measurements(
        [CountRuns(workers, plan.config_of(workers)) for workers in plan.counts],
        BaselineRuns(skipped=None if plan.baselines else "left out as asked"),
        BaselineRuns(skipped=why_no_torch(_torch_config(plan)) if plan.baselines else "left out"),
        {},
    )
    others = OtherWork(sorted(os.sched_getaffinity(0)))
    for number in range(1, plan.repeats + 1):

        def say(what: str, number: int = number) -> None:
            around.progress.phase(f"round {number} of {plan.repeats}: {what}")

        if found.one_process.skipped is None:
            say("one process")
            found.one_process.runs.append(
                run_one_process(plan.config_of(1), data.directory, plan.warmup, plan.steps, around.environ)
            )
        for count in found.counts:
            say(counted(count.workers, "worker"))
            steps = measure_steps(count.config, count.workers, plan.steps, plan.warmup, quiet)
            count.times.append(steps.times)
            count.losses.append(steps.losses)
            count.memory.append(steps.memory)
        if found.torch.skipped is None:
            say("PyTorch")
            _run_torch(plan, found.torch, around)
    found.busy_during = others.share()
    if plan.kind == "weak":
        _check_against_one_worker(plan, found.counts, around, quiet)
    around.progress.phase("measuring what the cores can do")
    for cores in sorted({min(workers, usable_cpus()) for workers in plan.counts}):
        found.yardsticks[cores] = measure_yardsticks(plan.config, cores, cores)
    return found


def _torch_config(plan: Plan) -> Config:
    return plan.config_of(max(plan.counts))


def _run_torch(plan: Plan, torch: BaselineRuns, around: Surroundings) -> None:
    """One round; a failure ends PyTorch's part in the study, not the study."""
    try:
        config = _torch_config(plan)
        torch.runs.append(run_torch(config, plan.torch_threads, plan.warmup, plan.steps, around.environ))
    except RunError as error:
        torch.skipped = str(error)
        around.record.warn(f"PyTorch is left out: {error}")


def _check_against_one_worker(
    plan: Plan, counts: Sequence[CountRuns], around: Surroundings, quiet: Surroundings
) -> None:
    for count in counts:
        if count.workers > 1:
            around.progress.phase(f"one worker on the batch of {count.workers}, to compare the losses")
            steps = min(_CHECKED_STEPS, plan.warmup + plan.steps)
            count.reference = measure_steps(count.config, 1, steps, 0, quiet).losses


def quietly(plan: Plan, around: Surroundings) -> Surroundings:
    """For single runs: their warnings once, but not those of crowded cores, which the study itself gives."""
    return replace(around, progress=_Quiet(around.progress, {crowding(n) for n in plan.counts}))


class _Quiet(Progress):
    """Passes each warning on once and nothing else: a study says itself what it is at."""

    def __init__(self, outer: Progress, said: set[str | None]) -> None:
        self._outer, self._said = outer, said

    def warning(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._outer.warning(text)

    def finish(self, summary: str) -> None:
        """Nothing finishes here."""
