"""Signals to a real run on a real terminal: what is saved, what is said, and the exit status."""

import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from feste_dp.train.signals import REPEAT_S
from tests.cli.conftest import COMMAND, Feste, Place
from tests.cli.terminal import CTRL_C, LIMIT_S, Terminal

STOPPING = "stopping after this step; press Ctrl-C again to stop now"
ENDLESS = ["--set", "train.steps=10000000", "--set", "sample.every=0", "--set", "checkpoint.every=0"]
RARELY = ["--set", "eval.every=0"]
SLOW_STEP_2 = ["--set", "eval.every=2", "--set", "eval.batches=100000"]


def launch(place: Place, environ: Mapping[str, str], here: Path, *more: str, columns: int = 100) -> Terminal:
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", "run", *ENDLESS, *more]
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
    assert "to go on:    feste-dp resume run" in terminal.output
    assert "Traceback" not in terminal.output
    stopped = re.search(r"stopped after step (\d+) of 10000000, saved in run\n", terminal.output)
    assert stopped
    step = int(stopped[1])
    assert steps_saved(run) == [step]
    resumed = feste("resume", run, "--workers", "1", "--set", f"train.steps={step + 3}", "--quiet")
    assert (resumed.status, resumed.err) == (0, "")
    assert f"finished after step {step + 3}" in resumed.out


def test_a_second_ctrl_c_stops_at_once(place: Place, environ: dict[str, str], tmp_path: Path) -> None:
    with launch(place, environ, tmp_path, *SLOW_STEP_2, columns=60) as terminal:
        terminal.wait_for("loss")  # of step 1; step 2 ends with a long validation
        time.sleep(1.0)  # nothing is printed when it begins
        terminal.press(CTRL_C)
        terminal.wait_for(STOPPING)
        time.sleep(2 * REPEAT_S)  # nearer copies are taken for the same key
        terminal.press(CTRL_C)
        assert terminal.finish() == 130
    assert "feste-dp resume run" in terminal.output
    assert terminal.output.endswith("stopped\n")
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


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("phase", ["reading the text", "compiling the kernels"])
def test_a_signal_before_the_first_step_ends_in_one_word_and_leaves_no_run(
    phase: str, signum: signal.Signals, status: int, place: Place, environ: dict[str, str], tmp_path: Path
) -> None:
    fresh = environ | {"FESTE_DP_CACHE": str(tmp_path / "cache")}
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
