"""The page as a parser sees it: whole, alone, complete, and safe whatever a model wrote."""

import base64
import hashlib
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feste_dp.report.curves import charts
from feste_dp.report.page import asset, page, report_title, run_parts
from feste_dp.report.run_data import RunData, read_runs
from feste_dp.report.study_sections import read_study_part
from tests.report.conftest import HOSTILE, event, history, history_of_nodes, row, times

MakeRun = Callable[..., Path]
Element = Any


def parse(text: str) -> Element:
    """The document, strictly: any error of the HTML fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # html5lib's own
        import html5lib
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def page_of(*paths: Path, **options: str) -> str:
    runs = read_runs(list(paths))
    return page(report_title([run.name for run in runs]), run_parts(runs), **options)


def find(document: Element, path: str) -> list[Element]:
    """The elements on a path such as thead/tr/th, HTML or SVG."""
    return list(document.iterfind(".//" + "/".join(f"{{*}}{part}" for part in path.split("/"))))


def text_of(element: Element) -> str:
    return "".join(element.itertext())


def charts_of(document: Element) -> dict[str, Element]:
    figures = [figure for figure in find(document, "figure") if "chart" in figure.get("class").split()]
    return {figure.get("id").removeprefix("chart-"): figure for figure in figures}


def test_a_run_of_several_nodes_shows_them_the_exchange_and_who_is_waited_for(make_run: MakeRun) -> None:
    document = parse(page_of(make_run(events=history_of_nodes(40))))
    (nodes,) = [each for each in find(document, "section") if each.get("id") == "nodes"]
    rows = [[text_of(cell) for cell in row] for row in find(nodes, "tbody/tr")]
    assert rows == [
        ["node 0 (alpha)", "A CPU <3 GHz>", "8", "4", "4", "2.5"],
        ["node 1 (<beta>)", "A CPU <3 GHz>", "8", "4", "4", "3, the slowest"],
    ]
    drawn = charts_of(document)
    assert "exchange" in text_of(drawn["phases"]) and "node 1" in text_of(drawn["nodes"])
    facts = {
        text_of(dt): text_of(dd) for dt, dd in zip(find(document, "dt"), find(document, "dd"), strict=True)
    }
    assert (facts["nodes"], facts["workers"]) == ("2", "8")


@pytest.mark.parametrize(
    "nodes", ["two", [1, 2], [{"name": 7}, {"workers": "many", "cpu": []}], [{}, {}, {}], {"a": {}}]
)
def test_what_only_looks_like_nodes_harms_no_page(make_run: MakeRun, nodes: object) -> None:
    told = history_of_nodes(20)
    told[0] = event(0, "start", "new run", workers=4, nodes=nodes)
    told.append(event(20, "times", phases_ms={"exchange": "x"}, node_compute_ms=[float("nan"), "3"]))
    parse(page_of(make_run(events=told)))


def test_the_page_is_whole_html_with_all_its_sections(make_run: MakeRun) -> None:
    document = parse(page_of(make_run()))
    ids = [each.get("id") for each in find(document, "section")]
    assert ids == ["runs", "curves", "samples", "events", "config", "machine", "tokenizer"]
    assert set(charts_of(document)) == {"loss", "perplexity", "speed", "phases", "workers", "rate", "norm"}
    every = [each.get("id") for each in document.iter() if each.get("id")]
    assert len(every) == len(set(every))
    links = {each.get("href") for each in find(document, "nav/a")}
    assert links == {f"#{key}" for key in ids}


def test_the_page_asks_no_network_and_runs_no_script_but_its_own(make_run: MakeRun) -> None:
    text = page_of(make_run())
    document = parse(text)
    for element in document.iter():
        for name in ("src", "href", "action", "srcset", "data"):
            value = element.get(name) or ""
            assert not re.match(r"(\w+:)?//", value) and not value.startswith("http"), value
    assert "@import" not in text and "url(" not in text
    (script,) = find(document, "script")
    digest = base64.b64encode(hashlib.sha256(text_of(script).encode()).digest()).decode()
    (policy,) = [m.get("content") for m in find(document, "meta") if m.get("http-equiv")]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "connect-src" not in policy


@pytest.mark.parametrize("key", ["loss", "perplexity", "speed", "phases", "workers", "rate", "norm"])
def test_every_chart_has_units_labels_a_legend_and_its_table(make_run: MakeRun, key: str) -> None:
    figure = charts_of(parse(page_of(make_run())))[key]
    (heading,) = find(figure, "figcaption")
    title, unit = (text_of(each) for each in heading)
    assert title and unit
    (svg,) = find(figure, "svg")
    assert title in svg.get("aria-label")
    classes = {each.get("class"): each for each in figure.iter() if each.get("class")}
    assert text_of(classes["x-label"]) == "step"
    assert len(list(classes["ticks-x"])) >= 2 and len(list(classes["ticks-y"])) >= 2
    names = [text_of(button) for button in find(figure, "button")]
    assert names == [text_of(cell) for cell in find(figure, "thead/tr/th")][1:]
    curves = [path for path in find(svg, "path") if path.get("data-points")]
    assert len(curves) == len(names)
    columns = zip(
        *[[text_of(cell) for cell in find(line, "td")] for line in find(figure, "tbody/tr")], strict=True
    )
    for curve, column in zip(curves, columns, strict=True):
        filled = sum(bool(cell) for cell in column)
        assert int(curve.get("data-points")) == filled > 0
        if figure.get("data-stacked") is None:
            assert len(re.findall(r"[ML]", curve.get("d"))) == filled


def test_the_table_holds_the_figures_of_the_run(make_run: MakeRun) -> None:
    figure = charts_of(parse(page_of(make_run())))["loss"]
    rows = {
        text_of(find(line, "th")[0]): [text_of(cell) for cell in find(line, "td")]
        for line in find(figure, "tbody/tr")
    }
    assert len(rows) == 40
    assert rows["7"] == ["5.93", ""]
    assert rows["30"] == ["5.7", "5.8"]


def test_a_long_run_is_thinned_keeps_its_extremes_and_says_so(make_run: MakeRun) -> None:
    rows = [row(step, train_loss=3.0 + step % 17 / 100, sample="") for step in range(1, 20_001)]
    rows[12_344] = row(12_345, train_loss=9.25, sample="")
    text = page_of(make_run(rows=rows, train={"steps": 20_000}))
    figure = charts_of(parse(text))["loss"]
    summary = text_of(find(figure, "summary")[0])
    assert "of 20,000 steps: the run is thinned" in summary
    labels = [text_of(find(line, "th")[0]) for line in find(figure, "tbody/tr")]
    assert "12,345" in labels and labels[0] == "1" and labels[-1] == "20,000"
    assert len(labels) <= 602
    assert len(text) < 1_000_000


def test_text_of_the_model_and_of_files_is_never_markup(make_run: MakeRun) -> None:
    rows = [row(1, sample=HOSTILE), row(2)]
    events = [
        event(0, "start", HOSTILE, machine={"cpu": HOSTILE, "versions": {HOSTILE: HOSTILE}}),
        event(2, HOSTILE),
    ]
    text = page_of(
        make_run(rows=rows, events=events, sample={"prompt": "<i>\n"}, data={"corpus": ["<b>.txt"]})
    )
    document = parse(text)
    assert len(find(document, "script")) == 1
    assert not find(document, "img") and not [each for each in document.iter() if each.get("onerror")]
    (sample,) = [text_of(pre) for pre in find(document, "pre")]
    assert "</pre><script>alert(1)</script>" in sample
    assert "\\u202egnp.\\x1b[31m" in sample and "\u202e" not in text and "\x1b" not in text


def test_samples_are_there_step_by_step_with_their_losses(make_run: MakeRun) -> None:
    document = parse(page_of(make_run()))
    articles = [each for each in find(document, "article") if each.get("class") == "sample"]
    assert [each.get("data-step") for each in articles] == ["20", "40"]
    heading = text_of(find(articles[0], "h4")[0])
    assert "step 20" in heading and "train loss 5.800" in heading and "validation 5.900" in heading
    assert text_of(find(articles[0], "pre/b")[0]) == "HAMLET.\n"


def test_events_tell_the_rare_and_count_the_routine(make_run: MakeRun) -> None:
    told = history(40)
    told[3:3] = [
        event(12, "worker_lost", "worker 1 (pid 7) was killed by signal 9 during compute of step 13"),
        event(12, "worker_joined", "worker 1 is ready in its place"),
        event(10, "resume", "resumed from step-00000010, 2 workers"),
        event(14, "skip", "step 14 skipped"),
        event(15, "early_stop", "early stop: no better validation loss"),
        event(15, "worker_slow", "worker 0 is slow"),
    ]
    document = parse(page_of(make_run(events=told)))
    (section,) = [each for each in find(document, "section") if each.get("id") == "events"]
    badges = [text_of(each) for each in find(section, "span") if "badge" in each.get("class", "")]
    for badge in (
        "worker lost",
        "worker restarted",
        "resume",
        "skipped step",
        "early stop",
        "straggler",
        "finished",
    ):
        assert badge in badges
    assert any("4 checkpoints saved, 4 times a best" in text_of(each) for each in find(section, "summary"))
    marks = [
        each.get("title") for each in charts_of(document)["loss"].iter("i") if "mark" in each.get("class")
    ]
    assert "step 12: worker 1 (pid 7) was killed by signal 9 during compute of step 13" in marks


def test_several_runs_stand_side_by_side_with_their_differences(make_run: MakeRun) -> None:
    document = parse(page_of(make_run("one"), make_run("two", optim={"lr": 0.002})))
    names = [text_of(button) for button in find(charts_of(document)["loss"], "button")]
    assert names == ["one · train", "one · validation", "two · train", "two · validation"]
    assert {"phases-one", "phases-two", "workers-one", "workers-two"} <= set(charts_of(document))
    (config,) = [each for each in find(document, "section") if each.get("id") == "config"]
    assert "Where they differ: 1 key" in text_of(config)
    first = find(config, "tbody")[0]
    assert [text_of(cell) for cell in find(first, "td")] == ["optim.lr", "0.001", "0.002"]


def test_runs_of_one_config_are_said_to_be_the_same(make_run: MakeRun) -> None:
    assert "The configs are the same." in page_of(make_run("one"), make_run("two"))


def test_many_workers_are_drawn_as_their_spread(make_run: MakeRun) -> None:
    workers = [float(worker) for worker in range(64)]
    events = [event(0, "start"), times(10, *workers), times(20, *workers), event(40, "finish")]
    figure = charts_of(parse(page_of(make_run(events=events))))["workers"]
    assert [text_of(button) for button in find(figure, "button")] == ["slowest", "median", "quickest"]
    assert [text_of(cell) for cell in find(figure, "tbody/tr/td")][:3] == ["63", "32", "0"]


@pytest.mark.parametrize(
    ("rows", "events"),
    [([], []), ([], None), ([row(1)], []), ([row(1, train_loss=math.nan, grad_norm=math.inf), row(2)], None)],
)
def test_a_run_of_hardly_any_or_strange_figures_has_a_page(
    make_run: MakeRun, rows: list, events: list | None
) -> None:
    document = parse(page_of(make_run(rows=rows, events=events)))
    assert len(charts_of(document)) == 7


def test_what_is_not_a_number_is_counted_and_not_drawn(make_run: MakeRun) -> None:
    rows = [row(1), row(2, train_loss=math.nan), row(3)]
    (run,) = read_runs([make_run(rows=rows)])
    loss = charts([run])[0]
    assert [x for x, _ in loss.series[0].points] == [1.0, 3.0]
    assert loss.note == "1 values are NaN or infinite and not drawn"


@pytest.mark.parametrize(
    "fields", [{"phases_ms": None}, {"phases_ms": {"compute": "x"}}, {"worker_compute_ms": 7}]
)
def test_a_history_of_another_program_breaks_no_page(make_run: MakeRun, fields: dict[str, object]) -> None:
    events = [event(0, "start", machine="?"), event(10, "times", **fields), event(40, "finish")]
    parse(page_of(make_run(events=events)))


def test_a_study_has_its_sentence_charts_and_tables(study_directory: Path, make_run: MakeRun) -> None:
    part = read_study_part(study_directory)
    document = parse(page("Scaling study", [part, *run_parts(read_runs([make_run()]))]))
    (section,) = [each for each in find(document, "section") if each.get("id") == "scaling"]
    said = text_of(section)
    for words in (
        "At 4 workers the limit is control.",
        "bit for bit",
        "share 2 physical cores",
        "not installed",
        "serial fraction 0.1 (0.09 to 0.11)",
        "1,800 (1,620 to 1,980)",
        "4 (above the cores)",
    ):
        assert words in said, words
    figures = charts_of(section)
    assert set(figures) == {"scaling-speed", "scaling-efficiency", "scaling-phases"}
    names = [text_of(button) for button in find(figures["scaling-speed"], "button")]
    assert names == ["measured", "perfect", "Amdahl", "one process"]
    bars = [path for path in find(figures["scaling-phases"], "path") if path.get("class") == "layer"]
    assert [path.get("d").count("Z") for path in bars] == [3] * 5
    assert [text_of(each) for each in find(figures["scaling-phases"], "tbody/tr/th")] == ["1", "2", "4"]


def test_a_title_names_one_run_and_counts_several() -> None:
    assert (report_title(["a"]), report_title(["a", "b"])) == ("a", "2 runs side by side")


def test_a_live_page_names_its_version_and_may_ask_its_server_alone(make_run: MakeRun) -> None:
    text = page_of(make_run(), version='"abc"', home="/")
    document = parse(text)
    assert (document.get("data-version"), document.get("data-live")) == ('"abc"', "2000")
    (policy,) = [m.get("content") for m in find(document, "meta") if m.get("http-equiv")]
    assert "connect-src 'self'" in policy


def test_script_and_style_cannot_end_their_element() -> None:
    for name in ("page.js", "page.css"):
        assert "</" not in asset(name)


def test_reading_a_run_changes_nothing_in_it(make_run: MakeRun) -> None:
    path = make_run()

    def state() -> dict[str, tuple[int, int]]:
        return {
            str(each): (each.stat().st_mtime_ns, each.stat().st_size) for each in [path, *path.rglob("*")]
        }  # fmt: skip

    before = state()
    runs: list[RunData] = read_runs([path])
    page("x", run_parts(runs))
    assert state() == before
