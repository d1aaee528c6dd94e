"""A traced run: the same bits as without a trace, and a file as the Trace Event Format describes it."""

import json
import shutil
from collections import Counter, defaultdict

import pytest

from feste_dp.errors import UsageError
from feste_dp.run import trace as run_trace
from tests.train.test_exactness import assert_equal_runs

SHARDS, LAYERS, WORKERS = 8, 2, 2
FIRST, LAST = 9, 11


@pytest.fixture(scope="module")
def traced(runs):
    outcome = runs.launch(runs.config(), trace=(FIRST, LAST))
    assert (outcome.status, outcome.warnings) == (0, "")
    return outcome


@pytest.fixture(scope="module")
def events(traced):
    return json.loads((traced.run / f"trace-{FIRST}-{LAST}.json").read_text())["traceEvents"]


def slices(events, **having):
    return [e for e in events if e["ph"] == "X" and all(e[key] == value for key, value in having.items())]


def test_a_trace_changes_no_bit_of_the_run(straight, traced):
    assert_equal_runs(traced, straight)
    assert any("ui.perfetto.dev" in message for message in traced.messages)


def test_every_event_has_the_fields_that_the_format_asks_for(traced, events):
    content = json.loads((traced.run / f"trace-{FIRST}-{LAST}.json").read_text())
    assert set(content) == {"traceEvents", "displayTimeUnit", "otherData"}
    assert content["displayTimeUnit"] in ("ms", "ns")
    for event in events:
        assert event["ph"] in ("X", "M", "s", "f")
        assert isinstance(event["name"], str) and event["name"]
        assert type(event["pid"]) is int and type(event["tid"]) is int
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0 and isinstance(event["cat"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "process_sort_index", "thread_name") and event["args"]
        if event["ph"] in "sf":
            assert isinstance(event["id"], str) and isinstance(event["cat"], str)
            assert event.get("bp") == ("e" if event["ph"] == "f" else None)


def test_coordinator_and_workers_are_tracks(events):
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert sorted(names.values()) == ["coordinator", "worker 0", "worker 1"]
    assert {e["pid"] for e in events} == set(names)
    phases = Counter(e["name"] for e in slices(events, cat="phase") if names[e["pid"]] == "coordinator")
    steps = {f"step {step}": 1 for step in range(FIRST, LAST + 1)}
    assert phases == Counter({"compute": 3, "reduce": 3, "update": 3} | steps)


def test_the_slices_of_a_track_lie_within_or_beside_each_other(events):
    """A viewer draws a track as a stack: slices that overlap in part would be drawn wrong."""
    tracks = defaultdict(list)
    for event in slices(events):
        tracks[event["pid"]].append((event["ts"], event["ts"] + event["dur"], event["name"]))
    for track in tracks.values():
        stack: list[tuple[float, float, str]] = []
        for start, end, name in sorted(track, key=lambda s: (s[0], -s[1])):
            while stack and stack[-1][1] <= start + 1e-3:
                stack.pop()
            assert not stack or end <= stack[-1][1] + 0.01, (name, stack[-1])
            stack.append((start, end, name))


def test_every_shard_of_the_steps_is_there_with_its_kernels(events):
    steps = LAST - FIRST + 1
    shards = Counter(e["args"]["shard"] for e in slices(events) if e["name"].startswith("shard "))
    assert shards == dict.fromkeys(range(SHARDS), steps)
    kernels = Counter(e["name"] for e in slices(events, cat="kernel"))
    micro_batches = steps * SHARDS * 2
    for once in ("micro-batch", "forward", "backward", "head_forward logits", "cross_entropy_forward losses"):
        assert kernels[once] == micro_batches
    assert kernels["attention_forward attn"] == kernels["attention_backward qkv"] == LAYERS * micro_batches
    layers = Counter(e["args"]["layer"] for e in slices(events, name="attention_backward qkv"))
    assert layers == dict.fromkeys(range(LAYERS), micro_batches)


def test_every_message_is_an_arrow_from_a_slice_to_a_later_slice_of_another_track(events):
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert len(starts) == sum(e["ph"] == "s" for e in events)
    assert set(starts) == set(ends)
    kinds = Counter(e["name"] for e in starts.values())
    steps = LAST - FIRST + 1
    assert kinds["Compute"] == steps * WORKERS
    assert steps * WORKERS <= kinds["ShardsDone"] <= steps * SHARDS
    for key, start in starts.items():
        end = ends[key]
        assert end["pid"] != start["pid"] and end["ts"] >= start["ts"] - 1
        for flow in (start, end):
            around = [
                e
                for e in slices(events, pid=flow["pid"], cat="message")
                if e["ts"] - 1e-3 <= flow["ts"] <= e["ts"] + e["dur"] + 1e-3
            ]
            assert around, flow


def test_a_resumed_run_is_traced_too(runs):
    stopped = runs.launch(runs.config(run__workers=1), stop_after=13)
    resumed = runs.resume(stopped.run, 3, trace=(15, 15))
    assert resumed.status == 0
    found = json.loads((resumed.run / "trace-15-15.json").read_text())["traceEvents"]
    assert len({e["pid"] for e in found}) == 4


@pytest.mark.parametrize(
    ("steps", "words"),
    [((39, 41), "the run ends with step 40"), ((1, 101), "101 steps are too many: trace at most 100")],
)
def test_steps_that_are_not_there_are_refused_and_nothing_is_made(runs, steps, words):
    config = runs.config(**({"train__steps": 200} if steps[1] == 101 else {}))
    path = runs.new_path()
    runs._number -= 1
    with pytest.raises(UsageError, match=words):
        runs.launch(config, trace=steps)
    assert not path.exists()


def test_the_trace_of_a_run_that_is_moved_lies_where_the_run_is(runs):
    path = runs.new_path()
    new = path.with_name(f"{path.name}-moved")
    outcome = runs.launch(
        runs.config(train__steps=8, run__workers=1),
        path=path,
        trace=(2, 3),
        on_step=lambda step: path.rename(new) if step == 5 else None,
    )
    assert outcome.status == 1 and not path.exists()
    content = json.loads((new / "trace-2-3.json").read_text())
    assert content["otherData"]["run"] == new.name
    assert any(str(new / "trace-2-3.json") in message for message in outcome.messages)


def test_a_trace_that_has_no_place_costs_a_warning_and_no_worker(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(run_trace, "temporary_places", lambda: [tmp_path])

    def remove(step):
        if step == 2:
            for folder in tmp_path.iterdir():
                shutil.rmtree(folder)

    outcome = runs.launch(runs.config(train__steps=8, run__workers=1), trace=(2, 3), on_step=remove)
    assert outcome.status == 0
    (line,) = outcome.warnings.splitlines()
    assert line.startswith("warning: no trace: ") and line.endswith("where its parts were, was removed")
