"""Signals, sent to this very process and handled in it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from feste_dp.train.signals import REPEAT_S, STOPPING, Interrupted, StopSignals, write_notice

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(0.001)  # lets Python run the handler


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ignore(text: str) -> None:
    pass


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_there_is_anything_to_save_interrupts_at_once(signum: int, status: int) -> None:
    with StopSignals(ignore), pytest.raises(Interrupted) as caught:
        send(signum)
    assert caught.value.exit_status == status
    assert not isinstance(caught.value, Exception)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_deferred_signal_only_asks_and_says_so(signum: int, status: int) -> None:
    notices: list[str] = []
    with StopSignals(notices.append) as signals:
        signals.defer()
        assert not signals.requested
        assert signals.exit_status == 0
        send(signum)
        assert signals.requested
        assert signals.exit_status == status
    assert notices == [STOPPING]


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_interrupts_at_once(first: int, second: int) -> None:
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        send(first)
        clock.now += 2 * REPEAT_S
        with pytest.raises(Interrupted) as caught:
            send(second)
    assert caught.value.exit_status == 128 + second


def test_a_forwarded_copy_of_the_first_signal_is_not_a_second_request() -> None:
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        send(signal.SIGINT)
        clock.now += REPEAT_S / 2
        send(signal.SIGINT)
        assert signals.requested


def test_sigusr1_asks_for_one_save_and_no_stop() -> None:
    with StopSignals(ignore) as signals:
        send(signal.SIGUSR1)
        assert signals.save_requested
        assert not signals.requested
        assert signals.take_save_request()
        assert not signals.take_save_request()


def test_the_old_handlers_come_back() -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with StopSignals(ignore):
        assert [signal.getsignal(each) for each in SIGNALS] != before
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_ignored_at_the_start_stays_ignored(signum: int) -> None:
    old = signal.signal(signum, signal.SIG_IGN)
    try:
        with StopSignals(ignore) as signals:
            send(signum)
            assert not signals.requested
            assert not signals.save_requested
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, old)


def test_the_notice_reaches_standard_error_past_any_buffer(capfd: pytest.CaptureFixture[str]) -> None:
    write_notice("stopping")
    assert capfd.readouterr().err == "\nstopping\n"


LOOP = """
import sys, time
from feste_dp.train.signals import StopSignals
with StopSignals() as signals:
    signals.defer()
    print("ready", flush=True)
    while not signals.requested:
        time.sleep(0.01)
    print("saved", flush=True)
sys.exit(signals.exit_status)
"""


@pytest.mark.parametrize(
    ("send_to", "status"),
    [(subprocess.Popen.terminate, 143), (lambda process: process.send_signal(signal.SIGINT), 130)],
)
def test_a_real_loop_finishes_and_exits_with_the_status_of_the_signal(
    send_to: Callable[[subprocess.Popen[str]], None], status: int
) -> None:
    command = [sys.executable, "-c", LOOP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        send_to(process)
        out, err = process.communicate(timeout=10)
    assert (out, process.returncode) == ("saved\n", status)
    assert err == f"\n{STOPPING}\n"
