import hashlib
import lzma
import os
import resource
import runpy
from pathlib import Path

import pytest

from feste_dp.data import corpus
from feste_dp.data.corpus import embedded_shakespeare, read_corpus, read_shakespeare
from feste_dp.errors import UsageError

SCRIPT = Path(__file__).parents[2] / "data" / "make_shakespeare.py"


def test_the_embedded_text_is_the_one_the_script_names():
    text = lzma.decompress(embedded_shakespeare().read_bytes())
    assert hashlib.sha256(text).hexdigest() == runpy.run_path(str(SCRIPT))["TEXT_SHA256"]
    assert text.decode("ascii") == read_shakespeare()


def test_the_embedded_text_holds_38_plays_in_printed_form():
    plays = read_shakespeare().split("\n\n\n")
    assert len(plays) == 38
    for play in plays:
        assert "\n\nACT I\n\n" in play and "\n\nSCENE I. " in play and "\n\nACT V\n\n" in play
    assert "\n\nHAMLET.\nTo be, or not to be: that is the question:\n" in read_shakespeare()


def test_the_tail_for_validation_mixes_a_comedy_a_history_a_tragedy_and_a_romance():
    plays = read_shakespeare().split("\n\n\n")
    titles = [play.partition("\n")[0] for play in plays[-4:]]
    assert titles == [
        "THE TWO GENTLEMEN OF VERONA",
        "RICHARD III",
        "TROILUS AND CRESSIDA",
        "THE WINTER'S TALE",
    ]


def test_an_installed_copy_is_found_beside_the_module(tmp_path, monkeypatch):
    installed = tmp_path / "feste_dp" / "data" / "shakespeare.txt.xz"
    installed.parent.mkdir(parents=True)
    installed.write_bytes(lzma.compress(b"text"))
    monkeypatch.setattr(corpus, "__file__", str(installed.with_name("corpus.py")))
    assert embedded_shakespeare() == installed


def test_a_missing_or_damaged_embedded_text_asks_for_a_new_installation(tmp_path, monkeypatch):
    (tmp_path / "feste_dp" / "data").mkdir(parents=True)
    monkeypatch.setattr(corpus, "__file__", str(tmp_path / "feste_dp" / "data" / "corpus.py"))
    with pytest.raises(UsageError, match=r"missing .* reinstall"):
        read_shakespeare()
    (tmp_path / "feste_dp" / "data" / "shakespeare.txt.xz").write_bytes(b"no xz at all")
    with pytest.raises(UsageError, match=r"damaged .* reinstall"):
        read_shakespeare()


def write(path, content="to be\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def read(places):
    return ["".join(text.pieces()) for text in read_corpus(places).texts]


def test_files_are_read_in_the_order_given(tmp_path):
    paths = [str(write(tmp_path / name, f"{name}\n")) for name in ("b.txt", "a.md", "c")]
    assert read(paths) == ["b.txt\n", "a.md\n", "c\n"]
    assert read_corpus(paths).note is None


def test_a_folder_is_read_with_all_below_it_in_the_order_of_bytes(tmp_path):
    names = ["Z.txt", "a.txt", "a/b.TXT", "a/c/d.txt", "é.txt", "zz/a.txt"]
    for name in reversed(names):
        write(tmp_path / "texts" / name, name)
    assert read(str(tmp_path / "texts")) == ["Z.txt", "a/b.TXT", "a/c/d.txt", "a.txt", "zz/a.txt", "é.txt"]
    assert read([str(tmp_path / "texts")]) == read(str(tmp_path / "texts"))
    assert read([str(tmp_path / "texts/Z.txt"), str(tmp_path / "texts/a")]) == [
        "Z.txt",
        "a/b.TXT",
        "a/c/d.txt",
    ]


def test_what_a_folder_leaves_out_is_said_with_how_much_it_took(tmp_path):
    folder = tmp_path / "texts"
    write(folder / "a.txt", "ä" * 1000)
    (folder / "b.txt").symlink_to(write(tmp_path / "elsewhere.txt", "linked"))
    for name in (".hidden.txt", ".git/x.txt", "notes.md", "more.md", "old.txt.gz"):
        write(folder / name)
    write(folder / "empty.txt", "")
    (folder / "loop").symlink_to(folder)
    (folder / "broken.txt").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.txt")
    found = read_corpus(str(folder))
    assert [text.size for text in found.texts] == [2000, 6]
    assert found.note is not None and found.note.startswith(
        f"{folder}: 2 .txt files, 2,006 bytes; left out: "
    )
    for part in ("2 hidden", "2 with another ending (.md)", "1 compressed (.gz)", "1 empty", "others"):
        assert part in found.note, found.note


def test_a_name_that_is_too_long_or_has_a_nul_is_one_line():
    for name in ("x" * 300, "a\0b"):
        for places in (name, [name]):
            with pytest.raises(UsageError, match="cannot be read"):
                read_corpus(places)


def test_a_folder_without_text_says_what_is_in_it(tmp_path):
    write(tmp_path / "texts" / "a.txt.gz")
    with pytest.raises(UsageError, match=r"texts holds no \.txt files .* left out: 1 compressed \(\.gz\)"):
        read_corpus(str(tmp_path / "texts"))


def test_thousands_of_files_are_read_with_few_open_at_a_time(tmp_path):
    for number in range(2000):
        (tmp_path / f"{number:05d}.txt").write_text(f"{number}\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        assert read(str(tmp_path)) == [f"{number}\n" for number in range(2000)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
