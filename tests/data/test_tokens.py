import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feste_dp.data import tokens as tokens_module
from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.data.tokens import Source, check_token_ids, open_token_data, write_token_files
from feste_dp.errors import UsageError

TEXT = read_shakespeare()[2_000_000:2_020_000]
TRAIN, VAL = TEXT[:18_000], TEXT[18_000:]
SOURCES = [Source(name="plays.txt", bytes=len(TEXT), sha256="0" * 64)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokens")
    tokenizer = train_tokenizer(TRAIN, 300)
    write_token_files(
        folder, tokenizer, tokenizer.encode(TRAIN), tokenizer.encode(VAL), len(TRAIN), len(VAL), SOURCES
    )
    return folder


@pytest.fixture
def copy(prepared, tmp_path):
    for file in prepared.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_written_tokens_open_as_read_only_maps_of_both_parts(prepared):
    data = open_token_data(prepared, verify=True)
    tokenizer = load_tokenizer(data.tokenizer_path)
    assert isinstance(data.train, np.memmap) and isinstance(data.val, np.memmap)
    assert data.train.dtype == np.uint16 and not data.train.flags.writeable
    assert tokenizer.decode(data.train) == TRAIN and tokenizer.decode(data.val) == VAL
    assert (data.train_bytes, data.val_bytes, data.vocab_size) == (len(TRAIN), len(VAL), 300)
    meta = json.loads((prepared / "meta.json").read_text())
    assert (data.fingerprint, data.tokenizer_sha256) == (meta["tokens_sha256"], meta["tokenizer_sha256"])


def test_the_token_file_holds_the_training_tokens_then_the_validation_tokens(prepared):
    data = open_token_data(prepared)
    content = np.frombuffer((prepared / "tokens.bin").read_bytes(), "<u2")
    assert content.tolist() == data.train.tolist() + data.val.tolist()


def test_a_vocabulary_above_65536_is_stored_in_32_bits(copy):
    ids = np.array([0, 65536, 65999], "<u4")
    (copy / "tokens.bin").write_bytes(ids.tobytes())
    rewrite(
        copy, dtype="uint32", vocab_size=66000, train={"tokens": 2, "bytes": 2}, val={"tokens": 1, "bytes": 1}
    )
    data = open_token_data(copy)
    assert data.train.tolist() == [0, 65536] and data.val.tolist() == [65999]


@pytest.mark.parametrize("name", ["meta.json", "tokens.bin", "tokenizer.json"])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UsageError, match=f"{name} does not exist"):
        open_token_data(copy)
    os.mkfifo(copy / name)  # must not be waited on
    with pytest.raises(UsageError, match=f"{name} does not exist"):
        open_token_data(copy)


def test_a_cut_or_lengthened_token_file_is_refused(copy):
    content = (copy / "tokens.bin").read_bytes()
    for damaged in (content[:-1], content[:-2], content + b"\0\0", b""):
        (copy / "tokens.bin").write_bytes(damaged)
        with pytest.raises(UsageError, match=r"meta\.json promises"):
            open_token_data(copy)


@pytest.mark.parametrize("name", ["tokens.bin", "tokenizer.json"])
def test_a_flipped_bit_is_found_by_verify(copy, name):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    open_token_data(copy)
    with pytest.raises(UsageError, match=f"{name} is damaged: its SHA-256"):
        open_token_data(copy, verify=True)


def test_another_vocabulary_than_the_tokenizers_is_found_by_verify(copy):
    rewrite(copy, vocab_size=301)
    with pytest.raises(UsageError, match="vocab_size is 301, the tokenizer has 300"):
        open_token_data(copy, verify=True)


def test_an_id_outside_the_vocabulary_is_found_whatever_chunk_it_is_in(monkeypatch):
    monkeypatch.setattr(tokens_module, "CHUNK", 4)
    ids = np.arange(10, dtype=np.uint16)
    check_token_ids(ids, 10, "tokens")
    check_token_ids(ids[:0], 10, "tokens")
    with pytest.raises(UsageError, match="token 9 is 9, the vocabulary has 9"):
        check_token_ids(ids, 9, "tokens")


def test_existing_files_are_never_overwritten(prepared):
    tokenizer = load_tokenizer(prepared / "tokenizer.json")
    ids = tokenizer.encode(TRAIN)
    with pytest.raises(FileExistsError):
        write_token_files(prepared, tokenizer, ids, ids, 1, 1, SOURCES)


def rewrite(folder, **fields):
    path = folder / "meta.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


HOSTILE_FIELDS = [
    {"format_version": 2},
    {"format_version": True},
    {"dtype": "float64"},
    {"dtype": "object"},
    {"dtype": ">u2"},
    {"vocab_size": 0},
    {"vocab_size": -5},
    {"vocab_size": 2**70},
    {"vocab_size": 70_000},
    {"vocab_size": "300"},
    {"vocab_size": 300.0},
    {"train": {"tokens": -1, "bytes": 1}},
    {"train": {"tokens": 2**63, "bytes": 1}},
    {"train": {"tokens": 10**30, "bytes": 1}},
    {"train": {"tokens": 2**47, "bytes": 1}},
    {"train": {"tokens": 0, "bytes": 0}, "val": {"tokens": 0, "bytes": 0}},
    {"train": None},
    {"val": []},
    {"sources": [{"name": "../../etc/passwd", "bytes": 1, "sha256": "0" * 64}]},
    {"sources": [{"name": "a\nb", "bytes": 1, "sha256": "0" * 64}]},
    {"sources": [{"name": "", "bytes": 1, "sha256": "0" * 64}]},
    {"sources": "plays"},
    {"tokens_sha256": "0" * 63},
    {"tokens_sha256": "0" * 64 + "\n"},
    {"tokenizer_sha256": None},
    {"extra": 1},
]


@pytest.mark.parametrize("fields", HOSTILE_FIELDS, ids=lambda fields: json.dumps(fields)[:60])
def test_a_hostile_meta_field_is_one_clear_line(copy, fields):
    rewrite(copy, **fields)
    assert_refused_in_one_line(copy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FIELDS = [
    "format_version",
    "dtype",
    "vocab_size",
    "train",
    "val",
    "sources",
    "tokens_sha256",
    "tokenizer_sha256",
]


@settings(max_examples=200, deadline=None)
@given(field=st.sampled_from([*FIELDS, "other"]), value=JSON)
def test_any_other_value_in_any_meta_field_is_refused_or_changes_nothing(
    prepared, tmp_path_factory, field, value
):
    folder = tmp_path_factory.mktemp("hostile")
    for file in ("tokens.bin", "tokenizer.json"):
        (folder / file).hardlink_to(prepared / file)
    meta = json.loads((prepared / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, field: value}))
    try:
        data = open_token_data(folder)
    except UsageError as error:
        assert "\n" not in str(error) and str(error).isprintable()
    else:
        assert data.train.tolist() == open_token_data(prepared).train.tolist()


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[]", b"{}", b"nul", b"[" * 100_000, b'{"a":' * 50_000]
)
def test_a_meta_file_that_is_no_meta_is_one_clear_line(copy, content):
    (copy / "meta.json").write_bytes(content)
    assert_refused_in_one_line(copy)


def test_an_oversized_meta_file_is_not_read(copy):
    with (copy / "meta.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match="limit"):
        open_token_data(copy)


def assert_refused_in_one_line(folder):
    with pytest.raises(UsageError) as caught:
        open_token_data(folder)
    assert "meta.json" in str(caught.value) and str(caught.value).isprintable()
