"""JSON of ours is JSON of everybody's, whatever the numbers in it."""

import ast
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.json_text import json_text

PACKAGE = Path(__file__).parents[1] / "feste_dp"
STRICT = {"json_text.py"}
# Read by this program alone, or made of text and whole numbers.
INTERNAL = {
    "runtime/tracing.py", "scale/baselines/one_process.py", "scale/baselines/torch_steps.py",
    "scale/baselines/running.py",
    "bench/kernel_timing.py", "report/run_data.py", "data/tokens.py", "data/preparation.py",
    "checkpoint/format.py", "checkpoint/shards.py", "files/safetensors_file.py",
    "data/tokenizer_file.py", "data/tokenizer_folder.py", "cli/arguments.py", "api/configs.py",
    "verify/golden_text.py", "verify/kernel_hashes.py", "nodes/tracks.py",
}  # fmt: skip

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(value=values, indent=st.sampled_from([None, 2]))
def test_whatever_the_numbers_it_is_json(value: object, indent: int | None) -> None:
    json.loads(json_text(value, indent=indent), parse_constant=refuse)


def test_a_nan_or_infinity_is_null_unless_said_otherwise() -> None:
    content = {"a": math.nan, "b": [math.inf, 1.5], "c": (-math.inf,)}
    assert json_text(content) == '{"a":null,"b":[null,1.5],"c":[null]}'
    assert json_text(content, nonfinite=repr) == '{"a":"nan","b":["inf",1.5],"c":["-inf"]}'


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.name)
def test_what_others_read_is_written_in_one_place(file: Path) -> None:
    calls = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("dumps", "dump")
        and ast.unparse(node.value) == "json"
    ]
    assert not calls or file.relative_to(PACKAGE).as_posix() in STRICT | INTERNAL
