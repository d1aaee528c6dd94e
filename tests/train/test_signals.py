"""Signals, sent to this very process and handled in it."""

import os
import signal
import subprocess
import sys
import time

import pytest

from feste_dp.interruption import Interrupted
from feste_dp.train.signals import (
    REPEAT_S,
    STOPPING,
    STOPPING_AT_ONCE,
    Abandoned,
    StopSignals,
    write_notice,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
STATUS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
OTHERS = [(signal.SIGUSR2, 140), (signal.SIGXCPU, 152), (signal.SIGALRM, 142), (signal.SIGQUIT, 131)]


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


@pytest.mark.parametrize(("signum", "status"), STATUS + OTHERS)
def test_a_signal_before_there_is_anything_to_save_interrupts_at_once(signum: int, status: int) -> None:
    with StopSignals(ignore), pytest.raises(Interrupted) as caught:
        send(signum)
    assert caught.value.exit_status == status
    assert not isinstance(caught.value, Exception)


@pytest.mark.parametrize(("signum", "status"), STATUS)
def test_the_first_deferred_signal_only_asks_and_says_so(signum: int, status: int) -> None:
    notices: list[str] = []
    with StopSignals(notices.append) as signals:
        signals.defer()
        assert not signals.requested
        assert signals.exit_status == 0
        send(signum)
        assert signals.requested
        assert signals.exit_status == status
    assert notices == [STOPPING if signum == signal.SIGINT else STOPPING_AT_ONCE]


@pytest.mark.parametrize(("signum", "status"), OTHERS)
def test_what_supervisors_send_too_gives_up_a_step_and_is_named_in_one_line(signum: int, status: int) -> None:
    notices: list[str] = []
    with StopSignals(notices.append) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.computing():
            send(signum)
    assert signals.exit_status == status
    assert len(notices) == 1 and notices[0].startswith(signal.Signals(signum).name)


def test_the_limit_of_cpu_time_which_is_told_each_second_never_insists() -> None:
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        for _ in range(3):
            send(signal.SIGXCPU)
            clock.now += 1
        assert signals.exit_status == 152


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


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_closed_terminal_never_counts_as_a_second_request(first: int) -> None:
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        send(first)
        for _ in range(3):
            clock.now += 2 * REPEAT_S
            send(signal.SIGHUP)
        assert signals.exit_status == 128 + first


def test_a_signal_after_the_terminal_was_closed_is_the_first_request_and_not_the_second() -> None:
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        send(signal.SIGHUP)
        clock.now += 2 * REPEAT_S
        send(signal.SIGTERM)
        clock.now += 2 * REPEAT_S
        with pytest.raises(Interrupted):
            send(signal.SIGTERM)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_a_gradient_is_given_up_for_sigterm_and_sighup(signum: int) -> None:
    with StopSignals(ignore) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.computing():
            send(signum)
        assert signals.requested


def test_a_gradient_is_finished_after_ctrl_c() -> None:
    with StopSignals(ignore) as signals:
        signals.defer()
        with signals.computing():
            send(signal.SIGINT)
        assert signals.requested


def test_a_gradient_that_was_being_finished_after_ctrl_c_is_given_up_when_the_terminal_closes() -> None:
    with StopSignals(ignore) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.computing():
            send(signal.SIGINT)
            send(signal.SIGHUP)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_measurement_is_given_up_for_any_of_them_before_or_during_it(signum: int) -> None:
    with StopSignals(ignore) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.measuring(lambda: None):
            send(signum)
        with pytest.raises(Abandoned), signals.measuring(lambda: None):
            raise AssertionError("not reached: there is nothing to measure any more")


def test_between_the_sections_a_signal_only_asks() -> None:
    with StopSignals(ignore) as signals:
        signals.defer()
        with signals.computing():
            pass
        send(signal.SIGTERM)
        assert signals.requested


def test_sigusr1_during_a_measurement_saves_at_once_and_a_stop_waits_for_that_save() -> None:
    seen: list[str] = []

    def save() -> None:
        seen.append("begun")
        if len(seen) == 1:
            send(signal.SIGUSR1)  # again: not while one is under way
            send(signal.SIGTERM)
        seen.append("done")

    with StopSignals(ignore) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.measuring(save):
            send(signal.SIGUSR1)
        assert seen == ["begun", "done"]
        assert signals.take_save_request()  # the second one, to be served after the step


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
    ("signum", "status", "notice"),
    [
        (signal.SIGTERM, 143, STOPPING_AT_ONCE),
        (signal.SIGHUP, 129, STOPPING_AT_ONCE),
        (signal.SIGINT, 130, STOPPING),
    ],
)
def test_a_real_loop_finishes_and_exits_with_the_status_of_the_signal(
    signum: signal.Signals, status: int, notice: str
) -> None:
    command = [sys.executable, "-c", LOOP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        out, err = process.communicate(timeout=10)
    assert (out, process.returncode) == ("saved\n", status)
    assert err == f"\n{notice}\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_passed_on_by_another_machine_is_no_first_request_of_this_one(signum: int) -> None:
    """mpirun forwards it to all, to some of them a second after another machine has passed it on."""
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        with pytest.raises(Abandoned), signals.measuring(lambda: None):
            signals.pass_on(signum)
            time.sleep(0.001)
        assert signals.exit_status == 128 + signum
        clock.now += 1
        send(signum)
        clock.now += 2 * REPEAT_S
        with pytest.raises(Interrupted):
            send(signum)


def test_a_request_to_another_machine_that_came_with_its_words_is_none_of_this_one() -> None:
    clock = Clock()
    with StopSignals(ignore, clock) as signals:
        signals.defer()
        signals.adopt(signal.SIGTERM)
        signals.pass_on(signal.SIGTERM)  # known already: nothing is sent
        clock.now += 1
        send(signal.SIGTERM)
        assert signals.exit_status == 143
