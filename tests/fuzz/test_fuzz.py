"""No input crashes, hangs, or costs more than 64 MiB; `make fuzz` runs 445,000 of them, these tests a few."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.runner import SEEDS, all_targets, run_targets
from tests.fuzz.targets import Target

FEW = 300
JSON_TARGETS = ("manifest with a right hash", "shard header", "token meta", "tokenizer")

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {target.name: target for target in all_targets(tmp_path_factory.mktemp("fuzz"))}


NAMES = (
    "frame",
    "frame with its token",
    "manifest",
    "manifest with a right hash",
    "shard header",
    "checkpoint file",
    "token meta",
    "tokenizer",
    "tokenizer bytes",
    "token file",
    "model settings",
    "weights header",
    "weights file",
    "config",
    "override",
    "metrics",
)


RUN_NAMES = (
    "run metrics.csv",
    "run events.jsonl",
    "run config.yaml",
    "run tokenizer.json",
    "run log.txt",
    "run manifest.json",
    "run scaling.json",
)
FEW_RUNS = 4


def test_the_names_are_those_of_all_targets(targets: dict[str, Target]) -> None:
    assert tuple(targets) == NAMES + RUN_NAMES
    assert sum(target.count for target in targets.values()) >= 100_000


def test_a_few_mutated_inputs_do_no_harm() -> None:
    outcomes = run_targets(NAMES, 0, FEW)
    assert {name: outcome.finding for name, outcome in outcomes.items()} == dict.fromkeys(NAMES, "")
    assert all(outcome.inputs == FEW for outcome in outcomes.values())


def test_a_few_mutated_runs_are_shown_or_refused_in_a_line() -> None:
    outcomes = run_targets(RUN_NAMES, 0, FEW_RUNS)
    assert {name: outcome.finding for name, outcome in outcomes.items()} == dict.fromkeys(RUN_NAMES, "")
    assert all(outcome.inputs == FEW_RUNS for outcome in outcomes.values())


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES + RUN_NAMES)
def test_all_mutated_inputs_do_no_harm(name: str, targets: dict[str, Target]) -> None:
    outcome = run_targets([name], 0, targets[name].count)[name]
    assert outcome.finding == "" and outcome.inputs == targets[name].count


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400))
def test_bytes_that_know_nothing_of_the_format_do_no_harm(
    name: str, targets: dict[str, Target], data: bytes
) -> None:
    targets[name].read(data)


@pytest.mark.parametrize("name", JSON_TARGETS)
@settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_any_value_in_the_place_of_any_field_does_no_harm(
    name: str, targets: dict[str, Target], draw: st.DataObject
) -> None:
    seed = targets[name].seeds[0]
    head = seed[:8] if name == "shard header" else b""
    tail = b"}" if name == "manifest with a right hash" else b""
    document = json.loads(seed[len(head) :] + tail)
    key = draw.draw(st.sampled_from(sorted(document)))
    text = json.dumps(document | {key: draw.draw(values)}).encode()
    if head:
        head = len(text).to_bytes(8, "little")
    targets[name].read(head + text.removesuffix(tail))


def test_what_once_did_harm_does_none(targets: dict[str, Target]) -> None:
    kept = sorted(path for path in SEEDS.iterdir() if path.suffix != ".md")
    assert kept
    for path in kept:
        name = path.name.rpartition("-")[0].replace("-", " ")
        targets[name].read(path.read_bytes())


GREEDY = """
import sys
from pathlib import Path
from tests.fuzz.runner import run_inputs
from tests.fuzz.targets import Target
sizes = iter([0] * 55 + [80 * 2**20] + [0] * 10)
greedy = Target("greedy", 60, [b"x"], lambda data, source: data, lambda data: len(bytearray(next(sizes))))
print(run_inputs(greedy, Path(sys.argv[1]), 0, 60).finding[-60:])
"""


def test_an_input_that_takes_more_memory_is_a_finding(tmp_path: Path) -> None:
    """The limit is set for good, and this process has memory to spare: a new one."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert "MemoryError" in done.stdout, done.stderr
