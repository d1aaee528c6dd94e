from feste_dp.model.pace import Pace


def ways(seconds, calls):
    """The way of each call, where way w of call i takes seconds(i, w)."""
    pace, taken = Pace(), []
    for i in range(calls):
        taken.append(pace.way)
        pace.took(seconds(i, pace.way))
    return taken


def test_both_ways_are_tried_and_the_faster_one_is_taken_ever_more():
    for fast in (0, 1):
        taken = ways(lambda i, way, fast=fast: 1.0 if way == fast else 3.0, 5000)
        assert taken[:3] == [0] * 3 and taken[3:6] == [1] * 3
        assert 0 < sum(way != fast for way in taken[6:]) < 40
        assert taken[6:70] == [fast] * 64


def test_a_way_that_becomes_the_faster_one_is_found():
    taken = ways(lambda i, way: (1.0, 2.0)[way] if i < 1000 else (5.0, 2.0)[way], 4000)
    assert sum(taken[:1000]) < 100 and sum(taken[2500:]) > 1400


def test_one_slow_call_changes_nothing():
    taken = ways(lambda i, way: 99.0 if i in (0, 66) else (1.0, 1.5)[way], 200)
    assert sum(taken) == 6
