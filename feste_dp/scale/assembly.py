"""Makes a study of measurements: medians, intervals, ratios, fits, the limit, equal bits. Pure."""

import hashlib
import statistics
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from feste_dp.bench.step_report import Bandwidth as PhaseBandwidth
from feste_dp.bench.step_report import Yardsticks, step_report
from feste_dp.config.schema import Config
from feste_dp.model.parameters import parameter_count
from feste_dp.plan.arithmetic import flops_formula, flops_per_token
from feste_dp.scale.baselines.running import BaselineRun, one_process_words, torch_words
from feste_dp.scale.intervals import METHOD, interval
from feste_dp.scale.laws import fit_laws
from feste_dp.scale.limit import find_limit
from feste_dp.scale.machine import BUSY
from feste_dp.scale.measuring import BaselineRuns, CountRuns, Measurements, Plan
from feste_dp.scale.study import (
    FORMAT,
    Bandwidth,
    Baseline,
    BaselineName,
    Count,
    Kind,
    Machine,
    SameBits,
    Study,
)
from feste_dp.wording import counted


class Measured(Protocol):
    """What a plan of workers and one of nodes have in common."""

    @property
    def kind(self) -> Kind: ...
    @property
    def steps(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def repeats(self) -> int: ...


def make_study(plan: Plan, name: str, machine: Machine, found: Measurements, now: datetime) -> Study:
    return study_of(
        plan,
        name,
        machine,
        found.counts[0].config,
        [_count(runs, found, machine) for runs in found.counts],
        now,
        baselines=_baselines(plan, found),
        same_bits=same_bits(found.counts),
        warnings=machine_warnings(machine, plan.counts, found.busy_during),
    )


def study_of(
    plan: Measured,
    name: str,
    machine: Machine,
    config: Config,
    counts: list[Count],
    now: datetime,
    *,
    same_bits: SameBits,
    warnings: list[str],
    baselines: Sequence[Baseline] = (),
) -> Study:
    """The study of these counts, of workers or of nodes, with what follows from them."""
    within = [count for count in counts if not count.above_cores]
    rates = np.array([count.tokens_per_second_each for count in within], np.float64).T
    return Study(
        format=FORMAT,
        kind=plan.kind,
        created=now.astimezone(UTC).isoformat(timespec="seconds"),
        config_name=name,
        config=config.model_dump(mode="json"),
        parameters=parameter_count(config.model),
        flops_per_token=flops_per_token(config.model),
        flops_formula=flops_formula(config.model),
        warmup_steps=plan.warmup,
        steps=plan.steps,
        repeats=plan.repeats,
        intervals=METHOD if plan.repeats > 1 else "one round: no intervals",
        machine=machine,
        counts=counts,
        baselines=list(baselines),
        fits=fit_laws(plan.kind, [count.place for count in within], rates, counts[0].unit) if within else [],
        limit=find_limit(plan.kind, counts),
        same_bits=same_bits,
        warnings=warnings,
    )


def machine_warnings(machine: Machine, counts: Sequence[int], busy_during: float = 0.0) -> list[str]:
    """What makes the figures doubtful: a machine that is busy before or, as far as others take its CPUs,
    during the study, and more workers than cores."""
    warnings = []
    if machine.busy_before > BUSY:
        warnings.append(
            f"the machine is busy: others took {machine.busy_before:.0%} of its CPUs in the second before "
            f"the start (load average {machine.load_before:.2f}); stop them, or do not trust the figures"
        )
    if busy_during > BUSY:
        warnings.append(
            f"others took {busy_during:.0%} of the CPUs during the study: stop them and measure again, or do "
            "not trust the figures"
        )
    above = [count for count in counts if count > machine.physical_cores]
    if above:
        warnings.append(
            f"{', '.join(map(str, above))} workers share {counted(machine.physical_cores, 'physical core')}: "
            "such counts show what sharing costs, and the fits leave them out"
        )
    return warnings


def same_bits(counts: Sequence[CountRuns]) -> SameBits:
    """Compares the losses of all runs on the same batch, bit for bit."""
    runs = sum(len(count.losses) for count in counts)
    steps = len(counts[0].losses[0])
    weak = any(count.reference is not None for count in counts)
    for count in counts:
        expected = count.losses[0] if weak else counts[0].losses[0]
        compared = [*count.losses, *([count.reference] if count.reference is not None else [])]
        for losses in compared:
            for step, (a, b) in enumerate(zip(expected, losses, strict=False), start=1):
                if bits_of([a]) != bits_of([b]):
                    return SameBits(
                        False,
                        f"DIFFERENT LOSSES: step {step} with {count.workers} workers gave {b!r}, not {a!r}: "
                        "the promise that the worker count changes nothing does not hold here; report it",
                    )
    if weak:
        return SameBits(
            True,
            f"all {runs} runs of {steps} steps gave the same losses as the others on their batch and as one "
            "worker on it, bit for bit",
        )
    return SameBits(
        True,
        f"with {', '.join(str(count.workers) for count in counts)} workers, all {runs} runs of {steps} steps "
        "gave the same losses, bit for bit",
    )


def _count(runs: CountRuns, found: Measurements, machine: Machine) -> Count:
    config, first = runs.config, found.counts[0]
    cores = min(runs.workers, machine.usable_cpus)
    yardsticks: Yardsticks = found.yardsticks[cores]
    times = [step for repeat in runs.times for step in repeat]
    memory = max(runs.memory, key=lambda memory: memory.total_bytes)
    report = step_report(config, runs.workers, cores, machine.cpu, yardsticks, times, runs.losses[0], memory)
    rates, firsts = _rates(runs), _rates(first)
    speedups = [first.workers * rate / one for rate, one in zip(rates, firsts, strict=True)]
    return Count(
        workers=runs.workers,
        cores=cores,
        tokens_per_step=config.tokens_per_step,
        tokens_per_second=interval(rates),
        tokens_per_second_each=rates,
        speedup=interval(speedups),
        efficiency=interval([speedup / runs.workers for speedup in speedups]),
        step_ms=report.step_ms.median,
        phases_ms=report.phases_ms,
        gflops_per_second_per_core=report.gflops_per_second_per_core,
        peak_gflops_per_second_per_core=report.peak_gflops_per_second_per_core,
        reduce=_bandwidth(report.reduce),
        update=_bandwidth(report.update),
        memory_bytes=memory.total_bytes,
        loss_sha256=hashlib.sha256(bits_of(runs.losses[0])).hexdigest(),
        above_cores=runs.workers > machine.physical_cores,
    )


def _rates(runs: CountRuns) -> list[float]:
    """Tokens a second of each round's median step."""
    tokens = runs.config.tokens_per_step
    return [tokens / statistics.median(step.total for step in repeat) for repeat in runs.times]


def _bandwidth(phase: PhaseBandwidth) -> Bandwidth:
    return Bandwidth(phase.gb_per_second, phase.share_of_triad)


def _baselines(plan: Plan, found: Measurements) -> list[Baseline]:
    one, largest = plan.config_of(1), plan.config_of(max(plan.counts))
    words = one_process_words()
    if found.one_process.runs:
        words += f"; {_nearness(found.one_process.runs, found.counts[0])}"
    threads = plan.torch_threads
    return [
        _baseline("one process", words, 1, one.tokens_per_step, found.one_process),
        _baseline("PyTorch", torch_words(threads), threads, largest.tokens_per_step, found.torch),
    ]


def _baseline(name: BaselineName, what: str, threads: int, tokens: int, runs: BaselineRuns) -> Baseline:
    rates = [tokens / statistics.median(run.step_seconds) for run in runs.runs]
    fits = runs.skipped is None
    return Baseline(
        name=name,
        what=what,
        threads=threads,
        tokens_per_second=interval(rates) if fits else None,
        tokens_per_second_each=rates if fits else [],
        memory_bytes=max(run.peak_memory_bytes for run in runs.runs) if fits else None,
        skipped=runs.skipped,
    )


def _nearness(runs: Sequence[BaselineRun], first: CountRuns) -> str:
    """How near the baseline's losses are: its gradients are added up in another order."""
    pairs = list(zip(runs[0].losses, first.losses[0], strict=False))
    if first.workers > 1 and first.reference is not None:
        return "its losses are those of another batch"
    apart = max(abs(a / b - 1) for a, b in pairs)
    return f"its losses are within {apart:.1e} of the workers', whose sums have another order"


def bits_of(losses: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(losses)}d", *losses)
