"""Signals to a real run on a real terminal: what is saved, what is said, and the exit status."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from feste_dp.checkpoint.format import step_directory_name
from feste_dp.run.metrics import read_metrics
from feste_dp.train.signals import REPEAT_S, STOPPING_AT_ONCE, described
from tests.cli.conftest import COMMAND, Feste, Place
from tests.cli.terminal import CTRL_C, LIMIT_S, Terminal

STOPPING = "stopping after this step; press Ctrl-C again to stop now"
ENDLESS = ["--set", "train.steps=10000000", "--set", "sample.every=0", "--set", "checkpoint.every=0"]
RARELY = ["--set", "eval.every=0"]
LONG_VALIDATION = ["--set", "eval.every=2", "--set", "eval.batches=1000000"]
LONG_SAMPLE = ["--set", "sample.every=2", "--set", "sample.tokens=65536", "--set", "model.n_layer=8"]
IGNORING_HANGUP = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"]


def launch(
    place: Place,
    environ: Mapping[str, str],
    here: Path,
    *more: str,
    columns: int = 100,
    prefix: Sequence[str] = (),
) -> Terminal:
    command = [*prefix, *COMMAND, "launch", "--config", str(place.config), "--out", "run", *ENDLESS, *more]
    return Terminal(command, environ=environ, cwd=here, columns=columns)


def steps_saved(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


def test_ctrl_c_saves_says_how_to_go_on_and_the_run_goes_on(
    place: Place, environ: dict[str, str], tmp_path: Path, feste: Feste
) -> None:
    run = tmp_path / "run"
    with launch(place, environ, tmp_path, *RARELY) as terminal:
        terminal.wait_for("loss")
        second = feste("resume", run)  # while the first process has it
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
    assert (second.status, second.err.count("\n")) == (2, 1)
    assert f"is in use by process {terminal.pid}" in second.err
    assert STOPPING in terminal.output
    assert f"to go on:    {shlex.join(COMMAND)} resume run" in terminal.output
    assert "Traceback" not in terminal.output
    stopped = re.search(r"stopped after step (\d+) of 10000000, saved in run\n", terminal.output)
    assert stopped
    step = int(stopped[1])
    assert steps_saved(run) == [step]
    resumed = feste("resume", run, "--workers", "1", "--set", f"train.steps={step + 3}", "--quiet")
    assert (resumed.status, resumed.err) == (0, "")
    assert f"finished after step {step + 3}" in resumed.out


def hang_a_worker(terminal: Terminal) -> None:
    """Stop one of the workers; returns when the run has come to wait for it."""
    worker = terminal.others("feste_dp.runtime.worker")[0]
    os.kill(worker, signal.SIGSTOP)
    terminal.wait_for_silence()


def test_a_second_ctrl_c_stops_at_once(place: Place, environ: dict[str, str], tmp_path: Path) -> None:
    with launch(place, environ, tmp_path, *RARELY, columns=60) as terminal:
        terminal.wait_for("loss")
        hang_a_worker(terminal)
        terminal.press(CTRL_C)
        terminal.wait_for(STOPPING)
        time.sleep(2 * REPEAT_S)  # nearer copies are taken for the same key
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
    assert f"{shlex.join(COMMAND)} resume run" in terminal.output
    assert terminal.output.endswith("stopped\n")
    assert "Traceback" not in terminal.output
    assert steps_saved(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long)]
)
def test_sigterm_does_not_wait_for_a_hung_worker(
    signum: signal.Signals, status: int, place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    with launch(place, environ, tmp_path, *RARELY) as terminal:  # step_timeout_s is 600
        terminal.wait_for("loss")
        hang_a_worker(terminal)
        terminal.send(signum)
        assert terminal.finish() == status
    assert STOPPING_AT_ONCE in terminal.output
    assert "Traceback" not in terminal.output
    (step,) = steps_saved(tmp_path / "run")
    assert f"stopped after step {step} of" in terminal.output


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(LONG_VALIDATION, id="validation"),
        pytest.param(LONG_SAMPLE, id="sample", marks=pytest.mark.long),
    ],
)
def test_ctrl_c_in_a_long_measurement_saves_and_the_run_goes_on(
    work: list[str], place: Place, environ: dict[str, str], tmp_path: Path, feste: Feste
) -> None:
    run = tmp_path / "run"
    with launch(place, environ, tmp_path, *RARELY, *work) as terminal:
        terminal.wait_for("loss")  # of step 1; what comes with step 2 takes minutes
        terminal.wait_for_silence()
        terminal.send(signal.SIGUSR1)
        terminal.wait_until(lambda: steps_saved(run) == [2])
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
    assert "stopped after step 2 of 10000000, saved in run" in terminal.output
    assert "Traceback" not in terminal.output
    assert steps_saved(run) == [2]
    short = ["--set", "eval.batches=2", "--set", "sample.tokens=3", "--set", "train.steps=3"]
    resumed = feste("resume", run, "--workers", "1", *short, "--quiet")
    assert (resumed.status, resumed.err) == (0, "")
    rows = read_metrics(run / "metrics.csv")
    assert [row.step for row in rows] == [1, 2, 3]
    assert (rows[1].val_loss is not None) == (work is LONG_VALIDATION)
    assert bool(rows[1].sample) == (work is LONG_SAMPLE)


def test_a_closed_terminal_saves_and_ends_the_run(
    place: Place, environ: dict[str, str], tmp_path: Path, feste: Feste
) -> None:
    run = tmp_path / "run"
    with launch(place, environ, tmp_path, *RARELY) as terminal:
        terminal.wait_for("loss")
        terminal.close_window()
        assert terminal.finish() == 129
    (step,) = steps_saved(run)
    assert f"stopped after step {step}" in (run / "log.txt").read_text()
    assert feste("resume", run, "--workers", "1", "--set", f"train.steps={step + 1}", "--quiet").status == 0


def test_under_nohup_the_run_outlives_its_terminal(
    place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    more = [*RARELY, "--set", "train.steps=400"]
    with launch(place, environ, tmp_path, *more, prefix=IGNORING_HANGUP) as terminal:
        terminal.wait_for("loss")
        terminal.close_window()
        assert terminal.finish() == 0
    assert steps_saved(tmp_path / "run") == [400]


def test_a_limit_of_cpu_time_that_kills_is_told_before_and_the_run_saved(
    place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    limited = ["sh", "-c", 'ulimit -t 6; exec "$@"', "sh"]  # in the sample, when the workers are idle
    with launch(place, environ, tmp_path, *RARELY, *LONG_SAMPLE, prefix=limited) as terminal:
        assert terminal.finish() == 152
    assert f"{described(signal.SIGXCPU)}: {STOPPING_AT_ONCE}" in terminal.output
    stopped = re.search(r"stopped after step (\d+) of 10000000, saved in run\n", terminal.output)
    assert stopped is not None and "Traceback" not in terminal.output, terminal.output
    assert steps_saved(tmp_path / "run") == [int(stopped[1])]


@pytest.mark.parametrize(
    "signum",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_a_signal_to_every_process_of_a_run_is_the_coordinators_to_act_on(
    signum: signal.Signals, place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    with launch(place, environ, tmp_path, *RARELY) as terminal:
        terminal.wait_for("loss")
        workers = terminal.others("feste_dp.runtime.worker")
        assert len(workers) == 2
        for signum_of_worker in (signum, signal.SIGUSR1):
            for pid in workers:
                os.kill(pid, signum_of_worker)
        terminal.wait_for("loss", terminal.output.count("loss") + 2)
        assert terminal.others("feste_dp.runtime.worker") == workers
        for pid in [*workers, terminal.pid]:
            os.kill(pid, signum)
        assert terminal.finish() == 128 + signum
    (step,) = steps_saved(tmp_path / "run")
    assert f"stopped after step {step} of" in terminal.output
    assert "Traceback" not in terminal.output


@pytest.mark.long
def test_ctrl_c_to_a_worker_that_is_still_being_loaded_is_silent(
    place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    with launch(place, environ, tmp_path, *RARELY) as terminal:
        terminal.wait_until(lambda: len(terminal.others("feste_dp.runtime.worker")) == 2)
        for pid in terminal.others("feste_dp.runtime.worker"):
            os.kill(pid, signal.SIGINT)
        terminal.wait_for("loss", 2)
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
    assert "Traceback" not in terminal.output


def test_sigusr1_saves_and_goes_on_and_sigterm_saves_and_ends(
    place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with launch(place, environ, tmp_path, *RARELY) as terminal:
        terminal.wait_for("loss")
        assert steps_saved(run) == []
        terminal.send(signal.SIGUSR1)
        deadline = time.monotonic() + LIMIT_S
        while not steps_saved(run):
            terminal.wait_for("loss", terminal.output.count("loss") + 1)
            assert time.monotonic() < deadline
        terminal.wait_for("loss", terminal.output.count("loss") + 2)
        assert STOPPING not in terminal.output
        terminal.send(signal.SIGTERM)
        assert terminal.finish() == 143
    asked, last = steps_saved(run)
    assert asked < last
    assert f"stopped after step {last} of" in terminal.output
    assert "Traceback" not in terminal.output


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("phase", ["reading the text", "compiling the kernels", "starting 2 workers"])
def test_a_signal_before_the_first_step_ends_in_one_word_and_leaves_no_run(
    phase: str, signum: signal.Signals, status: int, place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    is_warm = phase.startswith("starting")
    fresh = environ if is_warm else environ | {"FESTE_DP_CACHE": str(tmp_path / "cache")}
    corpus = ["--set", "data.corpus=shakespeare"] if phase == "reading the text" else []
    with launch(place, fresh, tmp_path, *corpus) as terminal:
        terminal.wait_for(phase)
        terminal.send(signum)
        assert terminal.finish() == status
    assert terminal.output.endswith("\nstopped\n")
    assert "Traceback" not in terminal.output
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("complete"))


def test_ctrl_c_while_the_program_is_loaded_is_silent(environ: dict[str, str], tmp_path: Path) -> None:
    loading = "import signal, sys; from feste_dp.cli.main import main; sys.argv = ['feste-dp']; {}; main()"
    interrupt = (
        "sys.meta_path.insert(0, type('Finder', (), {'find_spec': "
        "staticmethod(lambda name, *rest: signal.raise_signal(signal.SIGINT) if name == 'click' else None)}))"
    )
    command = [COMMAND[0], "-c", loading.format(interrupt)]
    with Terminal(command, environ=environ, cwd=tmp_path) as terminal:
        assert terminal.finish() == 130
    assert terminal.output == ""


def test_a_run_whose_output_nobody_reads_trains_saves_and_stops(place: Place, tmp_path: Path) -> None:
    """Standard output and error are one pipe, full from the start, as that of a stopped pager."""
    run = tmp_path / "run"
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(run)]
    command += ["--set", "train.steps=1000000", "--set", "eval.every=1", "--set", "checkpoint.every=0"]
    process = subprocess.Popen(command, stdout=writer, stderr=writer)
    try:
        os.close(writer)
        deadline = time.monotonic() + 120
        while not (run / "metrics.csv").exists() or (run / "metrics.csv").read_bytes().count(b"\n") < 100:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()
        os.close(reader)
    last = read_metrics(run / "metrics.csv")[-1].step
    assert (run / "checkpoints" / step_directory_name(last)).is_dir()
