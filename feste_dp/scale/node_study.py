"""A study over node counts: rounds of `feste-dp bench` on so many nodes in turn, and what they amount to."""

import hashlib
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from feste_dp.bench.step_report import Bandwidth as PhaseBandwidth
from feste_dp.bench.step_report import StepReport
from feste_dp.bench.steps import with_room_for
from feste_dp.config.schema import Config
from feste_dp.machine.load import OtherWork
from feste_dp.nodes.blocks import node_blocks
from feste_dp.scale.assembly import bits_of, machine_warnings, study_of
from feste_dp.scale.intervals import interval
from feste_dp.scale.launching import Launcher, bench_on_nodes
from feste_dp.scale.study import Bandwidth, Count, Exchange, Kind, Machine, SameBits, Study
from feste_dp.train.start import Surroundings
from feste_dp.wording import counted


@dataclass(frozen=True)
class NodePlan:
    """What to measure: `steps` are timed after `warmup`, in each of `repeats` rounds. `arguments` are those
    of bench that say which config it is."""

    kind: Kind
    config: Config
    counts: list[int]
    steps: int
    warmup: int
    repeats: int
    launcher: Launcher
    arguments: list[str]

    def batch_size(self, nodes: int) -> int:
        return self.config.train.batch_size * (nodes if self.kind == "weak" else 1)

    def arguments_of(self, nodes: int) -> list[str]:
        """Of bench, for so many nodes."""
        counts = ["--steps", str(self.steps), "--warmup", str(self.warmup)]
        batch = ["--set", f"train.batch_size={self.batch_size(nodes)}"] if self.kind == "weak" else []
        return [*self.arguments, *batch, *counts]


@dataclass
class NodeRuns:
    """All rounds of one count."""

    nodes: int
    reports: list[StepReport] = field(default_factory=list)


def check_node_plan(plan: NodePlan) -> None:
    """Raises UsageError for more nodes than shards."""
    node_blocks(plan.config.train.shards, max(plan.counts))


def measure_nodes(plan: NodePlan, around: Surroundings) -> tuple[list[NodeRuns], float]:
    """The runs of each count, and the share of this machine's CPUs that others took. Raises RunError."""
    found = [NodeRuns(nodes) for nodes in plan.counts]
    others = OtherWork(sorted(os.sched_getaffinity(0)))
    for number in range(1, plan.repeats + 1):
        for runs in found:
            around.progress.phase(f"round {number} of {plan.repeats}: {counted(runs.nodes, 'node')}")
            arguments = plan.arguments_of(runs.nodes)
            runs.reports.append(bench_on_nodes(plan.launcher, runs.nodes, arguments, around.environ))
    return found, others.share()


def make_node_study(
    plan: NodePlan, name: str, machine: Machine, found: Sequence[NodeRuns], busy_during: float, now: datetime
) -> Study:
    """Pure. `machine` is that of the first node."""
    return study_of(
        plan,
        name,
        machine,
        with_room_for(plan.config, plan.warmup + plan.steps),
        [_count(runs, found[0]) for runs in found],
        now,
        same_bits=_same_bits(plan.kind, found),
        warnings=machine_warnings(machine, [], busy_during) + _sharing(found),
    )


def _count(runs: NodeRuns, first: NodeRuns) -> Count:
    reports = runs.reports
    rates, firsts = _rates(runs), _rates(first)
    speedups = [first.nodes * rate / one for rate, one in zip(rates, firsts, strict=True)]
    report = reports[0]
    return Count(
        workers=sum(node.workers for node in report.nodes) or report.workers,
        cores=sum(node.cores for node in report.nodes) or report.cores,
        tokens_per_step=report.tokens_per_step,
        tokens_per_second=interval(rates),
        tokens_per_second_each=rates,
        speedup=interval(speedups),
        efficiency=interval([speedup / runs.nodes for speedup in speedups]),
        step_ms=statistics.median(ms for each in reports for ms in each.step_ms_each),
        phases_ms={
            phase: statistics.fmean(each.phases_ms[phase] for each in reports) for phase in report.phases_ms
        },
        gflops_per_second_per_core=statistics.median(each.gflops_per_second_per_core for each in reports),
        peak_gflops_per_second_per_core=max(each.peak_gflops_per_second_per_core for each in reports),
        reduce=_bandwidth([each.reduce for each in reports]),
        update=_bandwidth([each.update for each in reports]),
        memory_bytes=max(each.memory.total_bytes for each in reports),
        loss_sha256=hashlib.sha256(bits_of(report.losses)).hexdigest(),
        above_cores=any(node.cores < node.workers for node in report.nodes) or report.cores < report.workers,
        nodes=runs.nodes,
        exchange=_exchange(reports),
    )


def _exchange(reports: Sequence[StepReport]) -> Exchange | None:
    found = [report.exchange for report in reports if report.exchange is not None]
    if not found:
        return None
    return Exchange(
        is_small=found[0].is_small,
        gb_per_second=statistics.median(each.gb_per_second for each in found),
        link_gb_per_second=statistics.median(each.link_gb_per_second for each in found),
        share_of_link=statistics.median(each.share_of_link for each in found),
        link_latency_us=statistics.median(each.link_latency_us for each in found),
    )


def _bandwidth(phases: Sequence[PhaseBandwidth]) -> Bandwidth:
    return Bandwidth(
        statistics.median(each.gb_per_second for each in phases),
        statistics.median(each.share_of_triad for each in phases),
    )


def _rates(runs: NodeRuns) -> list[float]:
    """Tokens a second of each round's median step."""
    return [1e3 * each.tokens_per_step / each.step_ms.median for each in runs.reports]


def _same_bits(kind: Kind, found: Sequence[NodeRuns]) -> SameBits:
    """Compares the losses of all runs on the same batch, bit for bit."""
    for runs in found:
        expected = (runs if kind == "weak" else found[0]).reports[0].losses
        for report in runs.reports:
            for step, (a, b) in enumerate(zip(expected, report.losses, strict=True), start=1):
                if bits_of([a]) != bits_of([b]):
                    return SameBits(
                        False,
                        f"DIFFERENT LOSSES: step {step} on {counted(runs.nodes, 'node')} gave {b!r}, not "
                        f"{a!r}: the promise that nodes change nothing does not hold here; report it",
                    )
    numbers, rounds = ", ".join(str(runs.nodes) for runs in found), sum(len(runs.reports) for runs in found)
    among = " as the others on their batch" if kind == "weak" else ""
    return SameBits(
        True,
        f"on {numbers} nodes, all {rounds} runs of {len(found[0].reports[0].losses)} steps gave the same "
        f"losses{among}, bit for bit",
    )


def _sharing(found: Sequence[NodeRuns]) -> list[str]:
    """A warning where nodes were on the same machine, which is fine for a trial and says nothing of speed."""
    shared = max((node.sharing for runs in found for node in runs.reports[0].nodes), default=1)
    if shared < 2:
        return []
    return [
        f"up to {shared} nodes ran on the same CPUs: the figures show what that costs, not how nodes scale"
    ]
