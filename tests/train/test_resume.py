import errno
import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from feste_dp.checkpoint import saving
from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.config.loading import load_config
from feste_dp.data.preparation import prepare_for_run
from feste_dp.errors import UsageError
from feste_dp.machine import limits
from feste_dp.replay.replay import replay
from feste_dp.run.metrics import comparable_rows, read_metrics
from feste_dp.run.screen import Progress
from feste_dp.run.trained_model import evaluation_data, load_trained_model
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

KILLED_AFTER = 13

PROGRAM = """
import os, signal, sys
from pathlib import Path
from feste_dp.config.schema import Config
from feste_dp.train.launch import launch
from feste_dp.run.screen import Progress
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings

class Fatal(Progress):
    def step(self, row, total_steps, best=False):
        if row.step == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

config, out, cache = sys.argv[1:4]
around = Surroundings(os.environ, Path(cache), Fatal(sys.stdout, sys.stderr), StopSignals())
launch(Config.model_validate_json(config), Path(out), around)
"""


@pytest.fixture(scope="module")
def stopped(runs):
    """A run that was asked to stop after 13 of its 40 steps."""
    outcome = runs.launch(runs.config(), stop_after=13)
    assert outcome.status == 143
    return outcome


@pytest.fixture
def copy(stopped, tmp_path):
    """A copy of the stopped run, to be resumed."""
    return shutil.copytree(stopped.run, tmp_path / "run", symlinks=True)


def quiet(runs):
    return Surroundings(os.environ, runs.cache, Progress(io.StringIO(), io.StringIO()), StopSignals())


def drop_newest_checkpoint(run):
    """As if the run had been killed after step 13."""
    shutil.rmtree(run / "checkpoints/step-00000013")
    (run / "checkpoints/latest").unlink()


def metrics_of(run):
    return comparable_rows(run / "metrics.csv")


def steps_of(run):
    return [row.step for row in read_metrics(run / "metrics.csv")]


def log_of(run):
    return (run / "log.txt").read_text()


def content_of(run):
    return {
        path.relative_to(run): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name not in ("lock", "log.txt")
    }


def test_a_stopped_run_is_saved_at_its_last_step_and_says_how_to_go_on(stopped):
    assert steps_of(stopped.run) == list(range(1, 14))
    assert (stopped.run / "checkpoints/latest").readlink().name == "step-00000013"
    assert f"feste-dp resume {stopped.run}" in stopped.result
    assert "stopped after step 13 of 40" in stopped.result


def test_forty_steps_straight_equal_thirteen_and_twenty_seven_with_another_worker_count(runs, straight, copy):
    resumed = runs.resume(copy, workers=3)
    assert (resumed.status, resumed.warnings) == (0, "")
    assert [resumed.state(step) for step in (20, 30, 40)] == [straight.state(s) for s in (20, 30, 40)]
    rows = metrics_of(resumed.run)
    assert rows == metrics_of(straight.run)
    assert [int(row["step"]) for row in rows if row["val_loss"]] == [8, 16, 24, 32, 40]
    assert [int(row["step"]) for row in rows if row["sample"]] == [10, 20, 30, 40]
    best = (straight.run / "checkpoints/best").readlink()
    assert (resumed.run / "checkpoints/best").readlink() == best


def test_the_elapsed_time_of_a_resumed_run_goes_on_from_where_it_stopped(runs, copy):
    runs.resume(copy, workers=1)
    times = [row.elapsed_seconds for row in read_metrics(copy / "metrics.csv")]
    assert times == sorted(times)


def test_rows_beyond_the_checkpoint_are_cut_and_written_once(runs, straight, copy):
    drop_newest_checkpoint(copy)
    with (copy / "metrics.csv").open("ab") as file:
        file.write(b"14,1.0,0.0")  # as kill -9 may leave it
    resumed = runs.resume(copy, workers=1)
    assert steps_of(copy) == list(range(1, 41))
    assert metrics_of(copy) == metrics_of(straight.run) and resumed.state(40) == straight.state(40)
    assert "resumed from step-00000010" in log_of(copy)


def test_a_run_without_any_checkpoint_starts_again_from_the_first_step(runs, straight, copy):
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").mkdir()
    resumed = runs.resume(copy, workers=1)
    assert resumed.status == 0 and resumed.state(40) == straight.state(40)
    assert metrics_of(copy) == metrics_of(straight.run)


def test_a_run_killed_in_the_middle_resumes_to_the_same_bits(runs, straight):
    path = runs.new_path()
    arguments = [runs.config().model_dump_json(), str(path), str(runs.cache), str(KILLED_AFTER)]
    with tempfile.TemporaryDirectory(
        prefix="fdp-"
    ) as sockets:  # nobody else removes what a killed run leaves
        killed = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env=os.environ | {"TMPDIR": sockets},
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
    assert killed.returncode == -signal.SIGKILL
    assert steps_of(path) == list(range(1, KILLED_AFTER + 1))
    resumed = runs.resume(path, workers=1)
    assert (resumed.status, resumed.warnings) == (0, "")
    assert resumed.state(40) == straight.state(40)
    assert metrics_of(path) == metrics_of(straight.run)


@pytest.mark.parametrize(
    ("damage", "named"), [("shard-00-of-08.safetensors", "shard-00"), ("manifest.json", "manifest.json")]
)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(runs, straight, copy, damage, named):
    file = copy / "checkpoints/step-00000013" / damage
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    resumed = runs.resume(copy, workers=1)
    assert resumed.status == 0
    assert "step-00000013" in resumed.warnings and named in resumed.warnings
    assert "resumed from step-00000010" in log_of(copy) and named in log_of(copy)
    assert resumed.state(40) == straight.state(40)
    assert metrics_of(copy) == metrics_of(straight.run)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(runs, copy):
    for manifest in (copy / "checkpoints").glob("step-*/manifest.json"):
        manifest.write_bytes(b"{}")
    before = content_of(copy)
    with pytest.raises(UsageError, match="every checkpoint is damaged"):
        runs.resume(copy)
    assert content_of(copy) == before


@pytest.mark.parametrize("key", ["train.seed=6", "model.dropout=0.2", "train.shards=4", "optim.beta2=0.9"])
def test_a_changed_frozen_key_is_refused_and_nothing_changes(runs, copy, key):
    before = content_of(copy)
    with pytest.raises(UsageError, match=rf"keeps these keys: {key.split('=')[0]}: "):
        runs.resume(copy, overrides=[key])
    assert content_of(copy) == before


def test_a_schedule_key_changed_in_the_file_asks_for_set(runs, copy):
    text = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(text.replace("steps: 40", "steps: 60"))
    with pytest.raises(UsageError, match=r"train\.steps: 40 -> 60; if that is meant, say so by overrides"):
        runs.resume(copy)


def test_more_steps_are_set_logged_and_kept(runs, copy):
    resumed = runs.resume(copy, 1, ["train.steps=15"])
    assert resumed.status == 0
    assert "changed: train.steps: 40 -> 15" in resumed.messages
    assert "changed: train.steps: 40 -> 15" in log_of(copy)
    assert load_config(copy / "config.yaml", []).train.steps == 15
    assert steps_of(copy) == list(range(1, 16))
    longer = runs.resume(copy, 1, ["train.steps=17"])
    assert longer.status == 0 and steps_of(copy) == list(range(1, 18))


def test_a_checkpoint_of_an_older_order_of_the_text_resumes_and_says_once_from_where_the_order_is_new(
    runs, copy
):
    drop_newest_checkpoint(copy)
    manifest = copy / "checkpoints/step-00000010/manifest.json"
    body = manifest.read_bytes().rpartition(b',\n "manifest_sha256"')[0].replace(b',\n "arithmetic": 3', b"")
    seal = hashlib.sha256(body).hexdigest()
    manifest.write_bytes(body + f',\n "manifest_sha256": "{seal}"\n}}\n'.encode())
    resumed = runs.resume(copy, 1, ["train.steps=12"])
    assert resumed.status == 0
    assert [line for line in resumed.messages if "arithmetic" in line] == [
        "changed: arithmetic: 1 -> 3, another version of feste-dp: up to step 10 the order of the text and "
        "the last bits are the other's, from here on this one's"
    ]
    again = runs.resume(copy, 1, ["train.steps=13"])
    assert again.status == 0 and not any("arithmetic" in line for line in again.messages)


def test_a_finished_run_has_nothing_to_do(runs, straight, tmp_path):
    copied = shutil.copytree(straight.run, tmp_path / "run", symlinks=True)
    outcome = runs.resume(copied)
    assert outcome.status == 0
    assert "nothing to do" in outcome.result and "train.steps=80" in outcome.result
    assert metrics_of(copied) == metrics_of(straight.run)


def test_a_finished_run_says_so_in_a_file_that_goes_when_it_goes_on(runs, straight, stopped, tmp_path):
    assert not (stopped.run / "finished").exists()
    marker = straight.run / "finished"
    assert re.fullmatch(r"step 40 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\n", marker.read_text())
    copied = shutil.copytree(straight.run, tmp_path / "run", symlinks=True)
    before = (copied / "finished").stat()
    assert runs.resume(copied).status == 0 and (copied / "finished").stat() == before
    (copied / "finished").unlink()  # as if killed right after the last save
    assert runs.resume(copied).status == 0 and (copied / "finished").exists()
    assert runs.resume(copied, 1, ["train.steps=60"], stop_after=42).status == 143
    assert not (copied / "finished").exists()
    assert runs.resume(copied).status == 0 and (copied / "finished").read_text().startswith("step 60 ")


def test_a_run_that_stops_early_is_finished_and_one_whose_last_save_failed_is_not(runs, monkeypatch):
    diverging = {"eval__every": 1, "eval__patience": 1, "optim__lr": 0.5, "optim__min_lr": 0.5}
    early = runs.launch(runs.config(run__workers=1, **diverging))
    assert early.status == 0 and (early.run / "finished").exists() and "early stop" in log_of(early.run)

    class FullAtTheEnd(Filesystem):
        def make_directory(self, path):
            if "step-00000040" in path.name:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().make_directory(path)

    monkeypatch.setattr(saving, "Filesystem", FullAtTheEnd)
    failed = runs.launch(runs.config(run__workers=1))
    assert failed.status == 1 and not (failed.run / "finished").exists()
    monkeypatch.undo()
    assert runs.resume(failed.run).status == 0 and (failed.run / "finished").exists()


def test_other_tokens_than_those_of_the_run_are_refused_and_nothing_changes(runs, copy):
    original = runs.corpus.read_text()
    drop_newest_checkpoint(copy)  # so that there are rows beyond the newest one left
    before = content_of(copy)
    try:
        runs.corpus.write_text(original.replace("the", "teh"))
        with pytest.raises(UsageError, match="not those the run was trained on"):
            runs.resume(copy)
    finally:
        runs.corpus.write_text(original)
    assert content_of(copy) == before


def test_a_run_goes_on_with_its_text_moved_and_says_so_once(runs, straight, copy, tmp_path):
    moved = tmp_path / "elsewhere" / runs.corpus.name
    moved.parent.mkdir()
    runs.corpus.rename(moved)
    try:
        resumed = runs.resume(copy, 1, [f"data.corpus=[{moved}]", "train.steps=15"])
        line = f"changed: data.corpus: {runs.corpus} -> {moved}"
        assert resumed.status == 0 and line in resumed.messages and line in log_of(copy)
        assert load_config(copy / "config.yaml").data.corpus == [str(moved)]
        again = runs.resume(copy, 1, ["train.steps=16"])
        assert again.status == 0 and not any("corpus" in line for line in again.messages)
        model = load_trained_model(copy, "latest")
        assert evaluation_data(model, None, tmp_path / "cache")[0].fingerprint == model.manifest.data_sha256
        assert replay(copy, 12, None, 1, quiet(runs)).matches
    finally:
        moved.rename(runs.corpus)


def test_token_files_changed_by_hand_are_made_again_and_the_result_is_the_same(runs, straight, copy):
    corpus, model = [str(runs.corpus)], runs.config().model
    data = prepare_for_run(corpus, model.vocab_size, 0.1, model.block_size, runs.cache)
    tokens = data.directory / "tokens.bin"
    content = tokens.read_bytes()
    tokens.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    assert runs.resume(copy, workers=1).state(40) == straight.state(40)
    assert tokens.read_bytes() == content


def test_a_resume_on_a_disk_that_is_too_small_goes_on_with_a_warning(runs, copy, monkeypatch):
    monkeypatch.setattr(limits, "free_disk", lambda path: 0)
    shutil.rmtree(copy / "checkpoints" / "step-00000010")
    resumed = runs.resume(copy, 1, ["checkpoint.keep=50"])
    assert resumed.status == 0 and "warning: disk: " in resumed.warnings
    assert "are free: set checkpoint.keep to" in resumed.warnings or "free some" in resumed.warnings
    assert "disk: " in log_of(copy)
