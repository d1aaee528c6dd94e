"""The other commands, ended by a signal or a closed pipe: one quiet end, and nothing half-made."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.starts.moments import End, signalled
from tests.starts.stage import LIMIT_S, PROGRAM, Place, Stage

ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOUD = {"PYTHONUNBUFFERED": "1"}
BROKEN_PIPE = 141


@dataclass(frozen=True)
class Command:
    """One to be disturbed: RUN, RUNS, CONFIG, TEXT and OUT stand for places."""

    arguments: str
    for_ever: bool = False
    """It does not end by itself."""
    trains: bool = False
    """The run has to be in training."""
    after_ctrl_c: int = 130


COMMANDS = {
    "prepare": Command("prepare TEXT --vocab-size 300 --out OUT"),
    "evaluate": Command("evaluate RUN --workers 2"),
    "generate": Command("generate RUN --prompt ALL --tokens 2000"),
    "bench": Command("bench --config CONFIG --workers 2 --steps 40"),
    "scale": Command("scale --config CONFIG --workers 1,2 --steps 4 --repeats 1 --out OUT"),
    "configs": Command("configs"),
    "config show": Command("config show CONFIG"),
    "config init": Command("config init OUT --from CONFIG"),
    "doctor": Command("doctor --config CONFIG"),
    "plan": Command("plan --config CONFIG --workers 2"),
    "replay": Command("replay RUN --step 3"),
    "report": Command("report RUN --out OUT"),
    "runs": Command("runs RUNS"),
    "checkpoint list": Command("checkpoint list RUN"),
    "checkpoint verify": Command("checkpoint verify RUN"),
    "workers": Command("workers RUN 2", trains=True),
    "watch": Command("watch RUN", for_ever=True, trains=True),
    "dashboard": Command("dashboard RUNS --port 0", for_ever=True, after_ctrl_c=0),
}


class Scene:
    """A place with a finished run, or one in training, on which a command works."""

    def __init__(self, stage: Stage, command: Command) -> None:
        self.place: Place = stage.place()
        self._stage, self._command = stage, command
        if "RUN" in command.arguments:
            self.place.run_launch()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Where the command needs it, the run goes on as long as this is entered."""
        if not self._command.trains:
            yield
            return
        more = ["--set", "train.steps=1000000", "--set", "checkpoint.every=0", "--set", "eval.every=0"]
        line = [*self.place.resume(), *more, "--set", "sample.every=0"]
        process = subprocess.Popen(line, env=self.place.environ, stdout=subprocess.DEVNULL)
        metrics = self.place.run / "metrics.csv"
        deadline = time.monotonic() + LIMIT_S
        while metrics.read_bytes().count(b"\n") < 6:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(LIMIT_S) == 143

    def line(self) -> list[str]:
        places = {
            "RUN": self.place.run,
            "RUNS": self.place.folder,
            "CONFIG": self._stage.config,
            "TEXT": self._stage.text,
            "OUT": self.place.folder / "out",
        }
        words = self._command.arguments.split()
        return [*PROGRAM, *(str(places.get(word, word)) for word in words)]

    def reset(self) -> None:
        """Remove what the command made."""
        out = self.place.folder / "out"
        if out.is_dir():
            subprocess.run(["rm", "-r", str(out)], check=True)
        out.unlink(missing_ok=True)

    def duration(self) -> float:
        """Of the command, undisturbed; a few seconds of one that does not end."""
        if self._command.for_ever:
            return 4.0
        began = time.monotonic()
        done = subprocess.run(self.line(), env=self.place.environ, capture_output=True, timeout=LIMIT_S)
        assert done.returncode == 0, done.stderr.decode()
        return time.monotonic() - began


def try_signal(scene: Scene, command: Command, whole: set[str], after_s: float, signum: int) -> End:
    """How the command ended; `whole` is all that an undisturbed one makes."""
    scene.reset()
    before = set(scene.place.names())
    end = signalled(scene.line(), scene.place.environ, after_s, [signum])
    by_signal = command.after_ctrl_c if signum == signal.SIGINT else 128 + signum
    fine = {by_signal} if command.for_ever else {by_signal, 0}
    if not end.had_begun:
        fine = {-signum, *fine}
    else:
        assert end.is_quiet, end.said
    assert end.status in fine, f"status {end.status}: {end.said}"
    made = set(scene.place.names()) - before
    assert made in (set(), whole - before), f"left: {sorted(made)}"
    assert scene.place.temporary_files() == []
    return end


def try_closed_pipe(scene: Scene) -> int:
    """The exit status of the command whose reader goes after the first line."""
    scene.reset()
    process = subprocess.Popen(
        scene.line(),
        env=scene.place.environ | LOUD,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stderr is not None
    os.read(process.stdout.fileno(), 1)
    process.stdout.close()
    said = process.stderr.read().decode(errors="replace")
    process.stderr.close()
    status = process.wait(LIMIT_S)
    assert status in (0, BROKEN_PIPE), f"status {status}: {said}"
    assert "Traceback" not in said and "Exception" not in said and "roken pipe" not in said, said
    assert scene.place.temporary_files() == []
    return status
