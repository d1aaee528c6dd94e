"""The byte-level BPE tokenizer: trains, loads, encodes and decodes. Knows nothing of token files.

All 256 bytes are tokens, there is no normalizer and no special token, so any text comes back exactly as it
was. The text is fed line by line, line ends kept: 5 MB in one string took 3.1 s, in lines 0.4 s. No merge
spans a line end, so the stored tokenizer gives a whole text the ids of its lines.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from feste_dp.errors import UsageError
from feste_dp.files.marks import JSON_MARKS, too_many_marks

BYTE_TOKENS = 256
MAX_TOKENIZER_BYTES = 32 * 2**20
MAX_TOKENIZER_ITEMS = 1_200_000  # a token has four with its merge: a vocabulary of 262,144 fits
# The alphabet of byte-level BPE ends at U+0143; one character beyond U+FFFF would make Python's text of the
# whole file four times as large.
BEYOND_ALPHABET = re.compile(rb"[\xe0-\xff]")
# A pair seen once is not worth a token.
MIN_PAIR_COUNT = 2
# A line with its end; a longer line (a text without line ends) is cut before a space where there is one.
LINE = re.compile(r"[^\n]{0,4096}\n|[^\n]{1,4096}(?= |\Z)|[^\n]{1,4096}")
LONGEST_LINE = 4096
# The library takes 100 to 300 bytes for a byte that it encodes, so it is given little at a time.
BATCH_CHARACTERS = 2**16


@dataclass(frozen=True, eq=False)
class ByteTokenizer:
    """Text to token ids and back. Make one with train_tokenizer or load_tokenizer."""

    inner: Tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens; ids are 0 .. vocab_size - 1."""
        return self.inner.get_vocab_size()

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """(tokens,) ids of the text, the same whatever the number of threads."""
        parts = list(self.encode_pieces([text]))
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[npt.NDArray[np.uint32]]:
        """The ids of the text that the pieces make up, a part at a time."""
        for batch in _batches(cut_into_lines(pieces), BATCH_CHARACTERS):
            encodings = self.inner.encode_batch_fast(batch, add_special_tokens=False)
            yield np.concatenate([np.asarray(encoding.ids, np.uint32) for encoding in encodings])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 (half a character) become U+FFFD."""
        numbers = [int(number) for number in ids]
        if numbers and not (min(numbers) >= 0 and max(numbers) < self.vocab_size):
            raise ValueError(f"token ids must be 0 .. {self.vocab_size - 1}")
        return self.inner.decode(numbers, skip_special_tokens=False)

    def to_json(self) -> bytes:
        """The content of tokenizer.json (Hugging Face format), the same bytes for the same tokenizer."""
        return self.inner.to_str(pretty=True).encode("utf-8") + b"\n"


def train_tokenizer(pieces: Iterable[str], vocab_size: int) -> ByteTokenizer:
    """A tokenizer of exactly vocab_size tokens, merged from the pairs of the text that the pieces
    make up, the most frequent first.

    UsageError when vocab_size is below the 256 bytes, or the text has too few repeated pairs to reach it.
    """
    tokenizer = learn_merges(pieces, vocab_size)
    reached = tokenizer.vocab_size
    if reached < vocab_size:
        raise UsageError(
            f"the text yields {reached} tokens, not {vocab_size}: set it to that or less, or give more text",
            about="model.vocab_size",
        )
    return tokenizer


def learn_merges(pieces: Iterable[str], vocab_size: int) -> ByteTokenizer:
    """As train_tokenizer, with as many tokens as the text yields, vocab_size at most."""
    if vocab_size < BYTE_TOKENS:
        raise UsageError(
            f"{vocab_size} is too few: set it to {BYTE_TOKENS} (one token per byte) or more",
            about="model.vocab_size",
        )
    tokenizer = _new_tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        # The trainer reserves memory for the size it is asked for; no file that we read back holds more.
        vocab_size=min(vocab_size, MAX_TOKENIZER_ITEMS),
        min_frequency=MIN_PAIR_COUNT,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    interruptibly(cut_into_lines(pieces), lambda lines: tokenizer.train_from_iterator(lines, trainer))
    return ByteTokenizer(tokenizer)


def cut_into_lines(pieces: Iterable[str]) -> Iterator[str]:
    """The lines (LINE) of the text that the pieces make up, the same however it is cut into pieces."""
    rest = ""
    for piece in pieces:
        rest += piece
        end = rest.rfind("\n") + 1
        yield from LINE.findall(rest[:end])
        rest, start = rest[end:], 0
        while len(rest) - start > LONGEST_LINE + 1:  # where it is cut depends on no more than what is there
            found = LINE.match(rest, start)
            assert found is not None
            yield found[0]
            start = found.end()
        rest = rest[start:]
    yield from LINE.findall(rest)


def interruptibly(lines: Iterable[str], work: Callable[[Iterator[str]], object]) -> None:
    """work(lines) in a thread of its own, so that the handler of a signal runs, and may raise, meanwhile.

    Compiled code keeps the main thread for as long as it takes, 3 s for 40 MB of text. When a handler raises,
    the lines end, and what the work does after them ends with the process: nobody waits for it.
    """
    failures: list[BaseException] = []
    abandoned = threading.Event()

    def feed() -> Iterator[str]:
        for line in lines:
            if abandoned.is_set():
                return
            yield line

    def run() -> None:
        try:
            work(feed())
        except BaseException as error:  # raised again by the caller
            failures.append(error)

    thread = threading.Thread(target=run, name="tokenizer", daemon=True)
    try:
        thread.start()
        while thread.is_alive():
            thread.join(0.1)  # not longer: where another thread took the signal, nothing ends the wait
    finally:
        abandoned.set()
    if failures:
        raise failures[0]


def load_tokenizer(path: Path) -> ByteTokenizer:
    """The tokenizer of a tokenizer.json file. UsageError: too large, broken, not byte-level BPE."""
    try:
        if not path.is_file():
            raise UsageError(f"tokenizer file {path} does not exist")
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            raise UsageError(f"tokenizer file {path} is too large: {size} bytes, limit {MAX_TOKENIZER_BYTES}")
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"tokenizer file {path} cannot be read: {error.strerror}") from error
    try:
        if too_many_marks(content, JSON_MARKS, MAX_TOKENIZER_ITEMS):
            raise ValueError(f"it has more than {MAX_TOKENIZER_ITEMS} values")
        if BEYOND_ALPHABET.search(content):
            raise ValueError("it has characters that no token of bytes has")
        vocab, merges = _read_bpe(json.loads(content))
        # Built from the checked tables, not by the library's own reader: nothing else in the file has a say.
        return ByteTokenizer(_new_tokenizer(models.BPE(vocab, merges)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"tokenizer file {path} is no byte-level BPE tokenizer ({_one_line(error)})"
        ) from error


def _new_tokenizer(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _read_bpe(document: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges of a tokenizer.json; ValueError says what is wrong with it."""
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise ValueError("it has no model")
    model = document["model"]
    for part, expected in (("normalizer", None), ("added_tokens", [])):
        if document.get(part, expected) != expected:
            raise ValueError(f"{part} is not supported")
    pre_tokenizer = document.get("pre_tokenizer")
    if not isinstance(pre_tokenizer, dict) or pre_tokenizer.get("type") != "ByteLevel":
        raise ValueError("its pre_tokenizer is not ByteLevel")
    if pre_tokenizer.get("add_prefix_space") is not False or pre_tokenizer.get("use_regex", True) is not True:
        raise ValueError("its ByteLevel pre_tokenizer must have add_prefix_space false and use_regex true")
    if model.get("type") != "BPE":
        raise ValueError(f"its model is {model.get('type')!r}, not 'BPE'")
    for option in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise ValueError(f"{option} is not supported")
    if model.get("byte_fallback") or model.get("ignore_merges"):
        raise ValueError("byte_fallback and ignore_merges are not supported")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not all(type(number) is int for number in vocab.values()):
        raise ValueError("its vocabulary is not a table of ids")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise ValueError("its ids are not 0 .. vocabulary size - 1")
    if not vocab.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        raise ValueError("its vocabulary lacks some of the 256 bytes")
    return vocab, [_read_merge(merge, vocab) for merge in _as_list(model.get("merges"))]


def _read_merge(merge: Any, vocab: dict[str, int]) -> tuple[str, str]:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(half, str) for half in pair):
        raise ValueError(f"a merge is not a pair: {merge!r}"[:80])
    left, right = pair
    if left not in vocab or right not in vocab or left + right not in vocab:
        raise ValueError(f"a merge is not in the vocabulary: {merge!r}"[:80])
    return left, right


def _as_list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("its merges are not a list")
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _batches(lines: Iterable[str], characters: int) -> Iterator[list[str]]:
    batch, size = [], 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
