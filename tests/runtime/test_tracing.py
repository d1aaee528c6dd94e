"""Recorded events: slices, and flows whose two ends have one name."""

import json
from pathlib import Path

import pytest

from feste_dp.kernels.stamps import BEGINNING, places_in
from feste_dp.model import gpt2
from feste_dp.runtime import messages as m
from feste_dp.runtime.tracing import Recorder, TraceRequest, merge_traces, read_pieces, step_of


@pytest.fixture
def request_for(tmp_path):
    return TraceRequest(first=2, last=3, directory=str(tmp_path))


def events(request, *recorders):
    for recorder in recorders:
        recorder.write()
    return json.loads(merge_traces(read_pieces(request), {"run": "x"}))["traceEvents"]


def test_only_messages_of_the_traced_steps_are_recorded(request_for):
    recorder = Recorder(request_for, "coordinator", 0)
    for step in (1, 2, 3, 4):
        recorder.sent(0, m.Reduce(step, 0, 5, 2), 1.0, 2.0)
        recorder.phases(step, {"compute": (1.0, 2.0)})
    recorder.sent(0, m.Stop(), 1.0, 2.0)
    found = events(request_for, recorder)
    assert [event["args"]["step"] for event in found if event["ph"] == "X"] == [2, 2, 3, 3]
    assert (step_of(m.Stop()), recorder.is_past(3), recorder.is_past(4)) == (-1, False, True)


def test_both_ends_of_a_message_have_one_name_also_when_it_is_said_twice(request_for):
    coordinator = Recorder(request_for, "coordinator", 0)
    worker = Recorder(request_for, "worker 1", 2)
    order = m.Compute(2, 0, 2, 1)
    for at in (1.0, 2.0):
        coordinator.sent(1, order, at, at + 0.1)
        worker.received(1, order, at + 0.2, at + 0.3, "wait for")
    found = events(request_for, coordinator, worker)
    starts, ends = ([e["id"] for e in found if e["ph"] == phase] for phase in "sf")
    assert starts == ends and len(set(starts)) == 2
    assert all(event["bp"] == "e" for event in found if event["ph"] == "f")


def test_times_begin_with_the_first_event_and_pieces_are_written_once(request_for):
    recorder = Recorder(request_for, "worker 0", 1)
    recorder.slice("b", "phase", 11.0, 11.5)
    recorder.slice("a", "phase", 10.0, 10.25, step=2)
    recorder.write()
    recorder.write()
    found = [event for event in events(request_for) if event["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in found] == [("a", 0.0, 250000.0), ("b", 1e6, 500000.0)]


def line_of(name):
    if name == "":
        return BEGINNING
    return next(line for line, place in places_in(Path(gpt2.__file__)).items() if place.name == name)


def test_stamps_become_kernels_within_forward_and_backward_within_a_micro_batch(request_for):
    recorder = Recorder(request_for, "worker 0", 1)
    names = [
        "", "embedding_forward x", "linear_forward qkv", "linear_forward qkv", "cross_entropy_forward losses",
        "linear_backward attn", "linear_backward attn", "sum_of_losses losses",
    ]  # fmt: skip
    stamps = [(line_of(name), 1.0 + 0.1 * i) for i, name in enumerate(names)]
    recorder.kernels(stamps * 2, layers=2)
    found = [event for event in events(request_for, recorder) if event["ph"] == "X"]
    kernels = [(e["name"], e.get("args", {}).get("layer")) for e in found]
    assert kernels.count(("micro-batch", None)) == 2
    layers = [layer for name, layer in kernels if name == "linear_forward qkv"]
    backward = [layer for name, layer in kernels if name == "linear_backward attn"]
    assert sorted(layers) == sorted(backward) == [0, 0, 1, 1]
    by_name = {e["name"]: e for e in found}
    assert by_name["forward"]["dur"] == pytest.approx(3e5)
    assert by_name["backward"]["ts"] == pytest.approx(4e5)
    assert by_name["backward"]["dur"] == pytest.approx(2e5)
    assert by_name["micro-batch"]["dur"] == pytest.approx(7e5)
