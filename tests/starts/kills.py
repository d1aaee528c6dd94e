"""A start is ended at each of its system calls that write, and the next one must go on or begin anew, with
the bits of a quiet run and nothing left."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.seccomp import SYNCS, Call, Watch, kill_all
from tests.starts.moments import WRONG_WORDS, End, allowed, signalled
from tests.starts.stage import LIMIT_S, Place, Stage

STARTS = ("launch", "resume")
KILL, POWER_FAILURE = "kill", "power failure"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2)


@dataclass
class Attempt:
    """What became of a start that was ended at its n-th call."""

    at: Call | None = None
    """None where it had ended before."""
    status: int = 0
    said: str = ""
    unsynced: set[tuple[int, int]] = field(default_factory=set)
    """Files with content that was not on the disk then."""


def begin(stage: Stage, start: str) -> tuple[Place, list[str]]:
    """A place and the command to be disturbed in it."""
    place = stage.place()
    if start == "resume":
        return place, place.with_half_a_run().resume()
    return place, place.launch()


def ended_at(place: Place, command: list[str], number: int, how: str | int) -> Attempt:
    """Run the command, and end it before its call of this number: kill the coordinator, or everything at
    once, or send it a signal, which comes right after the call."""
    attempt = Attempt()
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with Watch(command, env=place.environ, **pipe) as watch:
        pid = watch.process.pid
        for count, call in enumerate(watch.calls(LIMIT_S), 1):
            if count < number and call.file is not None:
                change = attempt.unsynced.discard if call.name in SYNCS else attempt.unsynced.add
                change(call.file)
            if count == number:
                attempt.at = call
                if how == POWER_FAILURE:
                    kill_all(pid)
                else:
                    os.kill(pid, signal.SIGKILL if how == KILL else int(how))
        assert watch.process.stdout is not None
        attempt.said = watch.process.stdout.read().decode(errors="replace")
        watch.process.stdout.close()
        attempt.status = watch.process.wait()
    return attempt


def lose_unsynced(folder: Path, unsynced: set[tuple[int, int]]) -> None:
    """As many file systems do: the names are there after a power failure, the content is not."""
    for inside, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                path = Path(inside, name)
                found = path.lstat()
                if (found.st_dev, found.st_ino) in unsynced:
                    os.truncate(path, 0)


def try_kill(stage: Stage, start: str, number: int, how: str) -> str | None:
    """The call at which the start was ended, None where it had so many no more. AssertionError where the next
    one does not go on."""
    place, line = begin(stage, start)
    attempt = ended_at(place, line, number, how)
    if attempt.at is None:
        assert attempt.status == 0, attempt.said
    else:
        assert attempt.status == -signal.SIGKILL, attempt.said
        if how == POWER_FAILURE:
            lose_unsynced(place.folder, attempt.unsynced)
    place.check_that_it_goes_on(by_itself=number % 2 == 0)
    place.remove()
    return attempt.at and attempt.at.name


def try_signal_at_call(stage: Stage, start: str, number: int, signum: int) -> int | None:
    """The exit status of a start that got a signal at its call of this number; None where it had so many no
    more."""
    place, line = begin(stage, start)
    attempt = ended_at(place, line, number, signum)
    expected = {0} if attempt.at is None else {128 + signum, 0}
    assert attempt.status in expected, f"status {attempt.status}: {attempt.said}"
    assert not any(words in attempt.said for words in WRONG_WORDS), attempt.said
    place.check_that_nothing_is_left()
    place.check_that_it_goes_on()
    place.remove()
    return None if attempt.at is None else attempt.status


def try_signals(
    stage: Stage, after_s: float, signals: Sequence[int], as_process_one: bool, goes_on: bool
) -> End:
    """How a launch ended that got signals at this time."""
    place = stage.place()
    end = signalled(place.launch(), place.environ, after_s, signals, as_process_one)
    assert end.status in allowed(signals, end), f"status {end.status}: {end.said}"
    if end.had_begun:
        assert end.is_quiet, end.said
        place.check_that_nothing_is_left()
    if goes_on:
        place.check_that_it_goes_on()
    place.remove()
    return end
