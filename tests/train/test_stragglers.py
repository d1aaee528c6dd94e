import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.train.stragglers import RECOVERED_FACTOR, SLOW_FACTOR, Stragglers, _median_without

EVEN = [2, 2, 2, 2]


def told(stragglers: Stragglers, seconds: list[float], shards: list[int], steps: int) -> list[str]:
    return [verdict.line for _ in range(steps) for verdict in stragglers.add(seconds, shards)]


def test_a_worker_that_is_slow_for_a_while_is_named_once():
    stragglers = Stragglers(steps_to_tell=5, seconds_to_tell=0)
    slow = [0.2, 0.4, 0.2, 0.2]
    assert told(stragglers, slow, EVEN, 4) == []
    (line,) = told(stragglers, slow, EVEN, 1)
    assert line.startswith("worker 1 has been slow for 5 steps: 200 ms a shard, 2.0 times the median")
    assert told(stragglers, slow, EVEN, 50) == []
    assert stragglers.named == {1}


def test_it_is_said_once_when_it_has_recovered_and_may_be_named_again():
    stragglers = Stragglers(steps_to_tell=3, seconds_to_tell=0)
    slow, even = [0.2, 0.4, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2]
    told(stragglers, slow, EVEN, 3)
    assert told(stragglers, even, EVEN, 2) == []
    assert told(stragglers, even, EVEN, 1) == ["worker 1 is as fast as the others again"]
    assert told(stragglers, even, EVEN, 20) == []
    assert len(told(stragglers, slow, EVEN, 3)) == 1


def test_single_slow_steps_are_not_worth_a_word():
    stragglers = Stragglers(steps_to_tell=3, seconds_to_tell=0)
    for _ in range(20):
        assert told(stragglers, [0.2, 0.9, 0.2, 0.2], EVEN, 2) == []
        assert told(stragglers, [0.2, 0.2, 0.2, 0.2], EVEN, 1) == []


def test_slowness_must_cost_time_before_it_is_worth_a_word():
    stragglers = Stragglers(steps_to_tell=3, seconds_to_tell=10)
    assert told(stragglers, [0.2, 0.4, 0.2, 0.2], EVEN, 24) == []
    (line,) = told(stragglers, [0.2, 0.4, 0.2, 0.2], EVEN, 1)
    assert line.startswith("worker 1 has been slow for 25 steps")


def test_a_worker_between_slow_and_recovered_keeps_its_name():
    stragglers = Stragglers(steps_to_tell=3, seconds_to_tell=0)
    told(stragglers, [0.2, 0.4, 0.2, 0.2], EVEN, 3)
    between = 0.2 * (SLOW_FACTOR + RECOVERED_FACTOR) / 2
    assert told(stragglers, [0.2, between, 0.2, 0.2], EVEN, 50) == []
    assert stragglers.named == {1}


def test_more_shards_are_not_slowness():
    stragglers = Stragglers(steps_to_tell=3, seconds_to_tell=0)
    assert told(stragglers, [0.2, 0.6, 0.2], [1, 3, 1], 50) == []
    (line,) = told(stragglers, [0.2, 0.6, 0.4], [1, 3, 1], 3)
    assert line.startswith("worker 2 ")


@pytest.mark.parametrize(
    ("seconds", "shards"), [([0.5], [8]), ([0.5, 0.0], [8, 0]), ([0.0, 0.0], [0, 0]), ([], [])]
)
def test_a_worker_alone_is_compared_with_nobody(seconds, shards):
    assert told(Stragglers(steps_to_tell=1, seconds_to_tell=0), seconds, shards, 10) == []


def test_of_two_workers_the_slower_is_named():
    (line,) = told(Stragglers(steps_to_tell=3, seconds_to_tell=0), [0.9, 0.3], [4, 4], 10)
    assert line.startswith("worker 0 ")


def test_two_slow_workers_among_many_are_both_named():
    stragglers = Stragglers(steps_to_tell=3, seconds_to_tell=0)
    told(stragglers, [0.2, 0.4, 0.2, 0.5, 0.2, 0.2], [2] * 6, 3)
    assert stragglers.named == {1, 3}


def test_shards_of_microseconds_are_too_short_to_judge():
    assert told(Stragglers(steps_to_tell=1, seconds_to_tell=0), [1e-4, 9e-4], [1, 1], 10) == []


def test_a_new_process_begins_with_a_good_name():
    stragglers = Stragglers(steps_to_tell=2, seconds_to_tell=0)
    told(stragglers, [0.2, 0.6], [1, 1], 2)
    stragglers.forget(1)
    assert stragglers.named == frozenset()
    assert told(stragglers, [0.2, 0.6], [1, 1], 1) == []
    assert len(told(stragglers, [0.2, 0.6], [1, 1], 1)) == 1


def test_every_so_often_the_mean_time_of_each_worker_is_reported():
    stragglers = Stragglers(report_every=4)
    for _ in range(2):
        reports = []
        for step in range(4):
            stragglers.add([0.010 + 0.001 * step, 0.020], [1, 1])
            reports.append(stragglers.report())
        assert reports == [None] * 3 + ["compute, ms a step over 4 steps, by worker: 0: 11.5, 1: 20"]


def test_workers_may_come_and_go_between_two_reports():
    stragglers = Stragglers(report_every=2)
    stragglers.add([0.01], [4])
    stragglers.add([0.03, 0.02], [2, 2])
    assert stragglers.report() == "compute, ms a step over 2 steps, by worker: 0: 20, 1: 20"


degenerate = st.sampled_from([0.0, -0.0, 0.2, math.nan, math.inf, 1e308, 5e-324, -1.0]) | st.floats()


@given(st.lists(st.lists(degenerate, min_size=3, max_size=3), min_size=1, max_size=12))
def test_no_times_are_a_fault(steps):
    stragglers = Stragglers(steps_to_tell=2, seconds_to_tell=0, report_every=4)
    for seconds in steps:
        stragglers.add(seconds, [1, 0, 2])
        stragglers.report()


def test_the_median_of_the_others_needs_no_list_of_them_for_each_worker():
    source = random.Random(1)
    for _ in range(300):
        values = [source.choice([1.0, 2.0, source.random()]) for _ in range(source.randint(2, 9))]
        left_out = source.choice(values)
        others = values.copy()
        others.remove(left_out)
        assert _median_without(sorted(values), left_out) == statistics.median(others)
