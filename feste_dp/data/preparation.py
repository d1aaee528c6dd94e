"""From texts to token data on disk, whole or not at all; keeps a cache by content for `launch`.

Knows where token data is cached and how it is cut into training and validation. Knows nothing of configs: it
is handed plain values.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feste_dp.cache import make_folders
from feste_dp.data.corpus import SHAKESPEARE, read_corpus
from feste_dp.data.demand import measure_demand
from feste_dp.data.held_out import Stretch, held_in_files, split_at_end, split_by_document
from feste_dp.data.text_file import Text
from feste_dp.data.tokenizer import ByteTokenizer, train_tokenizer
from feste_dp.data.tokens import (
    META_FILE,
    TOKENIZER_FILE,
    TOKENS_FILE,
    Source,
    TokenData,
    open_token_data,
    token_dtype,
    write_token_files,
)
from feste_dp.errors import UsageError
from feste_dp.files.locks import lock_if_possible
from feste_dp.files.whole_folder import check_is_new, put_folder, sibling

# Part of the cache key: raise it when the same text would give other tokens or another tokenizer.json.
PREPARATION_VERSION = 2
BY_LINES_VERSION = 1  # the tokenizer did not say yet that it encodes lines
_LONG_S = 20.0  # what takes longer is announced

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Token data in memory, before anything is written."""

    tokenizer: ByteTokenizer
    train: npt.NDArray[np.generic]
    val: npt.NDArray[np.generic]
    train_bytes: int
    val_bytes: int
    sources: list[Source]


@dataclass(frozen=True, eq=False)
class Choices:
    """What is to be done otherwise than with the text of a run."""

    tokenizer: ByteTokenizer | None = None
    """One that is there already; else one is trained"""
    end_of_text: bool = False
    """Whether each document, a text, is ended by the tokenizer's token for that"""
    by_document: bool = False
    """Whether whole documents are held out, not the end of the text"""
    val_texts: Sequence[Text] = ()
    """Held out, where given: then all other text is learnt from"""


def prepare_token_data(
    texts: Sequence[Text],
    vocab_size: int,
    val_fraction: float,
    out: Path,
    memory: int | None = None,
    tell: Tell = lambda line: None,
    choices: Choices | None = None,
) -> TokenData:
    """Writes token data into the folder `out`, which appears whole or not at all.

    The last val_fraction of the characters of the joined text, from the start of a line, is for validation,
    unless `choices` say otherwise; the tokenizer is trained on what is not. UsageError when `out` is not new
    or empty, the text does not do, or preparing it takes more than `memory` bytes.
    """
    try:
        check_is_new(out)
        prepared = _prepare(texts, vocab_size, val_fraction, out, memory, tell, choices)
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
    tell: Tell = lambda line: None,
    tokenizer: ByteTokenizer | None = None,
) -> TokenData:
    """The token data a run asks for, made and cached on first use.

    corpus is "shakespeare", a folder that prepare made (opened as it is), or what read_corpus takes. `tell`
    gets what is worth saying. `tokenizer` is one that the run has already: of the weights that it starts
    from, or of an earlier version; vocab_size may be larger then. UsageError when a part is shorter than
    block_size + 1 tokens, or the text needs more than `memory` bytes to be prepared; then nothing has been
    written.
    """
    if isinstance(corpus, str) and holds_token_data(corpus):
        data = open_token_data(Path(corpus), verify=True)
        if data.vocab_size != vocab_size and not (tokenizer and data.vocab_size < vocab_size):
            raise UsageError(
                f"token data in {corpus} has a vocabulary of {data.vocab_size}, model.vocab_size is"
                f" {vocab_size}: set model.vocab_size to {data.vocab_size}"
            )
        _check_lengths(len(data.train), len(data.val), block_size)
        return data
    found = read_corpus(corpus)
    if found.note is not None:
        tell(found.note)
    vocab_size = tokenizer.vocab_size if tokenizer else vocab_size
    key = _content_key(found.texts, vocab_size, val_fraction, tokenizer)
    target = cache_root / "corpora" / f"{found.name}-v{vocab_size}-{key[:16]}"
    cached = _open_cached(target, vocab_size)
    if cached is None:
        ends = tokenizer is not None and tokenizer.end_of_text is not None
        choices = Choices(tokenizer, end_of_text=ends)
        prepared = _prepare(found.texts, vocab_size, val_fraction, target, memory, tell, choices)
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


def holds_token_data(corpus: str) -> bool:
    """Whether this is a folder that prepare made; one of text files may have a meta.json of its own."""
    try:
        folder = Path(corpus)
        made = (folder / TOKENS_FILE).exists() or (folder / TOKENIZER_FILE).exists()
        return (
            corpus != SHAKESPEARE
            and (folder / META_FILE).exists()
            and (made or not any(folder.glob("*.txt")))
        )
    except (OSError, ValueError):
        return False  # read_corpus says why


def _prepare(
    texts: Sequence[Text],
    vocab_size: int,
    val_fraction: float,
    target: Path,
    memory: int | None = None,
    tell: Tell = lambda line: None,
    choices: Choices | None = None,
) -> _Prepared:
    if not 0 < val_fraction < 1:
        raise UsageError(f"data.val_fraction is {val_fraction}: set it between 0 and 1")
    choices = choices or Choices()
    every = [*texts, *choices.val_texts]
    share = sum(text.size for text in texts) / sum(text.size for text in every)
    train_share = share if choices.val_texts else 1 - val_fraction
    _check_demand(every, None if choices.tokenizer else vocab_size, train_share, target, memory, tell)
    if choices.val_texts:
        train_part, val_part = held_in_files(texts, choices.val_texts)
    else:
        split = split_by_document if choices.by_document else split_at_end
        train_part, val_part = split(texts, val_fraction)
    tokenizer = choices.tokenizer or train_tokenizer(train_part.pieces(), vocab_size, choices.end_of_text)
    end = tokenizer.end_of_text if choices.end_of_text else None
    if choices.end_of_text and end is None:
        raise UsageError("the tokenizer has no token that ends a text", about="end_of_text")
    train, train_bytes = _encode(tokenizer, train_part, end)
    val, val_bytes = _encode(tokenizer, val_part, end)
    return _Prepared(tokenizer, train, val, train_bytes, val_bytes, [_describe(text) for text in every])


def _check_demand(
    texts: Sequence[Text],
    vocab_size: int | None,
    train_share: float,
    target: Path,
    memory: int | None,
    tell: Tell,
) -> None:
    """UsageError where there is less memory or disk than the text takes, estimated on a sample of it.
    vocab_size is None where no tokenizer is to be trained."""
    size = sum(text.size for text in texts)
    demand = measure_demand(texts, vocab_size, train_share)
    what = f"text file {texts[0].name}" if len(texts) == 1 else f"the {len(texts):,} text files"
    if memory is not None and demand.memory > memory:
        raise UsageError(
            f"{what}: preparing {_mib(size)} takes about {_mib(demand.memory)} of memory, {_mib(memory)} are "
            "available: give less text, or prepare it on a larger machine"
        )
    free = _free_bytes(target)
    if free is not None and demand.disk > free:
        raise UsageError(
            f"{what}: the tokens take about {_mib(demand.disk)} of disk, {_mib(free)} are free at "
            f"{target.parent}: free some"
        )
    if demand.seconds > _LONG_S:
        tell(f"preparing {_mib(size)} of text takes about {max(1, round(demand.seconds / 60))} minutes")


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _free_bytes(target: Path) -> int | None:
    place = target.absolute()
    try:
        while not place.exists() and place != place.parent:
            place = place.parent
        usage = shutil.disk_usage(place)
    except OSError:
        return None
    return usage.free if usage.total else None  # some file systems do not know their size


def _encode(
    tokenizer: ByteTokenizer, stretch: Stretch, end: int | None
) -> tuple[npt.NDArray[np.generic], int]:
    """The tokens, in the type that they are stored in, and how many UTF-8 bytes they stand for. `end` comes
    behind each document that ends; without it they are one text."""
    dtype = np.dtype(token_dtype(tokenizer.vocab_size))
    content, size = bytearray(), 0

    def counted(pieces: Iterable[str]) -> Iterator[str]:
        nonlocal size
        for piece in pieces:
            size += len(piece.encode())
            yield piece

    for document, ends in [(stretch.pieces(), False)] if end is None else stretch.documents():
        for ids in tokenizer.encode_pieces(counted(document)):
            content += ids.astype(dtype).tobytes()
        if ends:
            content += np.array([end], dtype).tobytes()
    return np.frombuffer(content, dtype), size


def _describe(text: Text) -> Source:
    plain = re.sub(r"[/\\\x00-\x1f\x7f]", "_", Path(text.name).name.encode("utf-8", "replace").decode())[
        -255:
    ]
    return Source(name=plain or "text", bytes=text.size, sha256=text.sha256)


def _content_key(
    texts: Sequence[Text], vocab_size: int, val_fraction: float, tokenizer: ByteTokenizer | None
) -> str:
    sources = [_describe(text).model_dump() for text in texts]
    key: list[object] = [PREPARATION_VERSION, vocab_size, repr(float(val_fraction)), sources]
    if tokenizer is not None and tokenizer.by_lines:
        key[0] = BY_LINES_VERSION
    elif tokenizer is not None:
        key.append(hashlib.sha256(tokenizer.to_json()).hexdigest())
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
    make_folders(target.parent.parent)
    target.parent.mkdir(exist_ok=True)
    with lock_if_possible(target.parent / f".{target.name}.lock", lambda: time.sleep(0.05)):
        cached = _open_cached(target, prepared.tokenizer.vocab_size)
        if cached is not None:
            return cached
        if target.exists():  # damaged: moved aside first, so that the name never stands for half a folder
            aside = sibling(target)
            target.rename(aside)
            shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
        _commit(prepared, target)  # refused only where locks do not work and another process was first
    return open_token_data(target, verify=True)


def _commit(prepared: _Prepared, target: Path) -> bool:
    """False, and nothing left behind, when the name was taken."""
    return put_folder(
        target,
        lambda folder: write_token_files(
            folder,
            tokenizer=prepared.tokenizer,
            train=prepared.train,
            val=prepared.val,
            train_bytes=prepared.train_bytes,
            val_bytes=prepared.val_bytes,
            sources=prepared.sources,
        ),
    )
