"""The fingerprint decides which tokens a run gets, wherever they lie."""

import hashlib
import json
from types import SimpleNamespace

import pytest

from feste_dp.config.schema import Config
from feste_dp.data.preparation import prepare_token_data
from feste_dp.data.text_file import text_in_memory
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.errors import UsageError
from feste_dp.run.token_data import find_tokens, prepare_tokens, with_corpus

TEXT = "to be or not to be, that is the question\n" * 100


@pytest.fixture
def place(tmp_path):
    """A text, a config that names it, the hashes of its tokens, and a folder for a run."""
    text = tmp_path / "old" / "plays" / "a.txt"
    text.parent.mkdir(parents=True)
    text.write_text(TEXT)
    config = Config.model_validate(
        {"model": {"vocab_size": 256, "block_size": 16}, "data": {"corpus": [str(text)]}}
    )
    data = prepare_tokens(config, tmp_path / "cache")
    known = SimpleNamespace(data_sha256=data.fingerprint, tokenizer_sha256=data.tokenizer_sha256)
    run = tmp_path / "new" / "runs" / "r"
    run.mkdir(parents=True)
    return SimpleNamespace(
        text=text, config=config, data=data, known=known, run=run, cache=tmp_path / "cache", root=tmp_path
    )


def test_the_text_where_it_was_needs_no_word(place):
    found = find_tokens(place.config, place.run, place.known, place.cache)
    assert (found.moved, found.corpus) == (None, place.config.data.corpus)


def test_a_text_moved_together_with_the_run_is_found_without_any_cache(place):
    (place.root / "old" / "plays").rename(place.root / "new" / "plays")
    found = find_tokens(place.config, place.run, place.known, place.root / "fresh")
    moved = place.root / "new" / "plays" / "a.txt"
    assert found.corpus == [str(moved)] and found.data.fingerprint == place.known.data_sha256
    assert found.moved == f"data.corpus: {place.text} -> {moved}"


def test_another_text_in_the_old_place_does_not_hide_the_one_beside_the_run(place):
    moved = place.root / "new" / "plays"
    (place.root / "old" / "plays").rename(moved)
    place.text.parent.mkdir()
    place.text.write_text(TEXT + "more\n" * 300)
    assert find_tokens(place.config, place.run, place.known, place.cache).corpus == [str(moved / "a.txt")]


def test_a_text_that_is_gone_is_not_needed_while_its_tokens_are_in_the_cache(place):
    place.text.unlink()
    found = find_tokens(place.config, place.run, place.known, place.cache)
    assert found.data.directory == place.data.directory
    assert found.moved == f"data.corpus: {place.text} is not there any more; its tokens are in the cache"
    with pytest.raises(
        UsageError, match=r"a\.txt does not exist, there or beside the run, nor .* put it back"
    ):
        find_tokens(place.config, place.run, place.known, place.root / "fresh")


def test_prepared_tokens_stand_for_the_text_they_were_made_of(place):
    out = place.root / "tokens"
    prepare_token_data([text_in_memory("other name", TEXT)], 256, 0.1, out)
    place.text.unlink()
    config = with_corpus(place.config, str(out))
    assert find_tokens(config, place.run, place.known, place.cache, asked=True).data.directory == out


def test_a_place_that_the_user_names_is_the_only_one_and_what_differs_is_named(place):
    other = place.root / "other.txt"
    other.write_text(TEXT + "more\n" * 300)
    config = with_corpus(place.config, [str(other)])
    with pytest.raises(UsageError, match=r"other\.txt has 5,600 bytes, the run's had 4,100"):
        find_tokens(config, place.run, place.known, place.cache, asked=True)
    with pytest.raises(UsageError, match=r"tokens with SHA-256 [0-9a-f]{8}\.\., the run's have [0-9a-f]{8}"):
        find_tokens(config, place.run, place.known, place.root / "fresh", asked=True)
    with pytest.raises(UsageError, match=r"gone\.txt does not exist: check the name"):
        find_tokens(with_corpus(config, ["gone.txt"]), place.run, place.known, place.cache, asked=True)


def test_the_order_of_the_files_counts(place):
    second = place.root / "b.txt"
    second.write_text("all the world's a stage\n" * 100)
    config = with_corpus(place.config, [str(place.text), str(second)])
    data = prepare_tokens(config, place.cache)
    known = SimpleNamespace(data_sha256=data.fingerprint, tokenizer_sha256=data.tokenizer_sha256)
    swapped = with_corpus(config, [str(second), str(place.text)])
    with pytest.raises(UsageError, match="the same text files in another order"):
        find_tokens(swapped, place.run, known, place.cache, asked=True)


def test_a_run_of_a_version_that_encoded_lines_without_saying_so_finds_its_tokens(place):
    """Its tokenizer.json has no splitting into lines; the ids of its text are those of the lines."""
    text = "the cat \r\nsat on \r\nthe mat \r\n" * 200
    place.text.write_text(text)
    document = json.loads(train_tokenizer([text], 266).to_json())
    document["pre_tokenizer"] = document["pre_tokenizer"]["pretokenizers"][1]
    tokenizer_file = place.run / "tokenizer.json"
    tokenizer_file.write_text(json.dumps(document))
    plain = load_tokenizer(tokenizer_file)
    ids = plain.line_by_line().encode(text)
    assert ids.tolist() != plain.encode(text).tolist()
    config = place.config.model_copy(
        update={"model": place.config.model.model_copy(update={"vocab_size": 266})}
    )
    known = SimpleNamespace(
        data_sha256=hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest(),
        tokenizer_sha256=hashlib.sha256(tokenizer_file.read_bytes()).hexdigest(),
    )
    found = find_tokens(config, place.run, known, place.cache)
    assert (found.moved, found.data.fingerprint) == (None, known.data_sha256)
    tokenizer_file.unlink()
    with pytest.raises(UsageError, match="tokenizer with SHA-256"):
        find_tokens(config, place.run, known, place.root / "fresh")
