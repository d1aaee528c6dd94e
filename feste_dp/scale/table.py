"""A study as text for the terminal, and as scaling.csv. Pure."""

import csv
import io
import textwrap
from collections.abc import Iterator

from feste_dp.machine.topology import Cache
from feste_dp.run.step_times import shown_phases
from feste_dp.scale.study import Baseline, Count, Fit, Interval, Machine, Study
from feste_dp.wording import counted

_WIDTH, _LABEL = 110, 15
_SHOWN = (4, 8, 16, 32, 64, 128)


def study_table(study: Study) -> str:
    """Lines of at most 110 characters."""
    lines = [
        *_head(study),
        "",
        *_rates(study),
        "",
        *_phases(study),
        "",
        *(line for fit in study.fits for line in _fit(fit)),
        *([f"limit          {study.limit.sentence}"] if study.limit else []),
        ("same bits" if study.same_bits.agree else "NOT THE SAME").ljust(15) + study.same_bits.sentence,
        *(f"warning        {line}" for line in study.warnings),
    ]
    return "\n".join(part for line in lines for part in _wrapped(line))


def study_csv(study: Study) -> str:
    """A line per count and baseline; a figure that a baseline has not is empty."""
    out, phases = io.StringIO(), shown_phases([count.phases_ms for count in study.counts])
    of_nodes = any(count.nodes is not None for count in study.counts)
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "what", "workers", "tokens_per_step", "tokens_per_second", "low", "high",
            "speedup", "speedup_low", "speedup_high", "efficiency", "step_ms",
            *(f"{phase}_ms" for phase in phases),
            "gflops_per_second_per_core", "reduce_gb_per_second", "update_gb_per_second", "memory_mib",
            *(["nodes", "exchange_gb_per_second", "link_gb_per_second"] if of_nodes else []),
        ]
    )  # fmt: skip
    for count in study.counts:
        rate, speedup = count.tokens_per_second, count.speedup
        writer.writerow(
            [
                _units(study), count.workers, count.tokens_per_step, *_cells(rate, 1), *_cells(speedup, 4),
                f"{count.efficiency.value:.4f}", f"{count.step_ms:.3f}",
                *(f"{count.phases_ms.get(phase, 0.0):.3f}" for phase in phases),
                f"{count.gflops_per_second_per_core:.2f}", f"{count.reduce.gb_per_second:.2f}",
                f"{count.update.gb_per_second:.2f}", f"{count.memory_bytes / 2**20:.0f}",
                *(_node_cells(count) if of_nodes else []),
            ]
        )  # fmt: skip
    for baseline in study.baselines:
        if baseline.tokens_per_second is not None and baseline.memory_bytes is not None:
            empty = [""] * (4 + 1 + len(phases) + 3)
            memory = f"{baseline.memory_bytes / 2**20:.0f}"
            writer.writerow([baseline.name, "", "", *_cells(baseline.tokens_per_second, 1), *empty, memory])
    return out.getvalue()


def machine_line(machine: Machine) -> str:
    """The machine in words, no name of a host in it."""
    threads = "" if machine.threads_per_core == 1 else f", {machine.threads_per_core} threads a core"
    quota = "" if machine.cgroup_cpus is None else f", cgroup quota {machine.cgroup_cpus:g} CPUs"
    limit = (
        "" if machine.cgroup_memory_bytes is None else f", cgroup limit {_size(machine.cgroup_memory_bytes)}"
    )
    return (
        f"{machine.cpu}, {machine.physical_cores} cores usable{threads}, "
        f"{counted(machine.sockets, 'socket')}, {counted(machine.numa_nodes, 'NUMA node')}, "
        f"{_size(machine.memory_bytes)}{quota}{limit}"
    )


def _wrapped(line: str) -> list[str]:
    """A long line in several, what follows the first below its text."""
    if len(line) <= _WIDTH:
        return [line]
    head, text = line[:_LABEL], line[_LABEL:]
    return textwrap.wrap(
        text, _WIDTH, initial_indent=head, subsequent_indent=" " * _LABEL, break_long_words=False
    )


def _head(study: Study) -> Iterator[str]:
    machine, first = study.machine, study.counts[0]
    batch = "the same batch" if study.kind == "strong" else f"a batch in proportion to the {_units(study)}"
    yield (
        f"{study.kind} scaling of {study.config_name}: {batch}, {first.tokens_per_step:,} tokens a step with "
        f"{counted(first.place, first.unit)}; {study.parameters:,} parameters"
    )
    yield f"machine        {machine_line(machine)}"
    yield f"caches         {', '.join(map(_cache, machine.caches)) or 'unknown'}"
    pinned = ", ".join("-" if cpu is None else str(cpu) for cpu in machine.pinned_cpus)
    yield (
        f"before         load average {machine.load_before:.2f}, others took {machine.busy_before:.0%} of "
        f"the CPUs; pin {machine.pin}: {pinned}"
    )
    yield (
        f"measured       {counted(study.repeats, 'round')} over all counts in turn, "
        f"{counted(study.steps, 'step')} each after {study.warmup_steps} to warm up"
    )


def _rates(study: Study) -> Iterator[str]:
    what = "nodes, workers" if study.counts[0].nodes else "workers"
    names = f"{what:<15}{'tokens/s':>10}{'95 %':>22}{'speed-up':>10}{'95 %':>19}"
    yield f"{names}{'efficiency':>11}{'memory':>11}"
    for count in study.counts:
        mark = "*" if count.above_cores else ""
        yield (
            f"{f'{_label(count)}{mark}':<15}{count.tokens_per_second.value:>10,.0f}"
            f"{_range(count.tokens_per_second, ',.0f'):>22}{count.speedup.value:>9.3f}x"
            f"{_range(count.speedup, '.3f'):>19}{count.efficiency.value:>11.1%}{_mib(count.memory_bytes):>11}"
        )
    for baseline in study.baselines:
        yield from _baseline(baseline, study.counts[0])
    if any(count.above_cores for count in study.counts):
        cores = f"the {study.machine.physical_cores} physical cores"
        cores = "their nodes have cores" if study.counts[0].nodes else cores
        yield f"               * more workers than {cores}"


def _label(count: Count) -> str:
    return str(count.workers) if count.nodes is None else f"{count.nodes}, {count.workers}"


def _units(study: Study) -> str:
    return f"{study.counts[0].unit}s"


def _baseline(baseline: Baseline, first: Count) -> Iterator[str]:
    if baseline.tokens_per_second is None or baseline.memory_bytes is None:
        yield f"{baseline.name:<15}skipped: {baseline.skipped}"
        return
    against = baseline.tokens_per_second.value / first.tokens_per_second.value * first.workers
    yield (
        f"{baseline.name:<15}{baseline.tokens_per_second.value:>10,.0f}"
        f"{_range(baseline.tokens_per_second, ',.0f'):>22}{against:>9.3f}x{'':>31}"
        f"{_mib(baseline.memory_bytes):>11}"
    )
    yield f"               {baseline.what}"


def _phases(study: Study) -> Iterator[str]:
    shown = shown_phases([count.phases_ms for count in study.counts])
    names = "".join(f"{name:>9}" for name in shown)
    of_nodes = study.counts[0].nodes is not None
    moved = f"{'exchange GB/s':>15}" if of_nodes else f"{'reduce GB/s':>13}{'update GB/s':>13}"
    yield f"{'ms of a step':<15}{names}{'sum':>9}{'GF/s a core':>13}{moved}"
    for count in study.counts:
        phases = "".join(f"{count.phases_ms.get(name, 0.0):>9.3f}" for name in shown)
        share = count.gflops_per_second_per_core / count.peak_gflops_per_second_per_core
        yield (
            f"{_label(count):<15}{phases}{sum(count.phases_ms.values()):>9.3f}"
            f"{f'{count.gflops_per_second_per_core:.1f} {share:4.0%}':>13}{_moved(count)}"
        )
    against = "a plain stream between all nodes" if of_nodes else "a triad over as many bytes"
    yield f"               %: of the bare micro-kernel on as many cores at once; of {against}"


def _moved(count: Count) -> str:
    if count.nodes is not None:
        exchange = count.exchange
        if exchange is None:
            return ""
        if exchange.is_small:
            return f"{'sent whole':>15}"
        return f"{f'{exchange.gb_per_second:.2f} {exchange.share_of_link:4.0%}':>15}"
    return (
        f"{f'{count.reduce.gb_per_second:.1f} {count.reduce.share_of_triad:4.0%}':>13}"
        f"{f'{count.update.gb_per_second:.1f} {count.update.share_of_triad:4.0%}':>13}"
    )


def _fit(fit: Fit) -> Iterator[str]:
    if not fit.parameters:
        yield f"{fit.law:<15}{fit.note}"
        return
    words = [
        f"{name.replace('_', ' ')} {_figure(figure)}"
        for name, figure in fit.parameters.items()
        if name != "tokens_per_second_of_one"
    ]
    residual = "" if fit.largest_residual is None else f"; off by at most {fit.largest_residual:.1%}"
    yield f"{fit.law:<15}{', '.join(words)}{residual}"
    shown = [point for point in fit.curve if point.workers in _SHOWN and point.workers > max(fit.counts)]
    for start in range(0, len(shown), 3):
        points = ", ".join(
            f"{point.workers}: {point.tokens_per_second.value:,.0f} "
            f"{_range(point.tokens_per_second, ',.0f')}".rstrip()
            for point in shown[start : start + 3]
        )
        yield f"               {'predicted ' if start == 0 else ' ' * 10}{points}"
    yield f"               {fit.note}"


def _figure(figure: Interval) -> str:
    return f"{figure.value:.4g} {_range(figure, '.3g')}".rstrip()


def _node_cells(count: Count) -> list[object]:
    exchange = count.exchange
    if exchange is None:
        return [count.place, "", ""]
    return [count.place, f"{exchange.gb_per_second:.3f}", f"{exchange.link_gb_per_second:.3f}"]


def _range(figure: Interval, form: str) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"({figure.low:{form}} to {figure.high:{form}})"


def _cells(figure: Interval, digits: int) -> list[str]:
    return [
        "" if number is None else f"{number:.{digits}f}" for number in (figure.value, figure.low, figure.high)
    ]


def _cache(cache: Cache) -> str:
    kind = {"Data": "d", "Instruction": "i"}.get(cache.kind, "")
    shared = "" if cache.shared_by == 1 else f" shared by {cache.shared_by}"
    return f"L{cache.level}{kind} {cache.instances} x {_size(cache.bytes)}{shared}"


def _size(count: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB")):
        if count >= unit:
            return f"{count / unit:,.3g} {name}"
    return f"{count / 1024:,.0f} KiB"


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB"
