"""Signals in the middle of things: held back, raised once, never lost; and at the very beginning and end."""

import ctypes
import gc
import os
import signal
import subprocess
import sys
import time
import weakref

import pytest

from feste_dp import interruption
from feste_dp.interruption import Interrupted, held
from feste_dp.train.signals import Abandoned, StopSignals


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(0.001)


def ignore(text: str) -> None:
    pass


def test_what_is_held_is_not_interrupted_and_the_signal_comes_right_after_it():
    done = []
    with StopSignals(ignore), pytest.raises(Interrupted) as caught:
        with held:
            send(signal.SIGTERM)
            with held:
                send(signal.SIGTERM)
            done.append("torn otherwise")
        done.append("never reached")
    assert caught.value.exit_status == 143 and done == ["torn otherwise"]


def test_a_step_is_not_given_up_in_what_is_held():
    done = []
    with StopSignals(ignore) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.computing():
            with held:
                send(signal.SIGTERM)
                done.append("a replacement is hired")
            done.append("never reached")
    assert done == ["a replacement is hired"]


def test_tidying_up_after_a_signal_is_not_cut_short_by_another_of_any_kind():
    done = []
    with StopSignals(ignore), pytest.raises(Interrupted) as caught:
        try:
            send(signal.SIGINT)
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
                send(signum)
            done.append("tidied up")
    assert caught.value.exit_status == 130 and done == ["tidied up"]


def in_a_callback_of_compiled_code(signum: int) -> None:
    """Where Python can only print what is raised, and goes on."""
    ctypes.CFUNCTYPE(None)(lambda: send(signum))()


def wait_for_it():
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.fixture
def hook(monkeypatch):
    lost = []
    monkeypatch.setattr(sys, "unraisablehook", interruption._not_of_signals(lost.append))
    yield lost
    assert lost == []


def test_an_interruption_that_a_callback_drops_is_raised_again_and_nothing_is_printed(hook):
    with StopSignals(ignore), pytest.raises(Interrupted) as caught:
        in_a_callback_of_compiled_code(signal.SIGTERM)
        wait_for_it()
    assert caught.value.exit_status == 143


def test_an_interruption_that_is_dropped_where_sigalrm_is_ignored_is_raised_again_too(hook):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # as a parent may have left it
    try:
        with StopSignals(ignore), pytest.raises(Interrupted) as caught:
            in_a_callback_of_compiled_code(signal.SIGTERM)
            wait_for_it()
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert caught.value.exit_status == 143


class Dropped:
    """An object at whose end a signal comes, and one with which something else goes wrong."""

    def __init__(self, signum: int = 0) -> None:
        self.signum = signum

    def __del__(self) -> None:
        if self.signum:
            send(self.signum)
        else:
            raise ValueError("at the end of an object")


class Watched:
    pass


@pytest.mark.parametrize("where", ["an object's end", "a weak reference", "a collection", "the hook"])
def test_an_interruption_is_raised_again_wherever_python_drops_it(monkeypatch, where):
    told = []

    def tell(unraisable):
        told.append(unraisable.exc_type)
        send(signal.SIGTERM)  # while this is written

    monkeypatch.setattr(sys, "unraisablehook", interruption._not_of_signals(tell))
    with StopSignals(ignore), pytest.raises(Interrupted) as caught:
        match where:
            case "an object's end":
                Dropped(signal.SIGTERM)
            case "a weak reference":
                watched = Watched()
                reference = weakref.ref(watched, lambda gone: send(signal.SIGTERM))
                del watched
                assert reference() is None
            case "a collection":
                ring = [Dropped(signal.SIGTERM)]
                ring.append(ring)
                del ring
                gc.collect()
            case "the hook":
                Dropped()
        wait_for_it()
    assert caught.value.exit_status == 143
    assert told == [ValueError] * (where == "the hook")


def test_a_step_is_given_up_though_a_callback_dropped_it_and_that_is_no_second_request(hook):
    now = [0.0]
    with StopSignals(ignore, lambda: now[0]) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.computing():
            in_a_callback_of_compiled_code(signal.SIGTERM)
            now[0] += 10
            wait_for_it()
    assert signals.exit_status == 143


def test_what_was_lost_is_raised_before_there_is_something_to_save(monkeypatch):
    with StopSignals(ignore) as signals, pytest.raises(Interrupted):
        try:
            send(signal.SIGINT)
        except Interrupted:
            interruption._state.raised = False  # as where a library catches everything
        signals.defer()


PROGRAM = """
import os, signal, sys, time
from feste_dp import interruption
{before}
try:
    os.kill(os.getpid(), signal.{name})
    time.sleep(5)
except interruption.Interrupted as error:
    {hang}
    print("tidied up")
    sys.exit(error.exit_status)
"""


@pytest.mark.parametrize(
    ("before", "name", "hang", "status", "out"),
    [
        ("interruption.end_on_the_spot()", "SIGTERM", "", 143, ""),
        ("interruption.end_on_the_spot()", "SIGXCPU", "", 152, ""),
        ("interruption.raise_from_here()", "SIGQUIT", "", 131, "tidied up\n"),
        ("interruption.end_with(7)", "SIGINT", "", 7, ""),
        (
            "interruption.raise_from_here()",
            "SIGINT",
            "time.sleep(1.1); os.kill(os.getpid(), signal.SIGTERM); time.sleep(5)",
            143,
            "",
        ),
    ],
)
def test_the_stages_of_a_program(before, name, hang, status, out):
    program = PROGRAM.format(before=before, name=name, hang=hang)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, out, "")


def test_signals_that_were_ignored_stay_ignored():
    program = """
import os, signal
from feste_dp.interruption import end_on_the_spot, raise_from_here
signal.signal(signal.SIGHUP, signal.SIG_IGN)
end_on_the_spot()
raise_from_here()
os.kill(os.getpid(), signal.SIGHUP)
print("goes on")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
