"""Reads and writes a .safetensors file: https://huggingface.co/docs/safetensors. Knows no model.

The header is a JSON table of names, types, shapes and places, behind its length in 8 bytes. It may come from
anybody: its length is limited, every entry is held against the size of the file, and nothing is mapped.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from feste_dp.errors import UsageError
from feste_dp.files.reading import open_plain
from feste_dp.files.untrusted_json import parse_object
from feste_dp.files.writing import write_all

MAX_HEADER_BYTES = 16 * 2**20
MAX_HEADER_ITEMS = 500_000
CHUNK = 2**22  # numbers turned into float32 at a time
_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
_NUMBERS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and how."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Byte of the file"""

    @property
    def size(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Every tensor of the file by its name. UsageError where it is missing, or not such a file."""
    try:
        fd = open_plain(path, follow_links=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    try:
        size = os.fstat(fd).st_size
        length = int.from_bytes(os.pread(fd, 8, 0), "little")
        if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
            raise _damaged(path, "its header does not fit into it")
        header = os.pread(fd, length, 8)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    document = parse_object(header, f"{path}: its header", MAX_HEADER_ITEMS)
    found, at = {}, 0
    entries = [(name, entry) for name, entry in document.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda item: _first_byte(item[1])):
        shape, dtype, offsets = _fields_of(entry)
        if shape is None or dtype not in _SIZES or offsets is None:
            raise _damaged(path, f"its entry of {name!r} is none of a tensor")
        if offsets != [at, at + math.prod(shape) * _SIZES[dtype]]:
            raise _damaged(path, f"{name!r} is not where its size says")
        found[name] = StoredTensor(path, name, dtype, tuple(shape), 8 + length + at)
        at = offsets[1]
    if 8 + length + at != size:
        raise _damaged(path, f"it has {size} bytes where its header promises {8 + length + at}")
    return found


def read_tensor(tensor: StoredTensor, into: npt.NDArray[np.float32]) -> None:
    """Fills `into`, a contiguous array of as many numbers, from any type of floats. UsageError: another
    type, numbers that are not finite, a file that was cut."""
    if tensor.dtype not in _NUMBERS:
        raise UsageError(
            f"{tensor.path}: {tensor.name} is {tensor.dtype}: only F32, F16, BF16 and F64 are read"
        )
    flat, stored = into.reshape(-1), np.dtype(_NUMBERS[tensor.dtype])
    assert flat.size == tensor.size and np.shares_memory(flat, into)
    try:
        fd = open_plain(tensor.path, follow_links=True)
        try:
            for first in range(0, flat.size, CHUNK):
                part = flat[first : first + CHUNK]
                raw = os.pread(fd, part.size * stored.itemsize, tensor.start + first * stored.itemsize)
                if len(raw) != part.size * stored.itemsize:
                    raise _damaged(tensor.path, "it has been cut")
                values = np.frombuffer(raw, stored)
                if tensor.dtype == "BF16":
                    part[:] = (values.astype(np.uint32) << 16).view(np.float32)
                else:
                    with np.errstate(over="ignore"):
                        part[:] = values
                if not np.isfinite(part).all():
                    raise UsageError(f"{tensor.path}: {tensor.name} has NaN, infinite or too large numbers")
        finally:
            os.close(fd)
    except OSError as error:
        raise UsageError(f"{tensor.path} cannot be read: {error.strerror}") from None


def write_tensors(path: Path, tensors: Iterable[tuple[str, npt.NDArray[np.float32]]]) -> None:
    """A new file of float32 tensors, fsynced. Raises OSError."""
    named = list(tensors)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # without which transformers refuses it
    at = 0
    for name, array in named:
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, len(text).to_bytes(8, "little") + text)
        for _, array in named:
            write_all(fd, np.ascontiguousarray(array, "<f4").reshape(-1).view(np.uint8).data)
        os.fsync(fd)
    finally:
        os.close(fd)


def _first_byte(entry: Any) -> int:
    offsets = _fields_of(entry)[2]
    return -1 if offsets is None else offsets[0]


def _fields_of(entry: Any) -> tuple[list[int] | None, str, list[int] | None]:
    """Shape, type and place; None for what is none."""
    fields: Mapping[str, Any] = entry if isinstance(entry, dict) else {}
    shape, dtype, offsets = fields.get("shape"), fields.get("dtype"), fields.get("data_offsets")
    return (
        shape if _are_sizes(shape) and len(shape) <= 8 else None,
        dtype if isinstance(dtype, str) else "",
        offsets if _are_sizes(offsets) and len(offsets) == 2 else None,
    )


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and 0 <= each < 2**48 for each in value)


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path} is no whole safetensors file: {ascii(reason)[1:-1][:200]}")
