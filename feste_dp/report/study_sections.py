"""The page's part on a scaling study: what `feste-dp scale` wrote into scaling.json, drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feste_dp.errors import UsageError
from feste_dp.report.axes import exact
from feste_dp.report.chart import Chart, Series, render
from feste_dp.report.curves import PHASE_COLORS
from feste_dp.report.markup import Child, Markup, disclosure, section, table, tag
from feste_dp.run.step_times import shown_phases
from feste_dp.scale.study import FILE_NAME, read_study
from feste_dp.wording import command, counted

Json = Mapping[str, Any]

_LAW_COLORS = {"Amdahl": 2, "USL": 5, "Gustafson": 3}


def is_study(path: Path) -> bool:
    """Whether a path given on the command line means a study and not a run."""
    return path.name == FILE_NAME or (path / FILE_NAME).is_file()


def read_study_part(path: Path, key: str = "scaling") -> Markup:
    """The section on the study in this file or directory. Raises UsageError where it is none."""
    study = read_study(path)
    if not study.counts:
        raise UsageError(f"{path}: a scaling study of no worker count: make it anew with {command('scale')}")
    return _study_section(asdict(study), key)


def _study_section(study: Json, key: str) -> Markup:
    counts, limit, machine = study["counts"], study["limit"], study["machine"]
    kind = (
        "one global batch for all counts"
        if study["kind"] == "strong"
        else f"a batch that grows with the {_units(counts)}"
    )
    lead = (
        f"{study['config_name']}, {study['parameters']:,} parameters, {study['kind']} scaling ({kind}); "
        f"{study['repeats']} interleaved repeats of {study['steps']} steps; {machine['cpu']}, "
        f"{machine['physical_cores']} cores, {machine['usable_cpus']} usable CPUs; {study['created']}"
    )
    charts = [speed_chart(study, key), efficiency_chart(study, key), phase_bars(study, key)]
    return section(
        key,
        f"Scaling of {study['config_name']}",
        tag("p", {"class": "lead strong"}, limit["sentence"]) if limit else None,
        tag("p", {"class": "lead"}, study["same_bits"]["sentence"]),
        [tag("p", {"class": "lead problem"}, warning) for warning in study["warnings"]],
        tag("div", {"class": "charts"}, [render(chart) for chart in charts]),
        tag("h3", None, "Each count"),
        _counts_table(counts),
        _baselines(study["baselines"]),
        _fits(study["fits"], key),
        _lost(limit, key, _unit(counts)) if limit else None,
        _machine(study, key),
        lead=lead,
    )  # fmt: skip


def speed_chart(study: Json, key: str) -> Chart:
    """Tokens per second over workers, measured and by the fitted laws."""
    counts = study["counts"]
    first = counts[0]
    one = first["tokens_per_second"]["value"] / _place(first)
    fits = [fit for fit in study["fits"] if fit["curve"]]
    most = max(
        [_place(count) for count in counts] + [point["workers"] for fit in fits for point in fit["curve"]]
    )
    measured = [(_place(count), count["tokens_per_second"]["value"]) for count in counts]
    series = [
        Series("measured", measured, 1, "dots", _band(counts, "tokens_per_second")),
        Series("perfect", [(n, one * n) for n in _powers(most)], 8, "dashed"),
    ]
    for fit in fits:
        curve = [(point["workers"], point["tokens_per_second"]["value"]) for point in fit["curve"]]
        color = _LAW_COLORS.get(fit["law"], 4)
        series.append(Series(fit["law"], curve, color, "line", _band(fit["curve"], "tokens_per_second")))
    for number, baseline in enumerate(study["baselines"]):
        if baseline["tokens_per_second"]:
            level = baseline["tokens_per_second"]["value"]
            ends = [(n, level) for n in sorted({1, _place(counts[-1])})]
            series.append(Series(baseline["name"], ends, 6 + number, "dashed"))
    return Chart(
        key=f"{key}-speed",
        title=f"Throughput over {_units(counts)}",
        x_label=_units(counts),
        y_label="tokens per second; both axes are logarithmic",
        series=series,
        note=f"The bands: {study['intervals']}.",
        is_log_x=True,
        is_log_y=True,
        is_wide=True,
        labels=[str(n) for n in _powers(most)],
    )


def efficiency_chart(study: Json, key: str) -> Chart:
    counts = study["counts"]
    speedup = [(_place(count), count["efficiency"]["value"]) for count in counts]
    return Chart(
        key=f"{key}-efficiency",
        title="Efficiency",
        x_label=_units(counts),
        y_label=f"speed-up per {_unit(counts)}; 1 is perfect",
        series=[Series("efficiency", speedup, 1, "line", _band(counts, "efficiency"))],
        is_log_x=True,
        from_zero=True,
        labels=[str(_place(count)) for count in counts],
    )


def phase_bars(study: Json, key: str) -> Chart:
    counts = study["counts"]
    series = [
        Series(
            phase,
            [(number, count["phases_ms"].get(phase, 0.0)) for number, count in enumerate(counts)],
            PHASE_COLORS[phase],
        )
        for phase in shown_phases([count["phases_ms"] for count in counts])
    ]
    return Chart(
        key=f"{key}-phases",
        title="Where a step's time goes",
        x_label=_units(counts),
        y_label="milliseconds per step",
        series=series,
        stacked="bars",
        labels=[str(_place(count)) for count in counts],
    )


def _counts_table(counts: Sequence[Json]) -> Markup:
    shown, of_nodes = shown_phases([count["phases_ms"] for count in counts]), _unit(counts) == "node"
    head = [
        *(["nodes"] if of_nodes else []),
        "workers",
        "tokens/s (95 %)",
        "speed-up",
        "efficiency",
        "step ms",
    ]
    head += [f"{phase} ms" for phase in shown]
    head += ["GF/s per core", "of peak", "reduce GB/s", "update GB/s", "memory MiB"]
    head += ["exchange GB/s", "of the link"] if of_nodes else []
    rows: list[list[Child]] = []
    for count in counts:
        gflops, peak = count["gflops_per_second_per_core"], count["peak_gflops_per_second_per_core"]
        rows.append([
            *([str(count["nodes"])] if of_nodes else []),
            f"{count['workers']}{' (above the cores)' if count['above_cores'] else ''}",
            _interval(count["tokens_per_second"], 4),
            _interval(count["speedup"], 3),
            f"{100 * count['efficiency']['value']:.0f} %",
            exact(count["step_ms"], 4),
            *(exact(count["phases_ms"].get(phase, 0.0), 3) for phase in shown),
            exact(gflops, 3),
            f"{100 * gflops / peak:.0f} %",
            exact(count["reduce"]["gb_per_second"], 3),
            exact(count["update"]["gb_per_second"], 3),
            f"{count['memory_bytes'] / 2**20:,.0f}",
            *(_exchange(count["exchange"]) if of_nodes else []),
        ])  # fmt: skip
    return table(head, rows, {"class": "numbers"})


def _exchange(exchange: Json | None) -> list[Child]:
    if exchange is None:
        return ["", ""]
    if exchange["is_small"]:
        return ["sent whole", ""]
    return [exact(exchange["gb_per_second"], 3), f"{100 * exchange['share_of_link']:.0f} %"]


def _place(count: Json) -> int:
    """Where a count stands on the axis of its study."""
    return int(count["workers"] if count["nodes"] is None else count["nodes"])


def _unit(counts: Sequence[Json]) -> str:
    return "worker" if counts[0]["nodes"] is None else "node"


def _units(counts: Sequence[Json]) -> str:
    return f"{_unit(counts)}s"


def _baselines(baselines: Sequence[Json]) -> Markup | None:
    if not baselines:
        return None
    rows = []
    for each in baselines:
        rate = each["tokens_per_second"]
        rows.append([each["name"], _interval(rate, 4) if rate else each["skipped"], each["what"]])
    return Markup(
        tag("h3", None, "Baselines")
        + table(["baseline", "tokens/s (95 %)", "what"], rows, {"class": "prose"})
    )


def _fits(fits: Sequence[Json], key: str) -> Markup:
    rows = []
    for fit in fits:
        named = [
            f"{name.replace('_', ' ')} {_interval(value, 3)}" for name, value in fit["parameters"].items()
        ]
        residual = fit["largest_residual"]
        shown = "" if residual is None else f"{100 * residual:.1f} %"
        rows.append([fit["law"], tag("code", None, fit["formula"]), "; ".join(named), shown, fit["note"]])
    made = table(
        ["law", "formula", "parameters (95 %)", "largest residual", "how to read it"],
        rows,
        {"class": "prose"},
    )
    return disclosure(f"{key}-fits", "Fitted laws", made, opened=True)


def _lost(limit: Json, key: str, unit: str) -> Markup:
    rows = [
        [each["cause"], exact(each["milliseconds"], 3), f"{100 * each['share_of_step']:.1f} %"]
        for each in limit["lost"]
    ]
    summary = f"Time lost beyond perfect scaling at {counted(limit['at_workers'], unit)}"
    return disclosure(
        f"{key}-lost",
        summary,
        tag("p", {"class": "note"}, limit["rule"]),
        table(["cause", "ms", "of a step"], rows),
    )


def _machine(study: Json, key: str) -> Markup:
    machine = study["machine"]
    rows: list[list[Child]] = [[name.replace("_", " "), _plain(value)] for name, value in machine.items()]
    return disclosure(f"{key}-machine", "Machine", table(["", ""], rows))


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    if isinstance(value, list):
        return "; ".join(map(_plain, value)) or "none"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return exact(value, 4)
    return "none" if value is None else str(value)


def _interval(interval: Json, digits: int) -> str:
    text = exact(interval["value"], digits)
    if interval["low"] is None or interval["low"] == interval["high"]:
        return text
    return f"{text} ({exact(interval['low'], digits)} to {exact(interval['high'], digits)})"


def _band(points: Sequence[Json], name: str) -> list[tuple[float, float, float]]:
    """The intervals around the points, where there are any."""
    return [
        (point["workers"], point[name]["low"], point[name]["high"])
        for point in points
        if point[name]["low"] is not None
    ]


def _powers(most: int) -> list[int]:
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]
