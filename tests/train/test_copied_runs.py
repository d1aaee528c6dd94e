"""Runs that come from elsewhere: by a copy that changed what it could not copy, or from a stranger."""

import shutil
from pathlib import Path

import pytest

from feste_dp.errors import UsageError
from feste_dp.run.metrics import comparable_rows, read_metrics
from feste_dp.run.trained_model import load_trained_model
from tests.train.conftest import Outcome, Runs

MORE = ["train.steps=41"]


def test_a_copy_that_follows_links_or_drops_them_goes_on_as_the_run_itself(
    runs: Runs, straight: Outcome, tmp_path: Path
) -> None:
    itself = runs.resume(shutil.copytree(straight.run, tmp_path / "itself", symlinks=True), 1, MORE)
    followed = shutil.copytree(straight.run, tmp_path / "followed")
    dropped = shutil.copytree(straight.run, tmp_path / "dropped", symlinks=True)
    for name in ("latest", "best"):
        (dropped / "checkpoints" / name).unlink()
        assert (followed / "checkpoints" / name).is_dir()
    for copy in (followed, dropped):
        chosen = load_trained_model(copy, None).manifest.step
        assert chosen == load_trained_model(straight.run, None).manifest.step
        outcome = runs.resume(copy, 1, MORE)
        assert (outcome.status, outcome.warnings) == (0, "")
        assert outcome.state(41) == itself.state(41)
        steps = [sorted(path.name for path in (run / "checkpoints").iterdir()) for run in (copy, itself.run)]
        assert steps[0] == steps[1]


def test_damage_after_the_newest_checkpoint_is_cut_unread(
    runs: Runs, straight: Outcome, tmp_path: Path
) -> None:
    copy = shutil.copytree(straight.run, tmp_path / "copy", symlinks=True)
    newest = max((copy / "checkpoints").glob("step-*"))
    shutil.rmtree(newest)
    left = int(max((copy / "checkpoints").glob("step-*")).name[5:])
    rows = (copy / "metrics.csv").read_bytes().splitlines(keepends=True)
    assert len(read_metrics(copy / "metrics.csv")) == 40 and left < 39
    damaged = rows.index(next(row for row in reversed(rows) if row.startswith(b"39,")))
    rows[damaged] = bytes(len(rows[damaged]) - 1) + b"\n"
    (copy / "metrics.csv").write_bytes(b"".join(rows))
    with pytest.raises(UsageError, match="is damaged"):
        read_metrics(copy / "metrics.csv")
    assert runs.resume(copy, 1).status == 0
    assert comparable_rows(copy / "metrics.csv") == comparable_rows(straight.run / "metrics.csv")


@pytest.mark.parametrize("name", ["lock", "log.txt", "events.jsonl", "metrics.csv", "checkpoints"])
def test_a_link_in_a_run_leads_a_resume_nowhere(
    runs: Runs, straight: Outcome, tmp_path: Path, name: str
) -> None:
    copy = shutil.copytree(straight.run, tmp_path / "copy", symlinks=True)
    victim = tmp_path / "victim"
    shutil.move(copy / name, victim)
    (copy / name).symlink_to(victim)
    before = {path: path.read_bytes() for path in [victim, *victim.rglob("*")] if path.is_file()}
    with pytest.raises(UsageError, match=f"{name} is a symbolic link"):
        runs.resume(copy, overrides=MORE)
    assert all(path.read_bytes() == content for path, content in before.items())
