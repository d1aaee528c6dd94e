"""One shard file: a safetensors file that holds a range of every array of a checkpoint. Touches no disk.

A safetensors file is the header's length (8 bytes, little-endian), the header (JSON, padded with spaces),
then the tensors' bytes. Source: https://github.com/huggingface/safetensors, section "Format". The header is
made here, and not by the library, so that the arrays go to disk without a copy and are hashed on the way.
"""

import json
from collections.abc import Sequence

from feste_dp.checkpoint.schema import Fields, parse_json, refuse

FLOAT_BYTES = 4
HEADER_LIMIT_BYTES = 4096  # ours have some 200


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
    if int.from_bytes(data[:8], "little") != len(data) - 8:
        refuse(source, "header", "its length does not agree with the file's size")
    header = Fields(parse_json(data[8:], source), source, "header.")
    for name, expected in _expected_header(length, tensors).items():
        tensor = header.object(name)
        for key, value in expected.items():
            found = tensor.take(key)
            if found != value:
                tensor.refuse(key, f"must be {json.dumps(value)}")
        tensor.finish()
    header.finish()


def _expected_header(length: int, tensors: Sequence[str]) -> dict[str, dict[str, object]]:
    size = FLOAT_BYTES * length
    return {
        name: {"dtype": "F32", "shape": [length], "data_offsets": [size * i, size * (i + 1)]}
        for i, name in enumerate(tensors)
    }
