"""The tokenizer of a file, of a run, of token data, or of a Hugging Face directory."""

import json
from pathlib import Path
from typing import Any

from feste_dp.data.splitting import END_OF_TEXT
from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer, tokenizer_of
from feste_dp.data.tokenizer_file import MAX_TOKENIZER_BYTES, MAX_TOKENIZER_ITEMS
from feste_dp.errors import UsageError
from feste_dp.files.reading import read_plain
from feste_dp.files.untrusted_json import read_object

TOKENIZER_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
VOCABULARY_FILE, MERGES_FILE = "vocab.json", "merges.txt"
# What transformers adds to a text, or in front of it, when it is told to by tokenizer_config.json.
_MUST_BE_OFF = ("add_prefix_space", "add_bos_token", "add_eos_token")


def load_tokenizer_at(place: Path) -> ByteTokenizer:
    """The tokenizer in the file, or in the folder: tokenizer.json, else GPT-2's vocab.json and merges.txt.

    UsageError: there is none, it is not byte-level BPE, or tokenizer_config.json asks for something else.
    """
    if not place.is_dir():
        return load_tokenizer(place)
    settings: dict[str, Any] = {}
    if (place / SETTINGS_FILE).exists():
        settings = read_object(place / SETTINGS_FILE, MAX_TOKENIZER_BYTES, MAX_TOKENIZER_ITEMS)
        for name in _MUST_BE_OFF:
            if settings.get(name):
                raise UsageError(f"{place / SETTINGS_FILE}: {name} is not supported: it must be false")
    if (place / TOKENIZER_FILE).exists():
        tokenizer = load_tokenizer(place / TOKENIZER_FILE)
    elif (place / VOCABULARY_FILE).exists() and (place / MERGES_FILE).exists():
        tokenizer = _from_two_files(place)
    else:
        raise UsageError(f"{place} has no {TOKENIZER_FILE}, nor {VOCABULARY_FILE} and {MERGES_FILE}")
    for entry in (settings.get("added_tokens_decoder") or {}).values():
        content = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(content, str) or tokenizer.inner.token_to_id(content) is None:
            raise UsageError(
                f"{place / SETTINGS_FILE} adds the token {ascii(content)[:80]}, which {TOKENIZER_FILE} lacks"
            )
    return tokenizer


def _from_two_files(folder: Path) -> ByteTokenizer:
    """The file that transformers makes of them."""
    vocab = read_object(folder / VOCABULARY_FILE, MAX_TOKENIZER_BYTES, MAX_TOKENIZER_ITEMS)
    lines = _read(folder / MERGES_FILE).decode("utf-8", "replace").split("\n")
    merges = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    added = []
    if type(vocab.get(END_OF_TEXT)) is int:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [{"id": vocab[END_OF_TEXT], "content": END_OF_TEXT, **flags, "special": True}]
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": words,
        "post_processor": None,
        "decoder": words,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    return tokenizer_of(json.dumps(document).encode("ascii") + b"\n", str(folder / VOCABULARY_FILE))


def _read(path: Path) -> bytes:
    try:
        return read_plain(path, MAX_TOKENIZER_BYTES, follow_links=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
