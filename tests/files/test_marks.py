"""Small files that would be large in memory are refused for less than 64 MiB, in one line."""

import hashlib
import json
import tracemalloc

import pytest

from feste_dp.checkpoint.format import decode_manifest
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.data.tokens import open_token_data
from feste_dp.errors import UsageError
from feste_dp.files.marks import JSON_MARKS, too_many_marks

MILLION = 10**6
LIMIT = 64 * 2**20


def read_manifest(data, folder):
    seal = b',\n "manifest_sha256": "' + hashlib.sha256(data).hexdigest().encode() + b'"\n}\n'
    decode_manifest(data + seal)


def read_meta(data, folder):
    (folder / "meta.json").write_bytes(data)
    open_token_data(folder)


def read_tokenizer(data, folder):
    (folder / "tokenizer.json").write_bytes(data)
    load_tokenizer(folder / "tokenizer.json")


@pytest.mark.parametrize(
    ("read", "data", "words"),
    [
        (read_manifest, b'{"a": [' + b"[]," * MILLION + b"0]", "has more than 50000 values"),
        (read_manifest, b'{"a": [' + b'{"":{}},' * MILLION + b"0]", "has more than 50000 values"),
        (read_manifest, b'{"a": "' + b"x" * 20 * MILLION + b'"', "is larger than"),
        (read_meta, b'{"sources": [' + b"1," * 500_000 + b"1]}", "more than 50000 values"),
        (read_meta, b"{" + b",".join(b'"%d":1' % i for i in range(90_000)) + b"}", "more than 50000 values"),
        (read_meta, b'{"sources": [' + b"1," * 49_000 + b"1]}", "meta.json is damaged"),
        (read_tokenizer, b'{"a": [' + b"[]," * 5 * MILLION + b"0]}", "it has more than 1200000 values"),
        (
            read_tokenizer,
            b'{"a": "' + "😀".encode() + b"x" * 20 * MILLION + b'"}',
            "that no token of bytes has",
        ),
        (read_tokenizer, b"[" * MILLION, "is no byte-level BPE tokenizer"),
        (read_tokenizer, b" " * 40 * MILLION, "is too large"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "" if isinstance(value, bytes) else value[:20],
)
def test_a_file_that_would_be_large_in_memory_is_refused_for_little(read, data, words, tmp_path):
    tracemalloc.start()
    try:
        with pytest.raises(UsageError) as caught:
            read(data, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_the_tokenizers_that_the_program_makes_are_far_from_the_limit(tmp_path):
    tokenizer = train_tokenizer((f"line {n:04d} of many\n" for n in range(5000)), 500)
    content = tokenizer.to_json()
    marks = sum(content.count(mark) for mark in JSON_MARKS)
    assert marks < 5 * 500
    assert not too_many_marks(content, JSON_MARKS, marks) and too_many_marks(content, JSON_MARKS, marks - 1)
    document = json.loads(content)
    assert len(document["model"]["merges"]) == 500 - 256
