"""What preparing a text takes of memory, disk and time: measured on a sample of it, before the work.

Text is read piece by piece, so what takes memory is the tokens, and the different words that byte-level BPE
counts pairs in: few in English, nearly all of them in Chinese, base64 or hashes, which have no spaces.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import pre_tokenizers

from feste_dp.data.splitting import lines_of
from feste_dp.data.text_file import Text
from feste_dp.data.tokenizer import BYTE_TOKENS, learn_merges

# Measured on 1 to 24 MB of Chinese, base64, invented words: 88 to 130 bytes for a byte of a different word.
BYTES_PER_WORD_BYTE = 140
BYTES_PER_VOCABULARY_ENTRY = 300
FIXED_BYTES = 96 * 2**20  # the library's threads, and what it encodes at a time

_SAMPLES = 16
_SAMPLE_BYTES = 2**14
_SAMPLE_VOCABULARY = 1024


@dataclass(frozen=True)
class Demand:
    """Bytes and seconds, estimated."""

    memory: int
    disk: int
    seconds: float


def measure_demand(texts: Sequence[Text], vocab_size: int | None, train_share: float) -> Demand:
    """What it takes to prepare the texts; vocab_size is None where the tokenizer is there already."""
    total = sum(text.size for text in texts)
    bytes_per_token = 2 if vocab_size is not None and vocab_size <= 2**16 else 4
    if total <= _SAMPLES * _SAMPLE_BYTES:  # measuring would be the work
        return Demand(FIXED_BYTES + 2 * BYTES_PER_WORD_BYTE * total, bytes_per_token * total, 0.0)
    started = time.perf_counter()
    samples = _samples(texts, total)
    size = max(1, sum(len(sample.encode()) for sample in samples))
    words = different_words(samples, size, train_share * total)
    # few merges, learnt from the sample: what is learnt from the whole text makes no more tokens of it
    tokenizer = learn_merges(samples, min(vocab_size or _SAMPLE_VOCABULARY, _SAMPLE_VOCABULARY))
    tokens = sum(len(part) for part in tokenizer.encode_pieces(samples)) * total / size
    seconds = (time.perf_counter() - started) * total / size
    stored = tokens * bytes_per_token
    learning = 0.0
    if vocab_size is not None and vocab_size > BYTE_TOKENS:
        learning = BYTES_PER_WORD_BYTE * words + BYTES_PER_VOCABULARY_ENTRY * min(vocab_size, total)
    return Demand(int(FIXED_BYTES + 1.125 * stored + learning), int(stored), seconds)


def different_words(samples: Sequence[str], size: int, total: float) -> float:
    """Bytes of the different words in `total` bytes of such text, by the law of H. S. Heaps: with the text
    they grow as its size to some power, which half the sample and all of it give."""
    half = _bytes_of_words(samples[::2])
    whole = _bytes_of_words(samples)
    if not half or total <= size:
        return whole
    power = min(1.0, max(0.0, math.log2(whole / half)))
    return float(min(total, whole * (total / size) ** power))


def _bytes_of_words(samples: Sequence[str]) -> int:
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = {word for line in lines_of(samples) for word, _ in split.pre_tokenize_str(line)}
    return sum(map(len, words))  # one character of these stands for one byte


def _samples(texts: Sequence[Text], total: int) -> list[str]:
    """Parts of the texts at even distances."""
    starts = range(0, total - _SAMPLE_BYTES, (total - _SAMPLE_BYTES) // _SAMPLES)
    samples, before, left = [], 0, iter(texts)
    text = next(left)
    for start in starts:
        while start >= before + text.size:
            before += text.size
            text = next(left)
        samples.append(text.excerpt(start - before, _SAMPLE_BYTES) + "\n")
    return samples
