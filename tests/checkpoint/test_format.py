import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.checkpoint.format import (
    Manifest,
    ShardFile,
    TensorRange,
    TrainState,
    Unmeasured,
    complete_manifest,
    decode_manifest,
    encode_manifest,
    step_directory_name,
    step_of,
)
from feste_dp.checkpoint.shards import encode_shard_header, shard_name, split_evenly
from feste_dp.errors import UsageError
from feste_dp.kernels import ARITHMETIC
from tests.checkpoint.conftest import TENSORS

P = 1000
FILES = tuple(
    ShardFile(
        name=shard_name(i, 3),
        start=start,
        stop=stop,
        size=len(encode_shard_header(stop - start, TENSORS)) + 12 * (stop - start),
        sha256="ab" * 32,
    )
    for i, (start, stop) in enumerate(split_evenly(P, 3))
)
EXAMPLE = Manifest(
    format_version=1,
    feste_dp_version="0.1.0",
    step=250,
    config={"optim": {"lr": 3e-4}, "list": [1, None]},
    tokenizer_sha256="00" * 32,
    data_sha256="11" * 32,
    seed=1,
    train=TrainState(
        best_val_loss=4.2,
        best_step=200,
        evals_since_best=1,
        val_loss=None,
        elapsed_seconds=3.5,
        skipped_steps=0,
    ),
    layout=(
        TensorRange(name="wte", shape=(10, 50), start=0, stop=500),
        TensorRange(name="wpe", shape=(500,), start=500, stop=P),
    ),
    files=FILES,
)
MISSING = object()
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def manifest(make_fields):
    return complete_manifest(make_fields(250, P), "0.1.0", FILES, TENSORS)


def with_train(manifest, **changes):
    return manifest.model_copy(update={"train": manifest.train.model_copy(update=changes)})


def changed(content, path, value):
    """A deep copy of the JSON content with one value set, or taken out."""
    copy = json.loads(json.dumps(content))
    at = copy
    for key in path[:-1]:
        at = at[key]
    if value is MISSING:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return copy


def content_of(manifest):
    content = json.loads(encode_manifest(manifest))
    del content["manifest_sha256"]
    return content


def paths_in(value, at=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from paths_in(item, (*at, key))


def assert_one_line_naming(error, *words):
    message = str(error.value)
    assert message.isprintable() and len(message) < 500
    for word in words:
        assert word in message


def test_manifest_comes_back_equal(manifest):
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1e300),
    st.integers(0, 2**64 - 1),
    st.integers(0, 10**12 - 1),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.floats(allow_nan=False, width=32)),
)
def test_every_value_of_the_state_comes_back_exactly(loss, seconds, seed, step, config):
    config = {key: value for key, value in config.items() if value not in (math.inf, -math.inf)}
    train = {"best_val_loss": loss, "best_step": step, "elapsed_seconds": seconds}
    manifest = with_train(EXAMPLE, **train).model_copy(update={"step": step, "config": config, "seed": seed})
    assert decode_manifest(encode_manifest(manifest)) == manifest


@given(st.tuples(*[st.floats()] * 4))
def test_what_a_step_that_is_still_to_be_measured_gave_comes_back_exactly_nan_and_infinity_too(numbers):
    texts = dict(zip(Unmeasured.model_fields, map(repr, numbers), strict=True))
    manifest = with_train(EXAMPLE, unmeasured=Unmeasured(**texts))
    found = decode_manifest(encode_manifest(manifest))
    assert found == manifest
    assert [repr(float(text)) for _, text in found.train.unmeasured] == list(map(repr, numbers))


def test_a_manifest_without_a_version_of_the_arithmetic_is_of_the_first(manifest, forge):
    assert manifest.arithmetic == ARITHMETIC > 1
    content = changed(content_of(manifest), ["arithmetic"], MISSING)
    assert decode_manifest(forge(content)) == manifest.model_copy(update={"arithmetic": 1})


def test_a_step_that_is_measured_has_the_manifest_that_older_programs_read(manifest):
    assert manifest.train.unmeasured is None
    assert b"unmeasured" not in encode_manifest(manifest)


@pytest.mark.parametrize("value", ["1,5", "", "0x10", " 1.0", "1.0\n", "1_0", 1.0, None, "9" * 10 + "e"])
def test_a_number_in_text_that_is_none_is_refused(seal, value):
    texts = dict(zip(Unmeasured.model_fields, ("1.0", "nan", "1.0", "1.0"), strict=True))
    manifest = with_train(EXAMPLE, unmeasured=Unmeasured(**texts))
    content = changed(content_of(manifest), ("train", "unmeasured", "learning_rate"), value)
    with pytest.raises(UsageError) as error:
        decode_manifest(seal(json.dumps(content, indent=1).removesuffix("\n}")))
    assert_one_line_naming(error, "train.unmeasured.learning_rate")


def test_every_flipped_byte_of_a_manifest_is_refused(manifest):
    data = encode_manifest(manifest)
    for i in range(len(data)):
        for flip in (0x01, 0x20, 0x80):
            damaged = data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :]
            with pytest.raises(UsageError, match=r"^somewhere/manifest\.json: .*damaged"):
                decode_manifest(damaged, "somewhere/manifest.json")


def test_a_manifest_cut_or_extended_anywhere_is_refused(manifest):
    data = encode_manifest(manifest)
    for damaged in [data[:i] for i in range(len(data))] + [data + b"\n", data + data, b"\0" * len(data)]:
        with pytest.raises(UsageError, match="damaged"):
            decode_manifest(damaged)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["format_version"], 2, ["format_version", "reads format 1"]),
        (["format_version"], 10**30, ["format_version", "reads format 1"]),
        (["format_version"], True, ["format_version"]),
        (["format_version"], MISSING, ["format_version", "missing"]),
        (["feste_dp_version"], "0.1\n", ["feste_dp_version"]),
        (["step"], -1, ["step"]),
        (["step"], True, ["step"]),
        (["step"], 250.0, ["step"]),
        (["step"], 10**12, ["step"]),
        (["seed"], 2**64, ["seed"]),
        (["seed"], None, ["seed"]),
        (["config"], [], ["config", "object"]),
        (["config", "optim", "lr"], math.nan, ["config.optim.lr", "finite"]),
        (["config", "optim", "lr"], -math.inf, ["config.optim.lr", "finite"]),
        (["config", "optim", "lr"], 10**30, ["config.optim.lr"]),
        (["tokenizer_sha256"], "AB" * 32, ["tokenizer_sha256"]),
        (["data_sha256"], "ab" * 32 + "\n", ["data_sha256"]),
        (["train", "best_val_loss"], math.nan, ["train.best_val_loss", "finite"]),
        (["train", "best_val_loss"], "4.2", ["train.best_val_loss"]),
        (["train", "best_val_loss"], None, ["train.best_step"]),
        (["train", "best_step"], 251, ["train.best_step"]),
        (["train", "evals_since_best"], 1.5, ["train.evals_since_best"]),
        (["train", "val_loss"], math.inf, ["train.val_loss"]),
        (["train", "elapsed_seconds"], -0.5, ["train.elapsed_seconds"]),
        (["train", "skipped_steps"], 251, ["train.skipped_steps"]),
        (["train", "skipped_steps"], MISSING, ["train.skipped_steps", "missing"]),
        (["train", "extra"], 1, ["train.extra", "not a known field"]),
        (["surprise\n"], 1, ["surprise", "not a known field"]),
        (["\x1b[2J" * 10_000], 1, ["not a known field"]),
        (["state"], ["m", "m"], ["state", "twice"]),
        (["state"], ["params"], ["state", "twice"]),
        (["state"], ["../m"], ["state[0]"]),
        (["state"], "mv", ["state"]),
        (["arithmetic"], 0, ["arithmetic"]),
        (["layout"], [], ["layout"]),
        (["layout"], {}, ["layout"]),
        (["layout", 0], 7, ["layout[0]"]),
        (["layout", 1, "name"], "wte", ["layout[1].name", "twice"]),
        (["layout", 1, "name"], "../x", ["layout[1].name"]),
        (["layout", 1, "shape"], [499], ["layout[1].shape"]),
        (["layout", 1, "shape"], [-500, -1], ["layout[1].shape"]),
        (["layout", 1, "shape"], [True, 500], ["layout[1].shape"]),
        (["layout", 1, "shape"], [1] * 9, ["layout[1].shape"]),
        (["layout", 1, "start"], 499, ["layout[1].start"]),
        (["layout", 1, "stop"], 500, ["layout[1].stop"]),
        (["layout", 1, "stop"], 10**15, ["layout[1].stop"]),
        (["files"], [], ["files"]),
        (["files", 2], MISSING, ["files[0].name"]),
        (["files", 0, "name"], "../../etc/passwd", ["files[0].name"]),
        (["files", 0, "name"], "shard-00-of-03.safetensors\n", ["files[0].name"]),
        (["files", 0, "name"], "shard-\u0660\u0660-of-03.safetensors", ["files[0].name"]),
        (["files", 1, "name"], "shard-00-of-03.safetensors", ["files[1].name"]),
        (["files", 1, "start"], 334, ["files[1].start"]),
        (["files", 1, "stop"], 333, ["files[1].stop"]),
        (["files", 1, "size"], 12 * 333, ["files[1].size"]),
        (["files", 1, "size"], 2**70, ["files[1].size"]),
        (["files", 1, "size"], 10**6, ["files[1].size"]),
        (["files", 1, "sha256"], "ab" * 31, ["files[1].sha256"]),
        (["files", 2, "stop"], 999, ["files", "999", "1000"]),
    ],
)
def test_a_forged_manifest_is_refused_by_the_name_of_its_field(manifest, forge, path, value, words):
    data = forge(changed(content_of(manifest), path, value))
    with pytest.raises(UsageError) as error:
        decode_manifest(data, "run/manifest.json")
    assert_one_line_naming(error, "run/manifest.json: ", *words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"a": 1, "a": 2', ["'a' is repeated"]),
        ('{"step": ' + "[" * 40_000, ["not valid JSON"]),
        ('{"step": ' + "[" * 100_000, ["has more than 50000 values"]),
        ('{"step": ' + "9" * 10_000, ["not valid JSON"]),
        ('{"step": 1e999', ["step: ", "integer"]),
        ('{"x": {' + '"k": {' * 50 + "}" * 51, ["step: is missing"]),
        ("[1", ["not valid JSON"]),
        ("", ["not valid JSON"]),
        ('{"\ud7ff\x00": 1', ["not valid JSON"]),
    ],
)
def test_a_sealed_manifest_that_is_no_sound_json_is_refused(seal, body, words):
    with pytest.raises(UsageError) as error:
        decode_manifest(seal(body))
    assert_one_line_naming(error, *words)


def test_a_manifest_of_a_later_format_is_refused_as_that_whatever_its_fields(manifest, forge):
    content = {"format_version": 2, "steps": 250, "files": {"shards": 8}}
    with pytest.raises(UsageError, match=r"format_version: is 2; this program reads format 1$"):
        decode_manifest(forge(content))


def test_a_config_nested_without_end_is_refused(manifest, forge):
    content = content_of(manifest)
    for _ in range(40):
        content["config"] = {"deeper": content["config"]}
    with pytest.raises(UsageError, match=r"config\.deeper.*nested too deep"):
        decode_manifest(forge(content))


def test_a_manifest_over_16_mib_is_refused_unread():
    with pytest.raises(UsageError, match="larger than 16777216 bytes"):
        decode_manifest(b" " * (16 * 1024 * 1024 + 1))


@settings(max_examples=300)
@given(st.data())
def test_any_forged_value_is_refused_or_leaves_a_consistent_manifest(forge, data):
    content = content_of(EXAMPLE)
    path = data.draw(st.sampled_from(list(paths_in(content))))
    value = data.draw(st.just(MISSING) | JSON_VALUES)
    try:
        found = decode_manifest(forge(changed(content, path, value)))
    except UsageError as error:
        assert str(error).isprintable() and len(str(error)) < 500
    else:
        assert found.layout[-1].stop == found.files[-1].stop == P
        assert all(math.prod(tensor.shape) == tensor.stop - tensor.start for tensor in found.layout)
        assert decode_manifest(encode_manifest(found)) == found


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(data):
    with pytest.raises(UsageError):
        decode_manifest(data)


def test_values_that_json_would_change_are_refused_before_they_are_written(manifest):
    for config in ({"a": (1, 2)}, {1: 2}, {"a": b"x"}, {"a": math.nan}, {"a": object()}):
        with pytest.raises(UsageError, match=r"manifest\.json"):
            encode_manifest(manifest.model_copy(update={"config": config}))


def test_step_directories_have_one_name_each():
    assert step_directory_name(250) == "step-00000250"
    assert step_directory_name(123_456_789) == "step-123456789"
    assert [step_of(step_directory_name(step)) for step in (0, 250, 10**11)] == [0, 250, 10**11]
    for name in (
        "step-250",
        "step-0000000250",
        "step-00000250\n",
        "step-0000000\u0660",
        ".tmp-step-00000250-1",
        "latest",
    ):
        assert step_of(name) is None
