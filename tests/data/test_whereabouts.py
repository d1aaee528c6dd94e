import shutil

from feste_dp.data.preparation import prepare_for_run
from feste_dp.data.whereabouts import absolute_corpus, cached_tokens, corpus_beside, is_there


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("to be or not to be\n" * 100)
    return str(path)


def test_a_text_is_found_where_it_was_moved_together_with_the_run(tmp_path):
    for text in ("plays/a.txt", "runs/a.txt", "runs/r/a.txt", "deep/down/a.txt"):
        old, new = tmp_path / "home" / "project", tmp_path / "elsewhere" / "renamed"
        was, now = str(old / text), write(new / text)
        (new / "runs/r").mkdir(parents=True, exist_ok=True)
        assert corpus_beside(was, new / "runs/r") == now
        assert corpus_beside([was], new / "runs/r") == [now]
        assert corpus_beside([was, str(old / "gone.txt")], new / "runs/r") is None
        shutil.rmtree(new)


def test_of_several_texts_the_one_whose_path_ends_most_alike_is_found(tmp_path):
    write(tmp_path / "runs/r/a.txt")
    same = write(tmp_path / "plays/a.txt")
    assert corpus_beside("/home/plays/a.txt", tmp_path / "runs/r") == same


def test_a_text_that_lies_where_it_was_is_not_its_own_other_place(tmp_path):
    path = write(tmp_path / "a.txt")
    assert is_there(path) and is_there([path, path]) and not is_there([path, path + "x"])
    assert corpus_beside(path, tmp_path / "runs/r") is None


def test_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_corpus("a") == str(tmp_path / "a")
    assert absolute_corpus(["a", "/b"]) == [str(tmp_path / "a"), "/b"]


def test_tokens_are_found_in_the_cache_by_their_hashes_not_by_their_folder(tmp_path):
    text, cache = write(tmp_path / "a.txt"), tmp_path / "cache"
    data = prepare_for_run([text], 256, 0.1, 16, cache)
    data.directory.rename(data.directory.with_name("renamed"))
    found = cached_tokens(cache, data.fingerprint, data.tokenizer_sha256)
    assert found is not None and found.fingerprint == data.fingerprint
    assert cached_tokens(cache, data.fingerprint, "0" * 64) is None
    (found.directory / "tokens.bin").write_bytes(b"\0" * (found.directory / "tokens.bin").stat().st_size)
    assert cached_tokens(cache, data.fingerprint, data.tokenizer_sha256) is None
