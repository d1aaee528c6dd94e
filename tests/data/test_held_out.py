"""What is held out, and where documents end."""

import numpy as np
import pytest

from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.held_out import Stretch, held_in_files, split_at_end, split_by_document
from feste_dp.data.preparation import Choices, prepare_for_run, prepare_token_data
from feste_dp.data.text_file import text_in_memory
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.errors import UsageError

PLAYS = read_shakespeare()
DOCUMENTS = [text_in_memory(f"{n}.txt", PLAYS[n * 5_000 : n * 5_000 + 4_000 + 100 * n]) for n in range(6)]
TOKENIZER = train_tokenizer([PLAYS[:40_000]], 400, end_of_text=True)
END = TOKENIZER.end_of_text


def documents_of(tokens) -> list[list[int]]:
    """What stands between the ends of text; the last may have none."""
    ends = np.flatnonzero(np.asarray(tokens) == END)
    return [part[part != END].tolist() for part in np.split(np.asarray(tokens), ends + 1)]


def with_line_end(text) -> str:
    content = "".join(text.pieces())
    return content if content.endswith("\n") else content + "\n"


def test_every_document_is_ended_and_the_cut_one_only_where_it_ends(tmp_path):
    choices = Choices(TOKENIZER, end_of_text=True)
    data = prepare_token_data(DOCUMENTS, 256, 0.3, tmp_path / "out", choices=choices)
    train, val = documents_of(data.train), documents_of(data.val)
    texts = [with_line_end(text) for text in DOCUMENTS]
    assert [TOKENIZER.decode(ids) for ids in train[:-1]] == texts[: len(train) - 1]
    assert val[-1] == [] and len(val) == len(texts) - len(train) + 2
    cut = len(train) - 1
    assert TOKENIZER.decode(train[-1]) + TOKENIZER.decode(val[0]) == texts[cut]
    assert [TOKENIZER.decode(ids) for ids in val[1:-1]] == texts[cut + 1 :]
    assert data.train_bytes + data.val_bytes == sum(len(text.encode()) for text in texts)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == TOKENIZER.to_json()


def test_without_an_end_of_text_the_ids_are_those_of_the_joined_text(tmp_path):
    data = prepare_token_data(DOCUMENTS, 256, 0.3, tmp_path / "out", choices=Choices(TOKENIZER))
    whole = "".join(map(with_line_end, DOCUMENTS))
    assert np.concatenate([data.train, data.val]).tolist() == TOKENIZER.encode(whole).tolist()


def test_a_trained_tokenizer_gets_an_end_of_text_where_asked(tmp_path):
    data = prepare_token_data(DOCUMENTS, 300, 0.3, tmp_path / "out", choices=Choices(end_of_text=True))
    tokenizer = load_tokenizer(data.tokenizer_path)
    assert (data.vocab_size, tokenizer.end_of_text) == (300, 299)
    assert (np.concatenate([data.train, data.val]) == 299).sum() == len(DOCUMENTS)
    plain = train_tokenizer([PLAYS[:40_000]], 400)
    with pytest.raises(UsageError, match="end_of_text: the tokenizer has no token that ends a text"):
        prepare_token_data(DOCUMENTS, 256, 0.3, tmp_path / "no", choices=Choices(plain, end_of_text=True))
    assert not (tmp_path / "no").exists()


def test_whole_documents_are_held_out_the_same_in_any_order():
    train, val = split_by_document(DOCUMENTS, 0.3)
    assert {text.name for text in (*train.texts, *val.texts)} == {text.name for text in DOCUMENTS}
    sizes = [sum(text.characters for text in part.texts) for part in (train, val)]
    assert 0.3 <= sizes[1] / sum(sizes) < 0.5
    _, again = split_by_document(DOCUMENTS[::-1], 0.3)
    assert {text.name for text in again.texts} == {text.name for text in val.texts}
    train, val = split_by_document(DOCUMENTS[:2] * 2, 0.99)
    assert {text.sha256 for text in train.texts}.isdisjoint(text.sha256 for text in val.texts)
    with pytest.raises(UsageError, match="one document only"):
        split_by_document(DOCUMENTS[:1] * 2, 0.3)


def test_validation_may_have_files_of_its_own_and_shares_none():
    train, val = held_in_files(DOCUMENTS[:4], DOCUMENTS[4:])
    assert "".join(train.pieces()) == "".join(map(with_line_end, DOCUMENTS[:4]))
    assert "".join(val.pieces()) == "".join(map(with_line_end, DOCUMENTS[4:]))
    with pytest.raises(UsageError, match=r"3.txt, for validation, is the same text as 3.txt"):
        held_in_files(DOCUMENTS[:4], DOCUMENTS[3:])


def test_the_tokenizer_never_sees_what_is_held_out(tmp_path):
    texts = [text_in_memory("a", "the cat sat on the mat\n" * 50), text_in_memory("b", "zqzqzqzq\n" * 200)]
    data = prepare_token_data(texts[:1], 260, 0.1, tmp_path / "out", choices=Choices(val_texts=texts[1:]))
    tokenizer = load_tokenizer(data.tokenizer_path)
    assert not any("zq" in token for token in tokenizer.inner.get_vocab())
    assert tokenizer.decode(data.val) == "zqzqzqzq\n" * 200


def test_a_stretch_that_ends_with_a_document_ends_it():
    first = len(with_line_end(DOCUMENTS[0]))
    assert [ends for _, ends in Stretch(DOCUMENTS, 0, first).documents()] == [True]
    assert [ends for _, ends in Stretch(DOCUMENTS, 0, first + 1).documents()] == [True, False]
    assert [ends for _, ends in split_at_end(DOCUMENTS, 0.3)[1].documents()][-1]


def test_text_of_a_run_is_prepared_with_the_tokenizer_that_it_has(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text(PLAYS[:30_000])
    data = prepare_for_run([str(path)], 512, 0.1, 64, tmp_path / "cache", tokenizer=TOKENIZER)
    assert data.vocab_size == 400 and data.tokenizer_path.read_bytes() == TOKENIZER.to_json()
    assert data.val[-1] == END
    again = prepare_for_run([str(path)], 512, 0.1, 64, tmp_path / "cache", tokenizer=TOKENIZER)
    other = prepare_for_run([str(path)], 400, 0.1, 64, tmp_path / "cache")
    assert data.directory == again.directory != other.directory
    same = prepare_for_run(str(data.directory), 512, 0.1, 64, tmp_path / "cache", tokenizer=TOKENIZER)
    assert same.fingerprint == data.fingerprint
    with pytest.raises(UsageError, match=r"vocabulary of 400, model\.vocab_size is 512"):
        prepare_for_run(str(data.directory), 512, 0.1, 64, tmp_path / "cache")
