"""The byte-level BPE tokenizer: trains, loads, encodes and decodes. Knows nothing of token files.

All 256 bytes are tokens, so any text comes back as it was. A text gets the ids that the library (Hugging Face
`tokenizers`) gives the whole of it with the same tokenizer.json, though it is fed part by part.
"""

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from feste_dp.data.splitting import (
    END_OF_TEXT,
    LINE_PATTERN,
    Cutting,
    cutting_for,
    lines_of,
    parts_of,
)
from feste_dp.data.tokenizer_file import (
    MAX_TOKENIZER_ITEMS,
    TokenizerDocument,
    checked_tokenizer,
    read_tokenizer_file,
)
from feste_dp.errors import UsageError, on_one_line

BYTE_TOKENS = 256
# A pair seen once is not worth a token.
MIN_PAIR_COUNT = 2
BATCH_CHARACTERS = 2**16
# What ends a text in tokenizers that others made; the first that is there.
_END_NAMES = (
    END_OF_TEXT,
    "<|end_of_text|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "</s>",
    "<eos>",
    "<|im_end|>",
)


@dataclass(frozen=True, eq=False)
class ByteTokenizer:
    """Text to token ids and back. Make one with train_tokenizer or load_tokenizer."""

    inner: Tokenizer = field(repr=False)
    content: bytes = field(repr=False)
    """Of its tokenizer.json"""
    cutting: Cutting
    by_lines: bool = False
    """Whether each line is encoded on its own, as it was before the file said so"""

    @cached_property
    def vocab_size(self) -> int:
        """Ids are 0 .. vocab_size - 1; a tokenizer that others made may leave some out."""
        return 1 + max(self.inner.get_vocab(with_added_tokens=True).values())

    @cached_property
    def merges(self) -> int:
        """How many pairs it merges."""
        return len(json.loads(self.inner.to_str())["model"]["merges"])

    @cached_property
    def end_of_text(self) -> int | None:
        """The id of the token that ends a document; None where there is none."""
        ids = (self.inner.token_to_id(name) for name in _END_NAMES)
        return next((number for number in ids if number is not None), None)

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """(tokens,) ids of the text, the same whatever the number of threads."""
        parts = list(self.encode_pieces([text]))
        return np.concatenate(parts) if parts else np.empty(0, np.uint32)

    def encode_pieces(self, pieces: Iterable[str]) -> Iterator[npt.NDArray[np.uint32]]:
        """The ids of the text that the pieces make up, a part at a time. UsageError where it cannot be fed in
        parts, and is too long for one."""
        parts = lines_of(pieces) if self.by_lines else parts_of(pieces, self.cutting)
        for batch in _batches(parts, BATCH_CHARACTERS):
            try:
                encodings = self.inner.encode_batch_fast(batch, add_special_tokens=False)
            except BaseException as error:
                if (
                    type(error).__name__ != "PanicException"
                ):  # of the library, which knows no other for a regex
                    raise
                raise UsageError(f"the tokenizer cannot read a text: {on_one_line(error)}") from None
            yield np.concatenate([np.asarray(encoding.ids, np.uint32) for encoding in encodings])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids; bytes that are no UTF-8 (half a character) become U+FFFD, ids that are no
        token nothing."""
        numbers = [int(number) for number in ids]
        if numbers and min(numbers) < 0:
            raise ValueError("token ids are 0 or more")
        return self.inner.decode(numbers, skip_special_tokens=False)

    def to_json(self) -> bytes:
        """The content of tokenizer.json (Hugging Face format), the same bytes for the same tokenizer."""
        return self.content

    def line_by_line(self) -> "ByteTokenizer | None":
        """The same, which encodes each line on its own, as earlier versions did without a word of it in the
        file. None where it is no file of theirs."""
        document = json.loads(self.inner.to_str())
        plain = document["pre_tokenizer"]["type"] == "ByteLevel" and not document["added_tokens"]
        return replace(self, by_lines=True) if plain and document["normalizer"] is None else None


def train_tokenizer(pieces: Iterable[str], vocab_size: int, end_of_text: bool = False) -> ByteTokenizer:
    """A tokenizer of exactly vocab_size tokens, merged from the pairs of the text that the pieces
    make up, the most frequent first; the last is END_OF_TEXT where asked.

    UsageError when vocab_size is below the 256 bytes, or the text has too few repeated pairs to reach it.
    """
    tokenizer = learn_merges(pieces, vocab_size, end_of_text)
    reached = tokenizer.vocab_size
    if reached < vocab_size:
        raise UsageError(
            f"the text yields {reached} tokens, not {vocab_size}: set it to that or less, or give more text",
            about="model.vocab_size",
        )
    return tokenizer


def learn_merges(pieces: Iterable[str], vocab_size: int, end_of_text: bool = False) -> ByteTokenizer:
    """As train_tokenizer, with as many tokens as the text yields, vocab_size at most."""
    least = BYTE_TOKENS + end_of_text
    if vocab_size < least:
        raise UsageError(
            f"{vocab_size} is too few: set it to {least} (one token per byte{' and one more' * end_of_text}) "
            "or more",
            about="model.vocab_size",
        )
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        # The trainer reserves memory for the size it is asked for; no file that we read back holds more.
        vocab_size=min(vocab_size - end_of_text, MAX_TOKENIZER_ITEMS),
        min_frequency=MIN_PAIR_COUNT,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    interruptibly(lines_of(pieces), lambda lines: tokenizer.train_from_iterator(lines, trainer))
    # what was learnt from lines is for lines: whoever loads the file splits a text into the same
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LINE_PATTERN), "isolated"), words]
    )
    if end_of_text:
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
    return _from_document(TokenizerDocument.of(tokenizer))


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
    return _from_document(read_tokenizer_file(path))


def tokenizer_of(content: bytes, source: str) -> ByteTokenizer:
    """The tokenizer of the content of a tokenizer.json; `source` names it in errors. UsageError as above."""
    return _from_document(checked_tokenizer(content, source))


def _from_document(document: TokenizerDocument) -> ByteTokenizer:
    cutting = cutting_for(document.pre_tokenizer, document.normalizes, document.added)
    return ByteTokenizer(document.tokenizer, document.content, cutting)


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
