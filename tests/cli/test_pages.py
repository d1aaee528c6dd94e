"""feste-dp report, dashboard and watch on the run that a training left."""

import json
import sys
from pathlib import Path

import pytest

from feste_dp.run.metrics import read_metrics
from tests.cli.conftest import Feste, Place


def test_a_report_of_a_trained_run_lies_in_it_unless_told_otherwise(
    own_run: Path, feste: Feste, tmp_path: Path
) -> None:
    result = feste("report", own_run)
    assert (result.status, result.out, result.err) == (0, f"written: {own_run / 'report.html'}\n", "")
    page = (own_run / "report.html").read_text()
    rows = read_metrics(own_run / "metrics.csv")
    assert f'<th scope="row">{rows[-1].step}</th>' in page
    assert "finished after step 12" in page and "longest tokens" in page
    assert feste("report", own_run, "--out", tmp_path / "other.html").status == 0
    assert len((tmp_path / "other.html").read_text()) > 10_000


def test_a_trained_run_tells_its_history(place: Place) -> None:
    lines = [json.loads(line) for line in (place.run / "events.jsonl").read_text().splitlines()]
    kinds = [line["kind"] for line in lines]
    assert (kinds[0], kinds[-1]) == ("start", "finish")
    assert {"best", "save", "times"} <= set(kinds)
    start = lines[0]
    assert start["workers"] == 2 and start["machine"]["usable_cpus"] >= 1
    assert {"python", "numpy", "numba", "feste-dp"} <= set(start["machine"]["versions"])
    times = [line for line in lines if line["kind"] == "times"]
    assert sum(line["steps"] for line in times) == 12
    for line in times:
        assert len(line["worker_compute_ms"]) == 2
        assert sum(line["phases_ms"].values()) == pytest.approx(line["step_ms"], abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "NOWHERE"], "no run at NOWHERE: there is no such directory"),
        (["report"], "Missing argument 'RUN...'"),
        (
            ["report", "RUN", "--out", "NOWHERE/x.html"],
            "cannot write NOWHERE/x.html: No such file or directory",
        ),
        (["report", "RUN", "--out", "NOWHERE/"], "is the name of a folder; give that of a file"),
        (["report", "RUN", "--out", "/dev/null"], "cannot write /dev/null: it is a device"),
        (["report", "RUN", "--out", "RUN/config.yaml"], "is there and no page of feste-dp: remove it"),
        (["report", "RUN/checkpoints"], "is inside a run, not a run: give"),
        (["watch", "NOWHERE"], "no run at NOWHERE"),
        (["dashboard", "NOWHERE"], "NOWHERE: no such directory: give the one that holds the runs"),
        (["dashboard", "RUN", "--port", "many"], "expected a whole number from 0 to 65535, got 'many'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], message: str, place: Place, feste: Feste, tmp_path: Path
) -> None:
    names = {"NOWHERE": str(tmp_path / "nowhere"), "RUN": str(place.run)}

    def named(text: str) -> str:
        for name, path in names.items():
            text = text.replace(name, path) if text != "Missing argument 'RUN...'" else text
        return text

    result = feste(*map(named, arguments))
    assert result.status == 2 and result.out == ""
    assert named(message) in result.err and result.err.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_a_report_that_cannot_be_replaced_leaves_the_old_one(own_run: Path, feste: Feste) -> None:
    (own_run / "report.html").mkdir()
    assert feste("report", own_run).status == 2
    assert list((own_run / "report.html").iterdir()) == []
    assert not list(own_run.glob(".report*"))


def test_watching_a_finished_run_shows_it_and_ends(place: Place, feste: Feste) -> None:
    result = feste("watch", place.run)
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert sum(line.startswith("step") for line in lines) == 12
    assert lines[-1] == "finished: finished after step 12"


def test_the_dashboard_without_its_library_says_what_to_install(
    place: Place, feste: Feste, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = feste("dashboard", place.run)
    assert result.status == 2
    assert result.err == (
        "error: the dashboard needs uvicorn, which is not installed: pip install 'feste-dp[dashboard]'\n"
    )


def test_a_tracker_whose_library_is_missing_creates_nothing(
    place: Place, feste: Feste, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = tmp_path / "run"
    result = feste("launch", "--config", place.config, "--out", out, "--set", "run.trackers=[tensorboard]")
    assert result.status == 2
    assert "pip install 'feste-dp[tensorboard]'" in result.err and result.err.count("\n") == 1
    assert not out.exists()


def test_an_unknown_tracker_names_those_there_are(place: Place, feste: Feste, tmp_path: Path) -> None:
    result = feste("launch", "--config", place.config, "--set", "run.trackers=[mlflow]")
    assert result.status == 2
    assert "run.trackers" in result.err and "jsonl, tensorboard" in result.err
