"""feste-dp prepare with tokenizers that are there, documents, and validation text of its own."""

import numpy as np
import pytest

from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.data.tokens import open_token_data

PLAYS = read_shakespeare()


@pytest.fixture
def books(tmp_path):
    folder = tmp_path / "books"
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.txt").write_text(PLAYS[n * 9_000 : n * 9_000 + 8_000])
    return folder


@pytest.mark.parametrize("what", ["run", "tokenizer.json", "tokens"])
def test_the_tokenizer_of_a_run_a_file_or_token_data_is_used(feste, place, what, books, tmp_path):
    given = {"run": place.run, "tokenizer.json": place.run / "tokenizer.json", "tokens": place.tokens}[what]
    result = feste("prepare", books, "--tokenizer", given, "--out", tmp_path / "out")
    assert (result.status, result.err) == (0, "") and "vocabulary 300" in result.out
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (place.run / "tokenizer.json").read_bytes()


def test_documents_are_ended_where_the_tokenizer_can_or_when_asked(feste, books, tmp_path):
    own = train_tokenizer([PLAYS[:30_000]], 400, end_of_text=True)
    (tmp_path / "tokenizer.json").write_bytes(own.to_json())

    def ends(name, *options):
        result = feste("prepare", books, *options, "--out", tmp_path / name)
        assert (result.status, result.err) == (0, "")
        data = open_token_data(tmp_path / name, verify=True)
        end = load_tokenizer(data.tokenizer_path).end_of_text
        return int((np.concatenate([data.train, data.val]) == end).sum()) if end is not None else None

    given = ("--tokenizer", tmp_path / "tokenizer.json")
    assert ends("a", *given) == 4
    assert ends("b", *given, "--no-end-of-text") == 0
    assert ends("c", "--vocab-size", "300") is None
    assert ends("d", "--vocab-size", "300", "--end-of-text") == 4
    assert ends("e", *given, "--split", "document", "--val-fraction", "0.4") == 4


def test_a_file_for_validation_is_held_out(feste, books, tmp_path):
    held = books / "3.txt"
    text = held.read_text()
    val = tmp_path / "val.txt"
    held.rename(val)
    result = feste("prepare", books, "--vocab-size", "300", "--val", val, "--out", tmp_path / "out")
    assert result.status == 0
    data = open_token_data(tmp_path / "out")
    decoded = load_tokenizer(data.tokenizer_path).decode(data.val)
    assert decoded == text if text.endswith("\n") else decoded == text + "\n"


def test_choices_that_do_not_go_together_create_nothing(feste, books, tmp_path):
    out = ("--out", tmp_path / "out")
    plain = train_tokenizer([PLAYS[:30_000]], 300)
    (tmp_path / "plain.json").write_bytes(plain.to_json())
    (tmp_path / "bad.json").write_text("{}")
    one = books / "0.txt"
    for options, words in (
        ((), "give either --vocab-size or --tokenizer"),
        (("--vocab-size", "300", "--tokenizer", tmp_path / "plain.json"), "give either"),
        (("--vocab-size", "300", "--val", one, "--split", "text"), "leave --val-fraction and --split away"),
        (("--vocab-size", "300", "--val", one), "is the same text as"),
        (("--tokenizer", tmp_path / "bad.json"), "is no byte-level BPE tokenizer (it has no model)"),
        (("--tokenizer", tmp_path / "none.json"), "none.json does not exist"),
        (
            ("--tokenizer", tmp_path / "plain.json", "--end-of-text"),
            "--end-of-text: the tokenizer has no token",
        ),
        (("--vocab-size", "256", "--end-of-text"), "--vocab-size: 256 is too few: set it to 257"),
    ):
        result = feste("prepare", books, *options, *out)
        assert (result.status, result.err.count("\n")) == (2, 1)
        assert words in result.err
        assert not (tmp_path / "out").exists()
    alone = feste("prepare", one, "--vocab-size", "300", "--split", "document", *out)
    assert alone.status == 2 and "there is one document only" in alone.err
