import dataclasses
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import feste_dp
from feste_dp.run.metrics import TIMING, read_metrics
from feste_dp.train.trainer import Trainer


def children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    gc.freeze()  # what earlier tests dropped must not go in this one; half a second to look through
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    before, threads = children(), threading.active_count()
    yield
    gc.collect()
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == handlers
    assert children() == before
    assert threading.active_count() <= threads


def untimed(steps):
    return [dataclasses.replace(step, **dict.fromkeys(TIMING, 0.0)) for step in steps]


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))


def test_each_step_comes_with_what_its_row_of_metrics_has(whole):
    run, steps = whole
    assert untimed(steps) == untimed(read_metrics(run / "metrics.csv"))
    assert [step.step for step in steps] == list(range(1, 13))
    assert [step.step for step in steps if step.val_loss is not None] == [6, 12]
    assert steps[-1].sample and steps[0].sample == ""


def test_a_loop_that_is_left_is_saved_and_goes_on_to_the_same_end(config, whole, tmp_path):
    for step in feste_dp.train(config, workers=1, out=tmp_path / "run"):
        if step.step == 5:
            break
    assert checkpoints(tmp_path / "run") == ["step-00000005"]
    with feste_dp.resume(tmp_path / "run", workers=2) as training:
        first = next(training)
        assert first.step == 6 and children()
        steps = [first, *training]
        live = training.model
    assert untimed(read_metrics(tmp_path / "run" / "metrics.csv")) == untimed(whole[1])
    assert untimed(steps) == untimed(whole[1][5:])
    np.testing.assert_array_equal(live.weights, feste_dp.load(whole[0], "latest").weights)
    assert list(feste_dp.resume(tmp_path / "run")) == []


def test_an_error_in_the_loop_ends_it_and_the_model_is_there_all_the_time(config, tmp_path):
    def loop():
        training = feste_dp.train(config, workers=1, out=tmp_path / "run")
        before = training.model.weights.copy()
        for step in training:
            assert (training.directory, training.config.train.steps) == (tmp_path / "run", 12)
            assert not np.array_equal(training.model.weights, before)
            assert len(training.model.generate("KING.", 3)) > 0
            if step.step == 2:
                training.close()
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop()
    assert checkpoints(tmp_path / "run") == ["step-00000002"]


def test_ctrl_c_finishes_the_step_and_is_raised(config, tmp_path, monkeypatch):
    train_step = Trainer.train_step

    def interrupted(trainer, step):
        if step == 3:
            signal.raise_signal(signal.SIGINT)
        return train_step(trainer, step)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    seen = []
    with pytest.raises(KeyboardInterrupt):
        for step in feste_dp.train(config, workers=2, out=tmp_path / "run"):
            seen.append(step.step)
    assert seen == [1, 2, 3] and checkpoints(tmp_path / "run") == ["step-00000003"]


def test_another_thread_trains_as_well_and_leaves_signals_alone(config, whole, tmp_path):
    steps = []

    def loop():
        for step in feste_dp.train(config, workers=1, out=tmp_path / "run"):
            steps.append(step)
            if step.step == 4:
                break

    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
    assert untimed(steps) == untimed(whole[1][:4])
    assert checkpoints(tmp_path / "run") == ["step-00000004"]


HOLD = """
import sys
import feste_dp
training = feste_dp.train(sys.argv[1], workers=1, out=sys.argv[2], show=True)
next(training)
"""


def test_a_script_that_ends_with_a_run_under_way_saves_it(config, tmp_path):
    from feste_dp.api.configs import config_of
    from feste_dp.config.dumping import dump_config

    (tmp_path / "small.yaml").write_text(dump_config(config_of(config)))
    command = [sys.executable, "-c", HOLD, str(tmp_path / "small.yaml"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step  1/12" in done.stdout and "stopped after step 1 of 12" in done.stdout
    assert checkpoints(tmp_path / "run") == ["step-00000001"]


@pytest.mark.parametrize(
    ("config", "overrides", "options", "words"),
    [
        ("tinny", {}, {}, "tinny: no such file; did you mean tiny"),
        ("tiny", {"train.step": 3}, {}, "overrides: train.step: unknown key; did you mean train.steps?"),
        ("tiny", {"train.steps": "many"}, {}, "overrides: train.steps: expected a whole number"),
        ("tiny", {"train.steps": object()}, {}, "train.steps: give strings, numbers"),
        ("tiny", {}, {"workers": 99}, "workers: 99 is more than train.shards 8"),
        ({"train": {"steps": 0}}, {}, {}, "config:1:21: train.steps: expected a whole number"),
        ({"train": 3}, {}, {}, "config:1:11: train: expected the keys"),
        ("tiny", {}, {"out": "/proc/self/run"}, "cannot write in /proc/self"),
    ],
)
def test_bad_input_is_refused_with_nothing_created(config, overrides, options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(feste_dp.UsageError) as refused:
        feste_dp.train(config, overrides, **options)
    assert words in str(refused.value) and "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
