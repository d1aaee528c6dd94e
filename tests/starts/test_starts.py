"""A start that is killed, or loses its power, at a call that writes, or gets signals: the next goes on."""

import itertools
import random
import signal

import pytest

from tests.starts.kills import KILL, POWER_FAILURE, STARTS, try_kill, try_signal_at_call, try_signals
from tests.starts.moments import ALL, process_one_can_be_had


@pytest.mark.parametrize(
    ("start", "number", "how"),
    [
        ("launch", 60, POWER_FAILURE),
        pytest.param("launch", 40, KILL, marks=pytest.mark.long),
        pytest.param("resume", 4, KILL, marks=pytest.mark.long),
    ],
)
def test_a_start_that_was_killed_at_a_call_that_writes_goes_on_to_the_same_bits(stage, start, number, how):
    assert try_kill(stage, start, number, how) is not None


@pytest.mark.long
def test_a_signal_right_after_a_call_that_writes_is_one_quiet_end_and_the_start_goes_on(stage):
    assert try_signal_at_call(stage, "launch", 30, signal.SIGTERM) == 143


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGHUP, signal.SIGINT], (129, 130)),
        pytest.param([signal.SIGQUIT], (131,), marks=pytest.mark.long),
    ],
)
def test_signals_within_a_millisecond_are_one_quiet_end(stage, signals, status):
    assert try_signals(stage, 0.5, signals, as_process_one=False, goes_on=False).status in status


@pytest.mark.long
@pytest.mark.parametrize("how", [KILL, POWER_FAILURE])
@pytest.mark.parametrize("start", STARTS)
def test_a_start_that_was_killed_at_any_call_that_writes_goes_on(stage, start, how):
    calls = sum(1 for _ in itertools.takewhile(lambda n: try_kill(stage, start, n, how), itertools.count(1)))
    assert calls > 80


@pytest.mark.long
@pytest.mark.parametrize("as_process_one", [False, True])
def test_signals_at_any_moment_are_one_quiet_end(stage, as_process_one):
    if as_process_one and not process_one_can_be_had():
        pytest.skip("no namespaces of processes for this user")
    chance = random.Random(3)
    for number in range(100):
        signals = [ALL[number % len(ALL)], chance.choice(ALL)][: 1 + number % 2]
        try_signals(stage, chance.uniform(0, 3), signals, as_process_one, goes_on=number % 5 == 0)
