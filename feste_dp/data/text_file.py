"""One text, read piece by piece as often as it is needed, so that its size takes no memory.

A file is UTF-8, whatever its line ends; a byte order mark in front is dropped. What is no UTF-8 text is named
for what it is. Knows nothing of tokens.
"""

import codecs
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from feste_dp.errors import UsageError
from feste_dp.files.reading import NotPlainFileError, open_plain

_PIECE_BYTES = 2**20
_BOM = codecs.BOM_UTF8
_MAGIC = (
    (b"\x1f\x8b", "compressed (gzip): unpack it first, with gunzip"),
    (b"\xfd7zXZ\0", "compressed (xz): unpack it first, with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd): unpack it first, with unzstd"),
    (b"BZh", "compressed (bzip2): unpack it first, with bunzip2"),
    (b"PK\x03\x04", "a zip archive: unpack it first, with unzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"%PDF-", "a PDF: extract its text first, with pdftotext"),
    (codecs.BOM_UTF32_LE, "UTF-32: convert it, with iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF32_BE, "UTF-32: convert it, with iconv -f UTF-32 -t UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16: convert it, with iconv -f UTF-16 -t UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16: convert it, with iconv -f UTF-16 -t UTF-8"),
)


@dataclass(frozen=True)
class Text:
    """What is known of a text that was read once, and how to read it again."""

    name: str
    size: int
    """UTF-8 bytes, without a byte order mark"""
    characters: int
    sha256: str
    """Of these bytes"""
    ends_line: bool
    pieces: Callable[[], Iterator[str]]
    """Reads it from its start; UsageError where it is not the same text any more"""
    excerpt: Callable[[int, int], str]
    """(first byte, bytes) -> about that part of it, to estimate by"""


def text_in_memory(name: str, text: str) -> Text:
    """A text that is there already."""
    content = text.encode()
    return Text(
        name,
        len(content),
        len(text),
        hashlib.sha256(content).hexdigest(),
        text.endswith("\n"),
        lambda: iter([text] if text else []),
        lambda start, size: content[start : start + size].decode(errors="ignore"),
    )


def survey(path: Path) -> Text:
    """Reads the file once. UsageError: missing, no regular file, unreadable, empty, not UTF-8 text."""
    digest = hashlib.sha256()
    size = characters = 0
    last = ""
    for piece in _pieces(path):
        content = piece.encode()
        digest.update(content)
        size, characters, last = size + len(content), characters + len(piece), piece[-1]
    if not size:
        raise UsageError(f"text file {path} is empty: name a file that holds text")
    sha256 = digest.hexdigest()
    return Text(
        str(path),
        size,
        characters,
        sha256,
        last == "\n",
        partial(_again, path, sha256),
        partial(_excerpt, path),
    )


def _again(path: Path, sha256: str) -> Iterator[str]:
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece.encode())
        yield piece
    if digest.hexdigest() != sha256:
        raise UsageError(f"text file {path} changed while it was read: try again when it is complete")


def _excerpt(path: Path, start: int, size: int) -> str:
    fd = _open(path)
    try:
        return os.pread(fd, size, start).decode(errors="ignore")
    finally:
        os.close(fd)


def _pieces(path: Path) -> Iterator[str]:
    """The decoded text, never an empty piece."""
    fd = _open(path)
    try:
        decoder = codecs.getincrementaldecoder("utf-8")()
        head, at, ended = b"", 0, False
        while not ended:
            block = _read(fd, path)
            ended = not block
            if not at:
                head = block[:4096]
                if block.startswith(_BOM):
                    block, at = block[len(_BOM) :], len(_BOM)
            pending = len(decoder.getstate()[0])
            nul = block.find(b"\0")
            if nul >= 0:
                raise UsageError(f"text file {path} is {_named(head) or _binary(at + nul)}")
            try:
                piece = decoder.decode(block, final=ended)
            except UnicodeDecodeError as error:
                what = _named(head) or _not_utf8(error, at - pending)
                raise UsageError(f"text file {path} is {what}") from None
            if piece:
                yield piece
            at += len(block)
    finally:
        os.close(fd)


def _read(fd: int, path: Path) -> bytes:
    try:
        return os.read(fd, _PIECE_BYTES)
    except OSError as error:
        raise UsageError(f"text file {path} cannot be read: {error.strerror}") from error


def _open(path: Path) -> int:
    try:
        return open_plain(path, follow_links=True)
    except FileNotFoundError:
        raise UsageError(f"text file {path} does not exist: check the name") from None
    except NotPlainFileError as error:
        raise UsageError(f"text file {path} cannot be read: {error.strerror}: name a file on disk") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"text file {path} cannot be read: {reason}") from error


def _named(head: bytes) -> str | None:
    """What a file that is no UTF-8 is, by how it begins."""
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    even, odd = head[::2].count(0), head[1::2].count(0)
    if len(head) >= 8 and max(even, odd) > len(head) // 3 and not min(even, odd):
        order = "LE" if odd > even else "BE"
        return f"UTF-16 without a byte order mark, it seems: convert it, with iconv -f UTF-16{order} -t UTF-8"
    return None


def _binary(offset: int) -> str:
    return f"binary (a NUL byte at offset {offset}): only UTF-8 text can be read"


def _not_utf8(error: UnicodeDecodeError, before: int) -> str:
    return (
        f"not UTF-8 (bad byte 0x{error.object[error.start]:02x} at offset {before + error.start}):"
        " convert it to UTF-8"
    )
