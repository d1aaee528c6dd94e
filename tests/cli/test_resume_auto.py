"""launch --resume auto starts a run, goes on with it, and is done when it is done."""

import re
import shlex
from pathlib import Path

import pytest

from feste_dp.config.loading import load_config
from feste_dp.run.metrics import comparable_rows
from tests.cli.conftest import Feste, Place


@pytest.fixture
def half(own_run: Path) -> Path:
    """The run as it was when it was killed after the checkpoint of step 8."""
    (own_run / "checkpoints/latest").unlink()
    for path in own_run.glob("checkpoints/*12*"):
        path.rename(own_run.parent / path.name)
    return own_run


def test_the_same_command_starts_goes_on_and_is_done(
    feste: Feste, place: Place, half: Path, tmp_path: Path
) -> None:
    config = place.config.read_text().replace("name: small", "name: other")
    own = tmp_path / "own.yaml"
    own.write_text(config)
    command = ["launch", "--config", own, "--resume", "auto", "--quiet"]
    gone_on = feste(*command, "--out", half, "--workers=1")
    assert (gone_on.status, gone_on.err) == (0, "")
    log = (half / "log.txt").read_text()
    assert re.search(r"resumed from \S+, 1 worker$", log, re.MULTILINE), log
    assert comparable_rows(half / "metrics.csv") == comparable_rows(place.run / "metrics.csv")
    stored = load_config(half / "config.yaml")
    assert stored.run.name == "other"  # a key that changes nothing is taken from the file
    assert stored.run.workers == 2  # --workers counts for now
    again = feste(*command, "--out", half)
    assert again.status == 0 and again.out.startswith("nothing to do")
    new = tmp_path / "a new run"
    started = feste(*command, "--out", new, "--set", "train.steps=2")
    assert started.status == 0 and (new / "metrics.csv").exists()
    suggested = shlex.split(started.out.splitlines()[-1].removeprefix("to write:"))
    assert suggested[:3] == ["feste-dp", "generate", str(new)]
    assert feste(*suggested[1:], "--tokens", "2").status == 0


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ("seed: 2", [], "a resumed run keeps these keys: train.seed: 1 -> 2"),
        (
            "steps: 20",
            [],
            "train.steps: 12 -> 20; if that is meant, say so by overrides of these keys: --set train.st",
        ),
        (
            "seed: 1",
            ["--workers", "9"],
            "--workers: 9 is more than train.shards 4, which a run keeps; use at most 4",
        ),
        ("seed: 1", ["--set", "train.nope=1"], "train.nope: unknown key"),
    ],
)
def test_what_a_resume_refuses_is_refused(
    changed: str, options: list[str], message: str, feste: Feste, place: Place, own_run: Path, tmp_path: Path
) -> None:
    key = changed.partition(":")[0]
    text = re.sub(rf"{key}: \d+, |(?<=train: {{)", "", place.config.read_text())
    config = tmp_path / "changed.yaml"
    config.write_text(text.replace("train: {", f"train: {{{changed}, "))
    files = [path for path in own_run.rglob("*") if path.name != "lock"]
    before = {path: path.lstat().st_mtime_ns for path in files}
    result = feste("launch", "--resume", "auto", "--config", config, "--out", own_run, *options)
    assert result.status == 2 and message in result.err, result.err
    assert {path: path.lstat().st_mtime_ns for path in files} == before


def test_it_needs_to_know_which_run(feste: Feste, place: Place) -> None:
    result = feste("launch", "--config", place.config, "--resume", "auto")
    assert result.status == 2 and "--out" in result.err
