"""Stamps: where they are put, what they tell, and that they leave the numbers alone."""

import time
from pathlib import Path

import numpy as np
import pytest

from feste_dp.kernels.compilation import inlined_kernel, kernel
from feste_dp.kernels.stamps import BEGINNING, make_clock, places_in, read_clock, stamp, stamped_kernel
from feste_dp.model import gpt2


@kernel
def add_to(total, x):
    for i in range(x.shape[0]):
        total[0] += x[i]


@inlined_kernel
def rest_of_listing(total, x, often):
    for _ in range(often):
        y = x[1:]
        add_to(total, y)


@stamped_kernel("clock")
def listing(total, x, clock, often):
    """A listing as the model's: calls, a loop, a branch, and what is inlined into it."""
    add_to(total[:1], x)
    rest_of_listing(total, x, often)
    if often > 2:
        add_to(total, x)


def calls(function):
    """The places of a function of this file, in order."""
    return [place for place in places_in(Path(__file__)).values() if place.listing == function.__name__]


def test_every_call_has_a_place_that_says_what_it_is_and_whether_it_is_in_a_loop():
    assert [place.in_loop for place in calls(listing)] == [False, False, False]
    assert [(place.name, place.in_loop) for place in calls(rest_of_listing)] == [("add_to total", True)]
    places = places_in(Path(gpt2.__file__)).values()
    named = {place.name: place.listing for place in places}
    assert named["head_forward logits"] == "head" and named["attention_backward qkv"] == "backward"
    layered = [place.name for place in places if place.in_loop]
    assert layered.count("layernorm_forward ln") == 2 and layered.count("linear_backward ln") == 2


def test_the_times_are_those_of_perf_counter_in_order(monkeypatch):
    clock = make_clock(10)
    before = time.perf_counter()
    listing(np.zeros(1), np.ones(3), clock, 2)
    after = time.perf_counter()
    stamps = read_clock(clock)
    assert stamps[0][0] == BEGINNING
    places = places_in(Path(__file__))
    names = [(places[line].name, places[line].listing) for line, _ in stamps[1:]]
    assert names == [("add_to total", "listing")] + [("add_to total", "rest_of_listing")] * 2
    times = [before, *(at for _, at in stamps), after]
    assert times == sorted(times)
    assert read_clock(clock) == []


def test_what_has_no_room_is_left_out_and_nothing_is_written_outside():
    clock = make_clock(2)
    listing(np.zeros(1), np.ones(3), clock, 5)
    assert len(read_clock(clock)) == 2
    empty = make_clock(0)
    listing(np.zeros(1), np.ones(3), empty, 5)
    stamp(empty, 0)
    assert empty.shape == (0, 3)


def test_a_stamped_function_computes_what_it_did_whether_times_are_taken_or_not():
    with_room, without = np.zeros(1), np.zeros(1)
    listing(with_room, np.ones(3), make_clock(50), 3)
    listing(without, np.ones(3), make_clock(0), 3)
    assert with_room[0] == without[0] == 3 + 3 * 2 + 3


@pytest.mark.parametrize("room", [0, 7, 500])
def test_a_clock_has_the_room_that_was_asked_for(room):
    assert make_clock(room).shape == ((1 + room, 3) if room else (0, 3))
