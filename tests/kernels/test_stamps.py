"""Stamps: where they are put, what they tell, and that they leave the numbers alone."""

import time
from pathlib import Path

import numpy as np
import pytest

from feste_dp.kernels.compilation import kernel
from feste_dp.kernels.stamps import BEGINNING, make_clock, places, read_clock, stamp, stamped
from feste_dp.model import gpt2


@kernel
def add_to(total, x):
    for i in range(x.shape[0]):
        total[0] += x[i]


@stamped("clock", begins=True)
def listing(total, x, clock, often):
    """A listing as the model's: calls, a loop, a branch."""
    add_to(total[:1], x)
    for _ in range(often):
        y = x[1:]
        add_to(total, y)
    if often > 2:
        add_to(total, x)


OWN = [place for place in places if place.name == "add_to total"]


def test_every_call_has_a_place_that_says_what_it_is_and_whether_it_is_in_a_loop():
    assert [place.in_loop for place in OWN] == [False, True, False]
    names = {place.name for place in places}
    assert {"linear_forward qkv", "attention_backward qkv", "head_forward logits", "backward d"} <= names
    assert BEGINNING in names


def test_the_times_are_those_of_perf_counter_in_order(monkeypatch):
    clock = make_clock(10)
    before = time.perf_counter()
    listing(np.zeros(1), np.ones(3), clock, 2)
    after = time.perf_counter()
    stamps = read_clock(clock)
    assert [places[number].name for number, _ in stamps] == [BEGINNING] + ["add_to total"] * 3
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


def test_a_stamped_function_computes_what_it_did_and_keeps_its_name_and_lines():
    with_room, without = np.zeros(1), np.zeros(1)
    listing(with_room, np.ones(3), make_clock(50), 3)
    listing(without, np.ones(3), make_clock(0), 3)
    assert with_room[0] == without[0] == 3 + 3 * 2 + 3
    code = gpt2.forward.py_func.__code__
    assert code.co_name == "forward" and code.co_filename.endswith("gpt2.py")
    source = Path(code.co_filename).read_text().splitlines()[code.co_firstlineno - 1 :]
    assert any("def forward" in line for line in source[:4])


@pytest.mark.parametrize("room", [0, 7, 500])
def test_the_listings_of_the_model_are_stamped(room):
    clock = make_clock(room)
    assert clock.shape == ((1 + room, 3) if room else (0, 3))
    layered = [place.name for place in places if place.in_loop and place not in OWN]
    assert layered.count("layernorm_forward ln") == 2 and layered.count("linear_backward ln") == 2
