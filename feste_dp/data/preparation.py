"""From text files to token data on disk, whole or not at all; keeps a cache by content for `launch`.

Knows the files of a corpus and where they are cached. Knows nothing of configs: it is handed plain values.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feste_dp.data.corpus import read_shakespeare, read_texts
from feste_dp.data.tokenizer import ByteTokenizer, train_tokenizer
from feste_dp.data.tokens import META_FILE, Source, TokenData, open_token_data, write_token_files
from feste_dp.errors import UsageError
from feste_dp.files.temporary import is_alive

SHAKESPEARE = "shakespeare"
# Part of the cache key: raise it when the same text would give other tokens.
PREPARATION_VERSION = 1

Texts = Sequence[tuple[str, str]]
"""(file name, text) of every source, in order"""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Token data in memory, before anything is written."""

    tokenizer: ByteTokenizer
    train: npt.NDArray[np.uint32]
    val: npt.NDArray[np.uint32]
    train_bytes: int
    val_bytes: int
    sources: list[Source]


def prepare_token_data(texts: Texts, vocab_size: int, val_fraction: float, out: Path) -> TokenData:
    """Writes token data into the folder `out`, which appears whole or not at all.

    The last val_fraction of the joined text, from the start of a line, is for validation; the tokenizer is
    trained on what comes before. UsageError when `out` is not new or empty, or the text does not do.
    """
    try:
        if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
            raise UsageError(f"output folder {out} exists and is not empty: name a new one")
        prepared = _prepare(texts, vocab_size, val_fraction)
        if not _commit(prepared, out):
            raise UsageError(f"output folder {out} was filled by another process: name a new one")
    except OSError as error:
        raise UsageError(f"cannot write token data to {out}: {error.strerror}") from error
    return open_token_data(out)


def prepare_for_run(
    corpus: str | list[str],
    vocab_size: int,
    val_fraction: float,
    block_size: int,
    cache_root: Path,
    memory: int | None = None,
) -> TokenData:
    """The token data a run asks for, made and cached on first use.

    corpus is "shakespeare", a folder with meta.json (opened as it is), a folder of .txt files, or text files.
    UsageError when a part is shorter than block_size + 1 tokens, or the text needs more than `memory` bytes
    to be prepared; then nothing has been written.
    """
    if isinstance(corpus, str) and _holds_token_data(corpus):
        data = open_token_data(Path(corpus), verify=True)
        if data.vocab_size != vocab_size:
            raise UsageError(
                f"token data in {corpus} has a vocabulary of {data.vocab_size}, model.vocab_size is"
                f" {vocab_size}: set model.vocab_size to {data.vocab_size}"
            )
        _check_lengths(len(data.train), len(data.val), block_size)
        return data
    name, texts = _read_corpus(corpus, memory)
    key = _content_key(texts, vocab_size, val_fraction)
    target = cache_root / "corpora" / f"{name}-v{vocab_size}-{key[:16]}"
    cached = _open_cached(target, vocab_size)
    if cached is None:
        prepared = _prepare(texts, vocab_size, val_fraction)
        _check_lengths(len(prepared.train), len(prepared.val), block_size)
        try:
            cached = _fill_cache(prepared, target)
        except OSError as error:
            raise UsageError(
                f"cannot write the token cache {target}: {error.strerror}"
                " (set FESTE_DP_CACHE to a folder you can write to)"
            ) from error
    _check_lengths(len(cached.train), len(cached.val), block_size)
    return cached


def _prepare(texts: Texts, vocab_size: int, val_fraction: float) -> _Prepared:
    if not 0 < val_fraction < 1:
        raise UsageError(f"data.val_fraction is {val_fraction}: set it between 0 and 1")
    text = "".join(text if text.endswith("\n") else text + "\n" for _, text in texts)
    cut = _split_position(text, val_fraction)
    train_text, val_text = text[:cut], text[cut:]
    tokenizer = train_tokenizer(train_text, vocab_size)
    return _Prepared(
        tokenizer=tokenizer,
        train=tokenizer.encode(train_text),
        val=tokenizer.encode(val_text),
        train_bytes=len(train_text.encode("utf-8")),
        val_bytes=len(val_text.encode("utf-8")),
        sources=[_describe(name, text) for name, text in texts],
    )


def _split_position(text: str, val_fraction: float) -> int:
    """Where validation starts: the start of the line that holds the character at 1 - val_fraction."""
    position = int(len(text) * (1 - val_fraction))
    return text.rfind("\n", 0, position) + 1 or position


def _describe(name: str, text: str) -> Source:
    content = text.encode("utf-8")
    plain = re.sub(r"[/\\\x00-\x1f\x7f]", "_", Path(name).name.encode("utf-8", "replace").decode())[-255:]
    return Source(name=plain or "text", bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _read_corpus(corpus: str | list[str], memory: int | None) -> tuple[str, Texts]:
    """A short name for the cache, and the texts."""
    if corpus == SHAKESPEARE:
        return SHAKESPEARE, [("shakespeare.txt", read_shakespeare())]
    paths = [Path(path) for path in ([corpus] if isinstance(corpus, str) else corpus)]
    try:
        if isinstance(corpus, str) and paths[0].is_dir():
            paths = sorted(path for path in paths[0].iterdir() if path.suffix == ".txt" and path.is_file())
    except OSError as error:
        raise UsageError(f"data.corpus {corpus} cannot be read: {error.strerror}") from error
    if not paths:
        raise UsageError(f"data.corpus {corpus!r} holds no .txt files and no {META_FILE}: name text files")
    texts = [(path.name, text) for path, text in zip(paths, read_texts(paths, memory), strict=True)]
    stem = Path(corpus).name if isinstance(corpus, str) else paths[0].stem
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:40].strip("-") or "text", texts


def _holds_token_data(corpus: str) -> bool:
    try:
        return corpus != SHAKESPEARE and (Path(corpus) / META_FILE).exists()
    except OSError:
        return False  # _read_corpus says why


def _content_key(texts: Texts, vocab_size: int, val_fraction: float) -> str:
    sources = [_describe(name, text).model_dump() for name, text in texts]
    key = [PREPARATION_VERSION, vocab_size, repr(float(val_fraction)), sources]
    return hashlib.sha256(json.dumps(key).encode("utf-8")).hexdigest()


def _check_lengths(train_tokens: int, val_tokens: int, block_size: int) -> None:
    for part, count, advice in (
        ("training", train_tokens, "give more text or lower model.block_size"),
        ("validation", val_tokens, "raise data.val_fraction, give more text or lower model.block_size"),
    ):
        if count < block_size + 1:
            raise UsageError(
                f"the {part} text has {count} tokens, fewer than model.block_size + 1 = {block_size + 1}:"
                f" {advice}"
            )


def _open_cached(target: Path, vocab_size: int) -> TokenData | None:
    """The cached data, or None when it is missing or damaged."""
    try:
        data = open_token_data(target, verify=True)
    except UsageError:
        return None
    return data if data.vocab_size == vocab_size else None


def _fill_cache(prepared: _Prepared, target: Path) -> TokenData:
    """Puts the data at target; whoever comes second opens what the first one wrote."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / f".{target.name}.lock"):
        cached = _open_cached(target, prepared.tokenizer.vocab_size)
        if cached is not None:
            return cached
        if target.exists():  # damaged: moved aside first, so that the name never stands for half a folder
            aside = _sibling(target)
            target.rename(aside)
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
        _commit(prepared, target)  # refused only where locks do not work and another process was first
    return open_token_data(target, verify=True)


def _commit(prepared: _Prepared, target: Path) -> bool:
    """Writes beside, fsyncs, renames. False, and nothing left behind, when the name was taken."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_dead_siblings(target)
    beside = _sibling(target)
    try:
        beside.mkdir()
        write_token_files(
            beside,
            tokenizer=prepared.tokenizer,
            train=prepared.train,
            val=prepared.val,
            train_bytes=prepared.train_bytes,
            val_bytes=prepared.val_bytes,
            sources=prepared.sources,
        )
        _fsync_folder(beside)
        try:
            beside.rename(target)
        except OSError:
            if target.is_dir() and any(target.iterdir()):
                return False
            raise
        _fsync_folder(target.parent)
        return True
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock file; goes on without where the file system has no locks."""
    with path.open("ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _remove_dead_siblings(path: Path) -> None:
    """Remove what this user's killed processes left beside it."""
    name = re.compile(re.escape(f".{path.name[:100]}.") + r"(\d+)-[0-9a-f]{8}\.tmp")
    for each in list(path.parent.iterdir()):
        process = name.fullmatch(each.name)
        if process is not None and not is_alive(int(process[1])) and each.lstat().st_uid == os.geteuid():
            shutil.rmtree(each, ignore_errors=True)


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
