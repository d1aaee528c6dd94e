import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.checkpoint.shards import check_shard_header, encode_shard_header, shard_name, split_evenly
from feste_dp.errors import UsageError
from tests.checkpoint.conftest import TENSORS


def header_of(content) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return len(text).to_bytes(8, "little") + text


def tensors(length, **changes):
    content = json.loads(encode_shard_header(length, TENSORS)[8:])
    for name, change in changes.items():
        content[name] = content[name] | change
    return content


@given(st.integers(1, 10_000), st.integers(1, 99))
def test_ranges_cover_everything_evenly_and_none_is_empty(parameter_count, file_count):
    ranges = split_evenly(parameter_count, file_count)
    assert ranges[0][0] == 0 and ranges[-1][1] == parameter_count
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(ranges))
    lengths = [stop - start for start, stop in ranges]
    assert min(lengths) >= 1 and max(lengths) - min(lengths) <= 1
    assert len(ranges) == min(file_count, parameter_count)


def test_shard_files_are_named_by_place_and_count():
    assert shard_name(0, 8) == "shard-00-of-08.safetensors"


@given(st.integers(1, 2**40))
def test_a_header_is_accepted_for_its_own_length_only_and_keeps_numbers_aligned(length):
    header = encode_shard_header(length, TENSORS)
    assert len(header) % 8 == 0
    check_shard_header(header, length, TENSORS, "x")
    with pytest.raises(UsageError):
        check_shard_header(header, length + 1, TENSORS, "x")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (tensors(10, m={"dtype": "F16"}), "header.m.dtype"),
        (tensors(10, m={"shape": [2, 5]}), "header.m.shape"),
        (tensors(10, m={"shape": [10**15]}), "header.m.shape"),
        (tensors(10, v={"data_offsets": [80, 2**63]}), "header.v.data_offsets"),
        (tensors(10, v={"data_offsets": [0, 40]}), "header.v.data_offsets"),
        (tensors(10, params={"data_offsets": [-40, 0]}), "header.params.data_offsets"),
        (tensors(10, params={"more": 1}), "header.params.more"),
        (tensors(10) | {"../../x": {}}, "header.../../x"),
        (tensors(10) | {"__metadata__": {}}, "header.__metadata__"),
        ({"params": {}}, "header.params.dtype"),
        ({}, "header.params: is missing"),
        ([], "header"),
        (b"{" * 4000, "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"", "JSON"),
    ],
)
def test_a_hostile_header_is_refused_by_the_name_of_its_field(content, field):
    with pytest.raises(UsageError) as error:
        check_shard_header(header_of(content), 10, TENSORS, "dir/shard-00-of-01.safetensors")
    assert str(error.value).startswith("dir/shard-00-of-01.safetensors: ")
    assert field in str(error.value) and str(error.value).isprintable()


def test_a_header_length_that_lies_is_refused():
    header = encode_shard_header(10, TENSORS)
    for length in (0, len(header), 2**63, 2**64 - 1):
        with pytest.raises(UsageError, match="header: its length"):
            check_shard_header(length.to_bytes(8, "little") + header[8:], 10, TENSORS, "x")


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_header_byte_never_changes_what_is_read(at, value):
    header = bytearray(encode_shard_header(10, TENSORS))
    header[at % len(header)] = value
    try:
        check_shard_header(bytes(header), 10, TENSORS, "x")
    except UsageError as error:
        assert str(error).isprintable()
    else:  # only white space may differ
        assert json.loads(header[8:]) == json.loads(encode_shard_header(10, TENSORS)[8:])


@given(st.binary(max_size=100))
def test_random_headers_are_refused(data):
    with pytest.raises(UsageError):
        check_shard_header(data, 10, TENSORS, "x")
