"""The parts of a page on one run or several that are no charts: figures, events, samples, config, machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from feste_dp.config.schema import sections
from feste_dp.report.axes import exact
from feste_dp.report.markup import Markup, disclosure, section, table, tag
from feste_dp.report.run_data import RunData, config_difference
from feste_dp.report.run_nodes import nodes_of
from feste_dp.run.events import BEGINNINGS, Event
from feste_dp.run.metrics import perplexity
from feste_dp.run.pace import Pace
from feste_dp.run.screen import format_duration
from feste_dp.wording import counted

ROUTINE = ("save", "best")
_BADGES = {
    "save": "checkpoint", "save_failed": "save failed", "early_stop": "early stop", "skip": "skipped step",
    "finish": "finished", "stop": "stopped", "fail": "failed", "worker_lost": "worker lost",
    "worker_joined": "worker restarted", "worker_left": "worker given up", "worker_slow": "straggler",
    "worker_back": "worker back", "worker_count": "workers",
}  # fmt: skip
_SHOWN_EVENTS = 400


def heads(runs: Sequence[RunData]) -> Markup:
    """A card for each run: its state, how far it is, its figures."""
    return tag("div", {"class": "cards"}, [head(run, number + 1) for number, run in enumerate(runs)])


def head(run: RunData, color: int = 1, title: Markup | str = "", aside: Markup | None = None) -> Markup:
    """A run in a card. title may be a link."""
    total = run.config.train.steps
    done = min(1.0, run.last_step / total)
    return tag(
        "article",
        {"class": f"card c{color}", "id": f"run-{run.name}"},
        tag("header", None, tag("h3", None, title or run.name), status_chip(run)),
        tag("p", {"class": f"state {run.status.state}"}, run.status.text) if run.status.is_over else None,
        tag(
            "div",
            {"class": "bar", "role": "progressbar", "aria-valuenow": round(100 * done), "aria-valuemin": 0,
             "aria-valuemax": 100, "aria-label": "steps done"},
            tag("i", {"style": f"width:{100 * done:.1f}%"}),
        ),
        _facts(figures(run)),
        aside,
    )  # fmt: skip


def status_chip(run: RunData) -> Markup:
    return tag("span", {"class": f"chip {run.status.state}"}, run.status.state)


def figures(run: RunData) -> dict[str, str]:
    """What people look at first."""
    total = run.config.train.steps
    shown = {"step": f"{run.last_step:,} of {total:,}"}
    if run.rows:
        last, pace = run.rows[-1], Pace()
        for row in run.rows[-100:]:
            pace.add(row)
        shown["train loss"] = f"{last.train_loss:.4f}"
        if (best := run.best) is not None and best.val_loss is not None:
            shown["best validation"] = f"{best.val_loss:.4f}"
            shown["its perplexity"] = f"{perplexity(best.val_loss):,.1f}"
            shown["at step"] = f"{best.step:,}"
        shown["tokens per second"] = f"{pace.tokens_per_second:,.0f}"
        shown["tokens"] = f"{run.last_step * run.config.tokens_per_step:,}"
        shown["elapsed"] = format_duration(last.elapsed_seconds)
        left = pace.eta_seconds(total - run.last_step)
        if run.status.state == "training" and left is not None:
            shown["to go"] = format_duration(left)
    if nodes := nodes_of(run):
        shown["nodes"] = f"{len(nodes):,}"
    workers = sum(node.workers for node in nodes if isinstance(node.workers, int)) or run.facts.get("workers")
    for key, number in (("workers", workers), ("parameters", run.facts.get("parameters"))):
        if isinstance(number, int):
            shown[key] = f"{number:,}"
    return shown


def events_section(runs: Sequence[RunData]) -> Markup:
    """What happened, the rare apart from the routine."""
    parts = []
    for run in runs:
        rare = [event for event in run.events if event.kind not in ROUTINE]
        routine = [event for event in run.events if event.kind in ROUTINE]
        parts += [
            tag("h3", None, run.name) if len(runs) > 1 else None,
            _events_table(rare) if rare else tag("p", {"class": "empty"}, "this run kept no history"),
        ]
        if routine:
            saves = sum(event.kind == "save" for event in routine)
            bests = len(routine) - saves
            summary = f"{counted(saves, 'checkpoint')} saved, {counted(bests, 'time')} a best validation loss"
            parts.append(disclosure(f"routine-{run.name}", summary, _events_table(routine)))
        if run.checkpoints:
            parts.append(
                disclosure(
                    f"kept-{run.name}",
                    f"{counted(len(run.checkpoints), 'checkpoint')} on the disk now",
                    table(
                        ["step", "size in MiB", ""],
                        [
                            [
                                f"{kept.step:,}",
                                f"{kept.size_bytes / 2**20:,.1f}",
                                f"{'best' if kept.is_best else ''} {'latest' if kept.is_latest else ''}",
                            ]
                            for kept in run.checkpoints
                        ],
                    ),
                )
            )  # fmt: skip
    return section("events", "Events", *parts)


def _events_table(events: Sequence[Event]) -> Markup:
    shown = events[-_SHOWN_EVENTS:]
    rows = [
        [
            event.time.strftime("%Y-%m-%d %H:%M:%S"),
            f"{event.step:,}",
            tag(
                "span",
                {"class": f"badge {event.kind}"},
                _BADGES.get(event.kind, event.kind.replace("_", " ")),
            ),
            event.text,
        ]
        for event in shown
    ]
    made = table(["time (UTC)", "step", "event", ""], rows, {"class": "events"})
    if len(shown) == len(events):
        return made
    left_out = f"the last {len(shown):,} of {len(events):,}; events.jsonl has all"
    return Markup(tag("p", {"class": "note"}, left_out) + made)


def samples_section(runs: Sequence[RunData]) -> Markup:
    """What the models wrote, step by step; page.js shows one step at a time."""
    shown = [_samples_of(run, len(runs) > 1) for run in runs if any(row.sample for row in run.rows)]
    if not shown:
        return section("samples", "Samples", tag("p", {"class": "empty"}, "no sample yet"))
    return section("samples", "Samples", tag("div", {"class": "columns"}, shown))


def _samples_of(run: RunData, named: bool) -> Markup:
    prompt = run.config.sample.prompt
    articles = []
    val_loss: float | None = None  # the last one measured up to here
    for row in run.rows:
        val_loss = val_loss if row.val_loss is None else row.val_loss
        if not row.sample:
            continue
        validated = "" if val_loss is None else f", validation {val_loss:.3f}"
        given = row.sample.startswith(prompt)
        articles.append(
            tag(
                "article",
                {"class": "sample", "data-step": row.step},
                tag("h4", None, f"step {row.step:,}", tag("span", None,
                    f"train loss {row.train_loss:.3f}{validated}")),
                tag("pre", None, tag("b", None, prompt) if given else None,
                    row.sample[len(prompt):] if given else row.sample),
            )
        )  # fmt: skip
    return tag(
        "div",
        {"class": "samples", "data-key": f"samples-{run.name}"},
        tag("h3", None, run.name) if named else None,
        articles,
    )


def config_section(runs: Sequence[RunData]) -> Markup:
    """Every key; of several runs first those in which they differ."""
    parts = []
    if len(runs) > 1:
        keys = config_difference(runs)
        if keys:
            parts.append(tag("h3", None, f"Where they differ: {counted(len(keys), 'key')}"))
            parts.append(_config_table(runs, keys))
        else:
            parts.append(tag("p", {"class": "lead"}, "The configs are the same."))
    every = _config_table(runs, list(runs[0].settings))
    parts.append(disclosure("config", "Every key", every, opened=len(runs) == 1))
    return section("config", "Config", *parts)


def _config_table(runs: Sequence[RunData], keys: Sequence[str]) -> Markup:
    described = {
        f"{name}.{key}": field.description or ""
        for name, model in sections().items()
        for key, field in model.model_fields.items()
    }
    settings = [run.settings for run in runs]
    rows = []
    for key in keys:
        values = [_written(each[key]) for each in settings]
        mark = {"class": "differs"} if len(set(values)) > 1 else None
        rows.append(
            [tag("code", {"title": described[key]}, key), *(tag("span", mark, value) for value in values)]
        )
    names = [run.name for run in runs] if len(runs) > 1 else ["value"]
    return table(["key", *names], rows, {"class": "config"})


def machine_section(runs: Sequence[RunData]) -> Markup:
    """Where the runs were computed; a run that moved is listed once for each start elsewhere."""
    rows: list[list[str]] = []
    for run in runs:
        seen: list[object] = []
        for event in run.events:
            machine = event.fields.get("machine")
            if event.kind in BEGINNINGS and isinstance(machine, dict) and machine not in seen:
                seen.append(machine)
                memory = machine.get("memory_bytes")
                versions = machine.get("versions")
                rows.append([
                    f"{run.name}, from step {event.step:,}",
                    str(machine.get("cpu", "")),
                    f"{machine.get('usable_cpus', '?')} of {machine.get('cpus', '?')}",
                    f"{memory / 2**30:.1f}" if isinstance(memory, int | float) else "",
                    ", ".join(f"{name} {version}" for name, version in versions.items())
                    if isinstance(versions, dict) else "",
                ])  # fmt: skip
    if not rows:
        return section("machine", "Machine", tag("p", {"class": "empty"}, "this run kept no history"))
    return section(
        "machine", "Machine", table(["run", "CPU", "usable CPUs", "memory in GiB", "versions"], rows)
    )


def tokenizer_section(runs: Sequence[RunData]) -> Markup:
    parts = []
    for run in runs:
        facts = run.tokenizer
        corpus = run.config.data.corpus
        text = corpus if isinstance(corpus, str) else ", ".join(Path(path).name for path in corpus)
        counts: Mapping[str, object] = {
            "text": text,
            "tokens to train on": run.facts.get("train_tokens"),
            "tokens held out": run.facts.get("val_tokens"),
            "vocabulary": facts.vocab_size,
            "merges over the 256 bytes": facts.merges,
        }
        parts += [
            tag("h3", None, run.name) if len(runs) > 1 else None,
            _facts({name: _text(value) for name, value in counts.items() if value is not None}),
            tag(
                "p",
                {"class": "tokens"},
                "longest tokens:",
                [tag("code", None, repr(each)[1:-1]) for each in facts.longest],
            ),
        ]
    return section("tokenizer", "Text and tokenizer", *parts)


def _facts(values: Mapping[str, str]) -> Markup:
    """Named figures side by side."""
    pairs = [
        tag("div", None, tag("dt", None, name), tag("dd", None, value)) for name, value in values.items()
    ]
    return tag("dl", {"class": "facts"}, pairs)


def _text(value: object) -> str:
    return exact(value) if isinstance(value, int) else str(value)


def _written(value: object) -> str:
    return (
        str(value).lower()
        if isinstance(value, bool)
        else repr(value)
        if isinstance(value, str)
        else str(value)
    )
