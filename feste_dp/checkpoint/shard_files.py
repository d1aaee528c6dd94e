"""Shard files as they go to the disk: hashed on the way, without a copy, and there when they are done."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.checkpoint.format import Arrays
from feste_dp.checkpoint.shards import encode_shard_header

CHUNK_BYTES = 16 * 1024 * 1024  # per chunk the writer thread asks for the interpreter's lock twice


def shard_chunks(arrays: Arrays, start: int, stop: int) -> Iterable[memoryview]:
    """The bytes of a shard file in order, none of them copied."""
    yield memoryview(encode_shard_header(stop - start, tuple(arrays)))
    for array in arrays.values():
        data = memoryview(array[start:stop].data).cast("B")
        for at in range(0, len(data), CHUNK_BYTES):
            yield data[at : at + CHUNK_BYTES]


def shard_digest(arrays: Arrays, start: int, stop: int) -> str:
    """SHA-256 of a shard file that holds these elements."""
    digest = hashlib.sha256()
    for chunk in shard_chunks(arrays, start, stop):
        digest.update(chunk)
    return digest.hexdigest()


def write_file(fs: Filesystem, path: Path, chunks: Iterable[memoryview]) -> tuple[int, str]:
    """Size and SHA-256 of the file, which is on disk when this returns."""
    size = 0
    digest = hashlib.sha256()
    descriptor = fs.create(path)
    try:
        for chunk in chunks:
            digest.update(chunk)  # hashing, writing and fsync all run without the interpreter's lock
            size += len(chunk)
            while chunk:
                chunk = chunk[fs.write(descriptor, chunk) :]
        fs.sync(descriptor)
    finally:
        fs.close(descriptor)
    return size, digest.hexdigest()
