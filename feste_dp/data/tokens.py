"""The token files of a corpus: tokens.bin, tokenizer.json, meta.json. Owns their format; knows no cache.

tokens.bin holds the training tokens, then the validation tokens: little-endian uint16, or uint32 for a
vocabulary above 65536. meta.json says how many of each, and the SHA-256 of both other files.
"""

import hashlib
import json
import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer
from feste_dp.data.tokenizer_file import MAX_TOKENIZER_BYTES
from feste_dp.errors import UsageError
from feste_dp.files.marks import JSON_MARKS, too_many_marks
from feste_dp.files.reading import open_plain
from feste_dp.files.untrusted_json import ITEM_LIMIT, first_problem
from feste_dp.wording import command

FORMAT_VERSION = 1
META_FILE, TOKENS_FILE, TOKENIZER_FILE = "meta.json", "tokens.bin", "tokenizer.json"
MAX_META_BYTES = 2**20
MAX_SOURCES = 1000  # more are one entry
CHUNK = 2**22  # elements or bytes looked at in one go

Count = Annotated[int, Field(ge=0, le=2**48)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A plain name: no path, no control character.
FileName = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^/\\\x00-\x1f\x7f]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Source(_Strict):
    """One text file that went in."""

    name: FileName
    bytes: Count
    sha256: Sha256


class Split(_Strict):
    """Size of the training or the validation part, in tokens and in UTF-8 bytes (for bits per byte)."""

    tokens: Count
    bytes: Count


class TokenMeta(_Strict):
    """The content of meta.json."""

    format_version: Annotated[int, Field(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
    dtype: Literal["uint16", "uint32"]
    vocab_size: Annotated[int, Field(ge=1, le=2**32)]
    train: Split
    val: Split
    sources: list[Source]
    tokens_sha256: Sha256
    tokenizer_sha256: Sha256


@dataclass(frozen=True, eq=False)
class TokenData:
    """Token files opened read-only: nothing is read until a slice is taken."""

    directory: Path
    train: npt.NDArray[Any]
    """(train tokens,) memory-mapped uint16 or uint32"""
    val: npt.NDArray[Any]
    """(validation tokens,) memory-mapped uint16 or uint32"""
    vocab_size: int
    fingerprint: str
    """SHA-256 of tokens.bin"""
    tokenizer_sha256: str
    train_bytes: int
    val_bytes: int
    """UTF-8 bytes of each part: bits per byte = loss / ln 2 * tokens / bytes"""
    sources: tuple[Source, ...] = ()
    """The text files that went in, in order"""

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json that made the tokens."""
        return self.directory / TOKENIZER_FILE


def open_token_data(directory: Path, verify: bool = False) -> TokenData:
    """The token data of a folder that prepare made.

    Every field of meta.json is checked against the real files before anything is mapped. With verify, both
    files are hashed, the tokenizer is read and every token id is checked too. UsageError when something does
    not fit.
    """
    meta = _read_meta(directory / META_FILE)
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    if meta.vocab_size > 2 ** (8 * dtype.itemsize):
        raise _damaged(directory / META_FILE, f"vocab_size {meta.vocab_size} does not fit {meta.dtype}")
    count = meta.train.tokens + meta.val.tokens
    if count == 0:
        raise _damaged(directory / META_FILE, "it promises no tokens")
    path = directory / TOKENS_FILE
    size = _file_size(path)
    if size != count * dtype.itemsize:
        raise _damaged(path, f"it has {size} bytes, {META_FILE} promises {count * dtype.itemsize}")
    tokenizer_size = _file_size(directory / TOKENIZER_FILE)
    if tokenizer_size > MAX_TOKENIZER_BYTES:
        raise _damaged(
            directory / TOKENIZER_FILE, f"it has {tokenizer_size} bytes, limit {MAX_TOKENIZER_BYTES}"
        )
    try:
        tokens = np.memmap(path, dtype=dtype, mode="r", shape=(count,))
        if verify:
            _verify(directory, meta, tokens)
    except OSError as error:
        raise UsageError(f"token data in {directory} cannot be read: {error.strerror}") from error
    return _token_data(directory, meta, tokens)


def _token_data(directory: Path, meta: TokenMeta, tokens: npt.NDArray[Any]) -> TokenData:
    return TokenData(
        directory=directory,
        train=tokens[: meta.train.tokens],
        val=tokens[meta.train.tokens :],
        vocab_size=meta.vocab_size,
        fingerprint=meta.tokens_sha256,
        tokenizer_sha256=meta.tokenizer_sha256,
        train_bytes=meta.train.bytes,
        val_bytes=meta.val.bytes,
        sources=tuple(meta.sources),
    )


class HeldTokens(_Strict):
    """An open tokens.bin that a process hands to those it starts: whatever becomes of the folder, they map
    the same tokens."""

    fd: int
    directory: str
    meta: TokenMeta


def hold_tokens(directory: Path) -> HeldTokens:
    """Raises OSError, UsageError. Close its fd."""
    meta = _read_meta(directory / META_FILE).model_copy(update={"sources": []})  # which may be thousands
    fd = open_plain(directory / TOKENS_FILE, follow_links=True)
    return HeldTokens(fd=fd, directory=str(directory), meta=meta)


def held_token_data(held: HeldTokens) -> TokenData:
    """As open_token_data, of held tokens. Raises UsageError where the file has been cut since."""
    meta = held.meta
    count = meta.train.tokens + meta.val.tokens
    dtype = np.dtype(meta.dtype).newbyteorder("<")
    try:
        content = mmap.mmap(held.fd, count * dtype.itemsize, access=mmap.ACCESS_READ)
    except ValueError:
        raise _damaged(Path(held.directory) / TOKENS_FILE, "it has been cut") from None
    return _token_data(Path(held.directory), meta, np.frombuffer(content, dtype))


def token_dtype(vocab_size: int) -> Literal["uint16", "uint32"]:
    """The type of a stored token."""
    return "uint16" if vocab_size <= 2**16 else "uint32"


def write_token_files(
    directory: Path,
    tokenizer: ByteTokenizer,
    train: npt.NDArray[Any],
    val: npt.NDArray[Any],
    train_bytes: int,
    val_bytes: int,
    sources: list[Source],
) -> None:
    """Writes and fsyncs the three files into an existing folder: the same bytes for the same input."""
    dtype = token_dtype(tokenizer.vocab_size)
    digest = hashlib.sha256()
    with (directory / TOKENS_FILE).open("xb") as file:
        for part in (train, val):
            check_token_ids(part, tokenizer.vocab_size, "prepared tokens")
            for start in range(0, len(part), CHUNK):
                content = part[start : start + CHUNK].astype(np.dtype(dtype).newbyteorder("<")).tobytes()
                digest.update(content)
                file.write(content)
        file.flush()
        os.fsync(file.fileno())
    tokenizer_content = tokenizer.to_json()
    meta = TokenMeta(
        format_version=FORMAT_VERSION,
        dtype=dtype,
        vocab_size=tokenizer.vocab_size,
        train=Split(tokens=len(train), bytes=train_bytes),
        val=Split(tokens=len(val), bytes=val_bytes),
        sources=sources if len(sources) <= MAX_SOURCES else [_all_in_one(sources)],
        tokens_sha256=digest.hexdigest(),
        tokenizer_sha256=hashlib.sha256(tokenizer_content).hexdigest(),
    )
    meta_content = json.dumps(meta.model_dump(), indent=1).encode("ascii") + b"\n"
    if len(tokenizer_content) > MAX_TOKENIZER_BYTES:
        raise UsageError(f"a vocabulary of {tokenizer.vocab_size} is too large: set model.vocab_size lower")
    for name, data in ((TOKENIZER_FILE, tokenizer_content), (META_FILE, meta_content)):
        with (directory / name).open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _all_in_one(sources: list[Source]) -> Source:
    """One entry for more files than meta.json lists."""
    digest = hashlib.sha256(json.dumps([source.model_dump() for source in sources]).encode())
    size = sum(source.bytes for source in sources)
    return Source(name=f"{len(sources)} files", bytes=size, sha256=digest.hexdigest())


def check_token_ids(tokens: npt.NDArray[Any], vocab_size: int, name: str) -> None:
    """UsageError when an id is outside the vocabulary. Looks at a chunk at a time: no copy of the file."""
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        highest = int(chunk.max())
        if highest >= vocab_size:
            where = start + int(chunk.argmax())
            raise UsageError(
                f"{name}: token {where} is {highest}, the vocabulary has {vocab_size}: prepare again"
            )


def _read_meta(path: Path) -> TokenMeta:
    size = _file_size(path)
    if size > MAX_META_BYTES:
        raise _damaged(path, f"it has {size} bytes, limit {MAX_META_BYTES}")
    try:
        content = path.read_bytes()
        if too_many_marks(content, JSON_MARKS, ITEM_LIMIT):
            raise _damaged(path, f"it has more than {ITEM_LIMIT} values")
        return TokenMeta.model_validate_json(content)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise _damaged(path, first_problem(error)) from None


def _file_size(path: Path) -> int:
    try:
        if not path.is_file():
            raise UsageError(
                f"token data is incomplete: {path} does not exist (make it with {command('prepare')})"
            )
        return path.stat().st_size
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _verify(directory: Path, meta: TokenMeta, tokens: npt.NDArray[Any]) -> None:
    for name, expected in ((TOKENS_FILE, meta.tokens_sha256), (TOKENIZER_FILE, meta.tokenizer_sha256)):
        with (directory / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise _damaged(directory / name, f"its SHA-256 is not the one in {META_FILE}")
    vocab_size = load_tokenizer(directory / TOKENIZER_FILE).vocab_size
    if vocab_size != meta.vocab_size:
        raise _damaged(
            directory / META_FILE, f"vocab_size is {meta.vocab_size}, the tokenizer has {vocab_size}"
        )
    check_token_ids(tokens, meta.vocab_size, str(directory / TOKENS_FILE))


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path} is damaged: {reason} (make it again with {command('prepare')})")
