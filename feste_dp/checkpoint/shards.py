"""One shard file: a safetensors file that holds a range of every array of a checkpoint. Touches no disk.

A safetensors file is the header's length (8 bytes, little-endian), the header (JSON, padded with spaces),
then the tensors' bytes. Source: https://github.com/huggingface/safetensors, section "Format". The header is
made here, and not by the library, so that the arrays go to disk without a copy and are hashed on the way.
"""

import json
from collections.abc import Iterator, Sequence

from feste_dp.errors import UsageError, on_one_line
from feste_dp.files.untrusted_json import parse_object

FLOAT_BYTES = 4
HEADER_LIMIT_BYTES = 4096  # ours have some 200
FILE_COUNT = 8
"""Of a checkpoint, whoever writes it."""


def shard_name(index: int, count: int) -> str:
    return f"shard-{index:02d}-of-{count:02d}.safetensors"


def split_evenly(parameter_count: int, file_count: int) -> list[tuple[int, int]]:
    """Ranges (start, stop) that cover [0, parameter_count): file_count of them, fewer if some were empty."""
    count = min(file_count, parameter_count)
    return [(parameter_count * i // count, parameter_count * (i + 1) // count) for i in range(count)]


def encode_shard_header(length: int, tensors: Sequence[str]) -> bytes:
    """The bytes before the numbers, for tensors of `length` elements each; those start 8-byte aligned."""
    header = json.dumps(_expected_header(length, tensors), separators=(",", ":")).encode("ascii")
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def check_shard_header(data: bytes, length: int, tensors: Sequence[str], source: str) -> None:
    """UsageError unless `data`, all before the numbers, describes just these tensors of `length` elements."""
    source += ": header"
    if int.from_bytes(data[:8], "little") != len(data) - 8:
        raise UsageError(f"{source}: its length does not agree with the file's size")
    header = parse_object(data[8:], source)
    for field, reason in _differences(header, _expected_header(length, tensors)):
        raise UsageError(f"{source}{on_one_line(field)[:200]}: {reason}")


def _differences(found: object, expected: object, field: str = "") -> Iterator[tuple[str, str]]:
    """Names of fields, each after a dot, and what they must be."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name, value in expected.items():
            if name in found:
                yield from _differences(found[name], value, f"{field}.{name}")
            else:
                yield f"{field}.{name}", "is missing"
        for name in found.keys() - expected.keys():
            yield f"{field}.{name}", "is not a known field"
    elif found != expected:
        yield field, f"must be {json.dumps(expected)}"


def _expected_header(length: int, tensors: Sequence[str]) -> dict[str, dict[str, object]]:
    size = FLOAT_BYTES * length
    return {
        name: {"dtype": "F32", "shape": [length], "data_offsets": [size * i, size * (i + 1)]}
        for i, name in enumerate(tensors)
    }
