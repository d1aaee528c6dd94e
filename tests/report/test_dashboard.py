"""What the dashboard answers to whom, and that nothing outside its directory can be had."""

import html
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from feste_dp.errors import UsageError
from feste_dp.report import dashboard as dashboard_module
from feste_dp.report import overview
from feste_dp.report.dashboard import Dashboard
from feste_dp.report.discovery import find
from feste_dp.report.markup import Markup
from feste_dp.report.run_data import RunData
from feste_dp.run.directory import RunDirectory
from feste_dp.run.lock import RunLock
from tests.report.conftest import NOON, event, history

MakeRun = Callable[..., Path]


def test_runs_and_studies_are_found_below_a_directory_and_named_by_their_path(
    make_run: MakeRun, tmp_path: Path, study_directory: Path
) -> None:
    make_run("sweep/one")
    make_run("two")
    (tmp_path / "elsewhere").symlink_to(tmp_path.parent)
    found = find(tmp_path)
    assert sorted(found.runs) == ["sweep/one", "two"]
    assert list(found.studies) == ["study"]
    assert list(find(tmp_path / "two").runs) == ["two"]


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        Dashboard(tmp_path / "none")


def test_the_first_page_shows_every_run_with_its_state(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("done")
    make_run("gone", events=history(40, end=""))
    training = make_run("training", events=history(40, end=""))
    with RunLock(RunDirectory(training), NOON):
        body = Dashboard(tmp_path).answer("/").body
    for name, state in (("done", "finished"), ("gone", "interrupted"), ("training", "training")):
        assert f'<a href="/runs/{name}">{name}</a>' in body
        assert f'<span class="chip {state}">{state}</span>' in body
    assert "3 in all, 1 training now" in body
    assert body.index("/runs/training") < body.index("/runs/done")


def test_an_empty_directory_has_a_page_too(tmp_path: Path) -> None:
    assert "none yet" in Dashboard(tmp_path).answer("/").body


def test_a_page_is_sent_again_only_when_something_changed(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("one")
    dashboard = Dashboard(tmp_path)
    first = dashboard.answer("/runs/one")
    assert (first.status, dashboard.answer("/runs/one", known_version=first.version).status) == (200, 304)
    with (path / "metrics.csv").open("a") as file:
        file.write("41,0.5,0.001,5.0,,148.4,,1.0,1000.0,\n")
    second = dashboard.answer("/runs/one", known_version=first.version)
    assert second.status == 200 and "41 of 40" in second.body
    with RunLock(RunDirectory(path), NOON):
        third = dashboard.answer("/runs/one", known_version=second.version)
    assert third.status == 200 and 'chip training"' in third.body


def test_chosen_runs_are_compared_and_unknown_ones_left_out(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("one")
    make_run("two", optim={"lr": 0.002})
    dashboard = Dashboard(tmp_path)
    body = dashboard.answer("/compare", ["two", "nope", "one", "two"]).body
    assert "2 runs side by side" in body and "Where they differ" in body
    assert dashboard.answer("/compare", ["nope"]).status == 404
    assert dashboard.answer("/compare").status == 404


@pytest.mark.parametrize(
    "address",
    ["/runs/", "/runs/..", "/runs/../one", "/runs//etc", "/runs/one/config.yaml", "/runs/one/", "/etc/passwd",
     "/runs/../../../../etc/passwd", "/runs/one\x00", "/studies/one", "/studies/../study", "",
     "/favicon.ico"],
)  # fmt: skip
def test_no_address_leads_out_of_what_was_found(make_run: MakeRun, tmp_path: Path, address: str) -> None:
    make_run("inside/one")
    make_run("a-run-beside")
    answer = Dashboard(tmp_path / "inside").answer(address)
    assert answer.status == 404
    assert "a-run-beside" not in answer.body and "root:x:" not in answer.body


def test_a_study_has_a_page_and_a_damaged_one_says_so(tmp_path: Path, study_directory: Path) -> None:
    dashboard = Dashboard(tmp_path)
    assert "Throughput over workers" in dashboard.answer("/studies/study").body
    assert '<a href="/studies/study">' in dashboard.answer("/").body
    (study_directory / "scaling.json").write_text("{}")
    assert "not a scaling study" in dashboard.answer("/studies/study").body


def test_a_damaged_run_is_named_and_the_others_are_shown(make_run: MakeRun, tmp_path: Path) -> None:
    broken = make_run("broken")
    (broken / "config.yaml").write_text("train: {steps: many}\n")
    make_run("whole")
    dashboard = Dashboard(tmp_path)
    body = dashboard.answer("/").body
    assert "train.steps" in body and '<a href="/runs/whole">' in body
    assert "train.steps" in dashboard.answer("/runs/broken").body


def test_a_removed_run_is_a_page_that_says_so(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("one")
    dashboard = Dashboard(tmp_path)
    assert dashboard.answer("/runs/one").status == 200
    shutil.rmtree(path)
    assert dashboard.answer("/runs/one").status == 404
    assert dashboard.answer("/").status == 200


def test_whatever_one_run_holds_the_others_are_shown(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("good")
    for name in ("config.yaml", "metrics.csv", "events.jsonl", "tokenizer.json", "lock"):
        bad = make_run(f"pipe in {name}")
        (bad / name).unlink(missing_ok=True)
        os.mkfifo(bad / name)
    with (make_run("garbage row") / "metrics.csv").open("a") as file:
        file.write("1e400,x,,,,,,,,\n")
    shutil.rmtree(make_run("step is a file") / "checkpoints")
    (tmp_path / "step is a file" / "checkpoints").write_text("")
    odd = [os.fsdecode(b"not utf-8 \xe9"), "new\nline", "<b>&\"'", "\U0001f642 100%"]
    for name in odd:
        make_run(name)
    make_run("undrawable")
    real = overview.head

    def undrawable(run: RunData, *arguments: object) -> Markup:
        if run.name == "undrawable":
            raise OverflowError("cannot convert float infinity to integer")
        return real(run, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(overview, "head", undrawable)
    dashboard = Dashboard(tmp_path)
    body = dashboard.answer("/").body
    assert '<a href="/runs/good">good</a>' in body and "cannot be drawn" in body
    assert body.count("it is a FIFO, not a regular file") >= 3
    body.encode()
    linked = {
        unquote(html.unescape(address), errors="surrogateescape")
        for address in re.findall(r'href="(/runs/[^"]*)"', body)
    }
    assert linked >= {f"/runs/{name}" for name in odd}
    for name in find(tmp_path).runs:
        assert dashboard.answer(f"/runs/{name}").status == 200


def test_the_table_has_every_run_and_only_the_newest_have_cards(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard_module, "MOST_CARDS", 2)
    for number in range(3):
        make_run(f"run{number}", None, [event(number, "start"), event(40, "finish")])
    (make_run("bad") / "config.yaml").write_text("train: {steps: many}\n")
    dashboard = Dashboard(tmp_path)
    first = dashboard.answer("/")
    body = first.body
    table = body[body.index('<table class="runs">') : body.index("</table>")]
    assert re.findall(r'<td data-v="(\w+)">', table) == ["run2", "run1", "run0", "bad"]
    assert re.findall(r'<article class="card[^"]*" id="run-(\w+)"', body) == ["run2", "run1"]
    assert 'data-state="unreadable"' in table and "train.steps" in table
    assert "cards for 2 of them, the table has all" in body
    made: list[str] = []
    plain = dashboard_module.summarize
    monkeypatch.setattr(
        dashboard_module, "summarize", lambda name, path: made.append(name) or plain(name, path)
    )
    with (tmp_path / "run1/metrics.csv").open("a") as file:
        file.write("41,0.500,0.001,5.0,,148.4,,1.0,1000.0,\n")
    assert dashboard.answer("/", known_version=first.version).status == 200
    assert made == ["run1"]  # the others are as they were
