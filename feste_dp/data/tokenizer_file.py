"""Reads a tokenizer.json that may come from anybody: byte-level BPE as the library runs it, or the reason why
not. Nothing of the file reaches the library that was not looked at.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers

from feste_dp.data.splitting import AddedToken
from feste_dp.errors import UsageError
from feste_dp.files.marks import JSON_MARKS, too_many_marks
from feste_dp.files.reading import read_plain

MAX_TOKENIZER_BYTES = 32 * 2**20
MAX_TOKENIZER_ITEMS = 1_200_000  # a token has four with its merge: a vocabulary of 262,144 fits
# The alphabet of byte-level BPE ends at U+0143; one character beyond, as names of added tokens may have,
# makes Python's text of the whole file two or four times as large.
BEYOND_ALPHABET = re.compile(rb"[\xe0-\xff]")
MAX_WIDE_BYTES = 10 * 2**20
MAX_ADDED_TOKENS = 10_000
MAX_PATTERN = 2_000
MAX_STEPS = 8
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
_BEHAVIORS = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"}


@dataclass(frozen=True, eq=False)
class TokenizerDocument:
    """A tokenizer and what its file says, checked."""

    tokenizer: Tokenizer
    content: bytes
    pre_tokenizer: dict[str, Any]
    normalizes: bool
    added: tuple[AddedToken, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "TokenizerDocument":
        """What the file of a tokenizer will say."""
        return parse_tokenizer(tokenizer.to_str(pretty=True).encode("utf-8") + b"\n")


def read_tokenizer_file(path: Path) -> TokenizerDocument:
    """UsageError: missing, too large, broken, or a tokenizer of another kind."""
    try:
        if not path.is_file():
            raise UsageError(f"tokenizer file {path} does not exist")
        size = path.stat().st_size
        if size > MAX_TOKENIZER_BYTES:
            raise UsageError(f"tokenizer file {path} is too large: {size} bytes, limit {MAX_TOKENIZER_BYTES}")
        content = read_plain(path, MAX_TOKENIZER_BYTES, follow_links=True)
    except OSError as error:
        raise UsageError(f"tokenizer file {path} cannot be read: {error.strerror}") from error
    return checked_tokenizer(content, str(path))


def checked_tokenizer(content: bytes, source: str) -> TokenizerDocument:
    """As parse_tokenizer; UsageError that names the source."""
    try:
        return parse_tokenizer(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = " ".join(ascii(str(error))[1:-1].split())[:200]
        raise UsageError(f"tokenizer file {source} is no byte-level BPE tokenizer ({reason})") from error


def parse_tokenizer(content: bytes) -> TokenizerDocument:
    """The tokenizer in the bytes of a tokenizer.json; ValueError says what is wrong with them."""
    if too_many_marks(content, JSON_MARKS, MAX_TOKENIZER_ITEMS):
        raise ValueError(f"it has more than {MAX_TOKENIZER_ITEMS} values")
    if len(content) > MAX_WIDE_BYTES and BEYOND_ALPHABET.search(content):
        raise ValueError("it has characters that no token of bytes has")
    document = json.loads(content)
    if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
        raise ValueError("it has no model")
    vocab, model = _checked_model(document["model"])
    added = _checked_added(document.get("added_tokens") or [], vocab)
    normalizer = document.get("normalizer")
    if normalizer not in (None, {"type": "NFC"}):
        raise ValueError(f"normalizer {_type_of(normalizer)} is not supported")
    decoder = document.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        raise ValueError("its decoder is not ByteLevel")
    _check_post_processor(document.get("post_processor"))
    pre_tokenizer = _checked_pre_tokenizer(document.get("pre_tokenizer"))
    tokenizer = _build(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [_written(token) for token in added],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": None,
            "decoder": {
                "type": "ByteLevel",
                "add_prefix_space": True,
                "trim_offsets": True,
                "use_regex": True,
            },
            "model": model,
        }
    )
    for token in added:
        if tokenizer.token_to_id(token.content) != token.id:
            raise ValueError(f"added token {token.content!r} does not have the id {token.id}"[:120])
    return TokenizerDocument(tokenizer, content, pre_tokenizer, normalizer is not None, added)


def _build(document: dict[str, Any]) -> Tokenizer:
    try:
        return Tokenizer.from_str(json.dumps(document))
    except BaseException as error:  # the library raises bare Exception, and panics by a class of its own
        if isinstance(error, MemoryError | KeyboardInterrupt | SystemExit) or not (
            isinstance(error, Exception) or type(error).__name__ == "PanicException"
        ):
            raise
        raise ValueError(str(error)) from None


def _checked_model(model: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    """The vocabulary, and the model with nothing but what was checked."""
    if model.get("type", "BPE") != "BPE":
        raise ValueError(f"its model is {_type_of(model)}, not BPE")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise ValueError(f"{option} is not supported")
    if model.get("byte_fallback"):
        raise ValueError("byte_fallback is not supported")
    if not isinstance(model.get("ignore_merges", False), bool):
        raise ValueError("ignore_merges is not true or false")
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not all(type(number) is int for number in vocab.values()):
        raise ValueError("its vocabulary is not a table of ids")
    if not vocab.keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
        raise ValueError("its vocabulary lacks some of the 256 bytes")
    if len(set(vocab.values())) != len(vocab) or not 0 <= min(vocab.values()) <= max(vocab.values()) < _most(
        vocab
    ):
        raise ValueError("its ids are not different numbers from 0 on")
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ValueError("its merges are not a list")
    return vocab, {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,  # no text lacks a token: all bytes have one
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": model.get("ignore_merges", False),
        "vocab": vocab,
        "merges": [_checked_merge(merge, vocab) for merge in merges],
    }


def _most(vocab: dict[str, int]) -> int:
    """Ids that are no token cost a model as much as others."""
    return 2 * len(vocab) + 1024


def _checked_merge(merge: Any, vocab: dict[str, int]) -> tuple[str, str]:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(half, str) for half in pair):
        raise ValueError(f"a merge is not a pair: {merge!r}"[:80])
    left, right = pair
    if left not in vocab or right not in vocab or left + right not in vocab:
        raise ValueError(f"a merge is not in the vocabulary: {merge!r}"[:80])
    return left, right


def _checked_added(entries: Any, vocab: dict[str, int]) -> tuple[AddedToken, ...]:
    if not isinstance(entries, list) or len(entries) > MAX_ADDED_TOKENS:
        raise ValueError(f"added_tokens is not a list of at most {MAX_ADDED_TOKENS}")
    added = []
    for entry in entries:
        content, number = (entry.get("content"), entry.get("id")) if isinstance(entry, dict) else (None, None)
        if not isinstance(content, str) or not content or type(number) is not int:
            raise ValueError("an added token has no content or no id")
        if not all(isinstance(entry.get(flag, False), bool) for flag in _FLAGS):
            raise ValueError(f"added token {content!r}: a flag is not true or false"[:120])
        if not 0 <= number < _most(vocab) + MAX_ADDED_TOKENS:
            raise ValueError(f"added token {content!r} has the id {number}"[:120])
        added.append(AddedToken(content, number, **{flag: entry.get(flag, False) for flag in _FLAGS}))
    ids = {number: content for content, number in vocab.items()}
    for token in added:
        if ids.setdefault(token.id, token.content) != token.content:
            raise ValueError(f"added token {token.content!r} has the id of another"[:120])
    return tuple(sorted(added, key=lambda token: token.id))


def _written(token: AddedToken) -> dict[str, Any]:
    return {name: getattr(token, name) for name in ("id", "content", *_FLAGS)}


def _check_post_processor(processor: Any) -> None:
    """ValueError where it adds tokens to a text, as it does for most who load the file."""
    if processor is None:
        return
    kind = _type_of(processor)
    if kind == "Sequence":
        for each in processor.get("processors") or []:
            _check_post_processor(each)
    elif kind == "TemplateProcessing" and all("Sequence" in each for each in processor.get("single") or [{}]):
        return
    elif kind != "ByteLevel":
        raise ValueError(f"post_processor {kind} adds tokens to a text: remove it from the file")


def _checked_pre_tokenizer(pre_tokenizer: Any) -> dict[str, Any]:
    kind = _type_of(pre_tokenizer)
    steps = pre_tokenizer.get("pretokenizers") if kind == "Sequence" else [pre_tokenizer]
    if not isinstance(steps, list) or not 1 <= len(steps) <= MAX_STEPS:
        raise ValueError("its pre_tokenizer is not ByteLevel")
    checked = [_checked_step(step) for step in steps]
    if [step["type"] for step in checked].index("ByteLevel") != len(checked) - 1:
        raise ValueError("its pre_tokenizer does not end in ByteLevel")
    return checked[0] if kind != "Sequence" else {"type": "Sequence", "pretokenizers": checked}


def _checked_step(step: Any) -> dict[str, Any]:
    kind = _type_of(step)
    if kind == "ByteLevel":
        if step.get("add_prefix_space") is not False:
            raise ValueError("add_prefix_space puts a space in front of a text: it must be false")
        use_regex = step.get("use_regex", True)
        if not isinstance(use_regex, bool):
            raise ValueError("use_regex is not true or false")
        return {"type": kind, "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}
    if kind == "Digits":
        if not isinstance(step.get("individual_digits"), bool):
            raise ValueError("individual_digits is not true or false")
        return {"type": kind, "individual_digits": step["individual_digits"]}
    if kind != "Split":
        raise ValueError(f"pre_tokenizer {kind} is not supported")
    pattern, behavior, invert = step.get("pattern"), step.get("behavior"), step.get("invert", False)
    if not isinstance(pattern, dict) or list(pattern) not in (["Regex"], ["String"]):
        raise ValueError("a Split has no pattern")
    (text,) = pattern.values()
    if not isinstance(text, str) or not 0 < len(text) <= MAX_PATTERN:
        raise ValueError(f"the pattern of a Split does not have 1 to {MAX_PATTERN} characters")
    if behavior not in _BEHAVIORS or not isinstance(invert, bool):
        raise ValueError("a Split has no behavior that is known")
    if "Regex" in pattern:
        try:
            Regex(text)
        except Exception as error:
            raise ValueError(f"the pattern of a Split: {error}") from None
    return {"type": kind, "pattern": pattern, "behavior": behavior, "invert": invert}


def _type_of(part: Any) -> str:
    return str(part.get("type"))[:40] if isinstance(part, dict) else "of no type"
