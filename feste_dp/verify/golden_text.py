"""What the golden runs read: tokens and a tokenizer made here of whole numbers, so that no release of another
package has a say in them, nor a kernel that is to be verified."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import pre_tokenizers

from feste_dp.data.tokenizer import BYTE_TOKENS, load_tokenizer
from feste_dp.data.tokens import write_token_files

TRAIN_TOKENS, VAL_TOKENS = 24_000, 3_000
_WORD = 2**64 - 1
_LOWER = "abcdefghijklmnopqrstuvwxyz"
_BEFORE_TOKENIZER = "merges.json"


def write_golden_text(folder: Path, vocab_size: int) -> None:
    """Fill an empty folder as prepare does. vocab_size is at most 256 + 52 * 26."""
    merges = folder / _BEFORE_TOKENIZER
    merges.write_text(json.dumps(_tokenizer(vocab_size)), encoding="utf-8")
    tokenizer = load_tokenizer(merges)
    merges.unlink()
    tokens = np.fromiter(_tokens(vocab_size), np.uint32, TRAIN_TOKENS + VAL_TOKENS)
    train, val = tokens[:TRAIN_TOKENS], tokens[TRAIN_TOKENS:]
    write_token_files(folder, tokenizer, train, val, TRAIN_TOKENS, VAL_TOKENS, [])


def random_words(seed: int) -> Iterator[int]:
    """64 random bits, again and again: SplitMix64 (G. Steele, D. Lea and C. Flood, 2014)."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _WORD
        word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
        yield word ^ (word >> 31)


def _tokens(vocab_size: int) -> Iterator[int]:
    """Some tokens are frequent, and what follows one is often one of two: there is something to learn."""
    token = 0
    for _, word in zip(range(TRAIN_TOKENS + VAL_TOKENS), random_words(vocab_size), strict=False):
        if word & 3:
            token = (5 * token + 17 + (word >> 2 & 1)) % vocab_size
        else:
            token = (word >> 16 & 0xFFFFFF) * (word >> 40) * vocab_size >> 48
        yield token


def _tokenizer(vocab_size: int) -> dict[str, object]:
    """A tokenizer.json: the bytes, and pairs of letters."""
    pairs = [(first, second) for first in _LOWER + _LOWER.upper() for second in _LOWER]
    pairs = pairs[: vocab_size - BYTE_TOKENS]
    names = sorted(pre_tokenizers.ByteLevel.alphabet()) + [first + second for first, second in pairs]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": False,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {name: number for number, name in enumerate(names)},
            "merges": [f"{first} {second}" for first, second in pairs],
        },
    }
