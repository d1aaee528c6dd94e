"""Reads a checkpoint and believes nothing: sizes before memory, SHA-256 before meaning.

The order of the checks is what keeps a hostile file harmless: the manifest (limited in size, then its own
hash, then every field), the sizes of all files against the manifest, only then memory for the arrays, each
file's hash, and its header last.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from feste_dp.checkpoint.format import (
    MANIFEST_LIMIT_BYTES,
    MANIFEST_NAME,
    PARAMS,
    Arrays,
    Manifest,
    ShardFile,
    decode_manifest,
    step_of,
)
from feste_dp.checkpoint.shards import FLOAT_BYTES, check_shard_header
from feste_dp.errors import RunError, UsageError

CHUNK_BYTES = 4 * 1024 * 1024


def load_checkpoint(path: Path, *, out: Arrays | None = None) -> tuple[Manifest, Arrays]:
    """The verified manifest and arrays of the checkpoint directory `path`.

    The arrays are those of `out` where given (their content is undefined after an error), new ones otherwise.
    UsageError names the first damaged file.
    """
    manifest = read_manifest(path)
    for file in manifest.files:
        with _open_plain_file(path / file.name) as (_, size):
            _check_size(path, file, size)
    if out is None:
        out = _allocate(path, manifest)
    elif out[PARAMS].size != manifest.parameter_count:
        raise UsageError(
            f"{path}: holds {manifest.parameter_count} parameters where the model has {out[PARAMS].size}"
        )
    elif tuple(out) != manifest.tensors:
        raise UsageError(
            f"{path}: holds {', '.join(manifest.tensors)} where the optimizer has {', '.join(out)}: "
            "it was saved with another optimizer"
        )
    for file in manifest.files:
        ranges = [out[name][file.start : file.stop] for name in manifest.tensors]
        _read_shard(path, file, manifest.tensors, [memoryview(values.data).cast("B") for values in ranges])
    return manifest, out


def verify_checkpoint(path: Path) -> list[str]:
    """One line per damaged file of the checkpoint, empty when it is whole. Needs little memory."""
    try:
        manifest = read_manifest(path)
    except UsageError as error:
        return [str(error)]
    problems = []
    for file in manifest.files:
        try:
            _read_shard(path, file, manifest.tensors, None)
        except UsageError as error:
            problems.append(str(error))
    return problems


def read_manifest(path: Path) -> Manifest:
    """The checked manifest of the checkpoint directory `path`; the shard files are not looked at."""
    if not path.is_dir():
        raise UsageError(f"{path}: is not a checkpoint directory")
    source = path / MANIFEST_NAME
    with _open_plain_file(source) as (descriptor, size):
        if size > MANIFEST_LIMIT_BYTES:
            raise UsageError(f"{source}: has {size} bytes, more than a manifest may have")
        data = bytearray(size)
        _read_into(descriptor, memoryview(data), source)
    manifest = decode_manifest(bytes(data), str(source))
    named_step = step_of(path.resolve().name)
    if named_step is not None and named_step != manifest.step:
        raise UsageError(f"{source}: step: is {manifest.step} where the directory's name says {named_step}")
    return manifest


def _allocate(path: Path, manifest: Manifest) -> Arrays:
    try:
        return {name: np.empty(manifest.parameter_count, np.float32) for name in manifest.tensors}
    except MemoryError:
        needed = manifest.array_bytes
        raise RunError(f"{path}: needs {needed / 1e9:.1f} GB of memory, more than there is") from None


def _read_shard(
    path: Path, file: ShardFile, tensors: Sequence[str], into: Sequence[memoryview] | None
) -> None:
    """Reads and verifies one file; its tensors end up in `into`, or nowhere."""
    source = path / file.name
    length = file.stop - file.start
    size_of_numbers = length * FLOAT_BYTES * len(tensors)
    digest = hashlib.sha256()
    header = bytearray(file.size - size_of_numbers)
    with _open_plain_file(source) as (descriptor, size):
        _check_size(path, file, size)
        _read_into(descriptor, memoryview(header), source)
        digest.update(header)
        for chunk in _pieces(into, size_of_numbers):
            _read_into(descriptor, chunk, source)
            digest.update(chunk)
    if digest.hexdigest() != file.sha256:
        raise UsageError(f"{source}: does not match its SHA-256 in {MANIFEST_NAME}: it is damaged")
    check_shard_header(bytes(header), length, tensors, str(source))


def _pieces(into: Sequence[memoryview] | None, size: int) -> Iterator[memoryview]:
    """Where the next bytes go, piece by piece: into the given buffers, or all over one small one."""
    if into is None:
        scratch = memoryview(bytearray(min(size, CHUNK_BYTES)))
        for at in range(0, size, CHUNK_BYTES):
            yield scratch[: min(CHUNK_BYTES, size - at)]
        return
    for data in into:
        for at in range(0, len(data), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES]


def _check_size(path: Path, file: ShardFile, size: int) -> None:
    if size != file.size:
        raise UsageError(f"{path / file.name}: has {size} bytes where {MANIFEST_NAME} says {file.size}")


@contextlib.contextmanager
def _open_plain_file(path: Path) -> Iterator[tuple[int, int]]:
    """Descriptor and size. Never follows a link or waits for a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise UsageError(f"{path}: is missing") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: is not a plain file")
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def _read_into(descriptor: int, data: memoryview, source: Path) -> None:
    while data:
        try:
            count = os.readv(descriptor, [data])
        except OSError as error:
            raise UsageError(f"{source}: cannot be read: {error.strerror}") from None
        if count == 0:
            raise UsageError(f"{source}: ends {len(data)} bytes too early")
        data = data[count:]
