import hashlib
import lzma
import runpy
from pathlib import Path

import pytest

from feste_dp.data import corpus
from feste_dp.data.corpus import MEMORY_PER_BYTE, embedded_shakespeare, read_shakespeare, read_texts
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


def test_files_are_read_in_order_and_without_change(tmp_path):
    texts = ["one\r\ntwo\rthree", "\ufeffäöü 漢字 \u2028 🎭\n"]
    paths = [tmp_path / "b.txt", tmp_path / "a.txt"]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    assert read_texts(paths) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"abc\0def", r"is binary \(a NUL byte at offset 3\)"),
        (b"abcd\xff", r"is not UTF-8 \(bad byte 0xff at offset 4\)"),
        ("half a character: ä".encode()[:-1], r"is not UTF-8 \(bad byte 0xc3 at offset 18\)"),
    ],
)
def test_a_bad_text_file_is_named_with_what_is_wrong(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_texts([str(path)])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_a_folder_and_an_unreadable_file_are_named(tmp_path):
    loop = tmp_path / "loop.txt"
    loop.symlink_to(loop)
    for path, message in (
        (tmp_path / "none.txt", "does not exist"),
        (tmp_path, "is a directory"),
        (Path("/dev/null"), "not a regular file"),
        (loop, "cannot be read"),
        ("nul\0name", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=message):
            read_texts([path])


def test_text_too_large_to_prepare_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on disk
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    with pytest.raises(UsageError) as caught:
        read_texts([path], memory=150 * 2**20)
    assert str(caught.value) == (
        f"text file {path} is too large: 1,048,576 MiB, of which 10 MiB can be prepared in the memory "
        "that is available: give less text, or prepare it on a larger machine"
    )
    with pytest.raises(UsageError, match="the 2 text files are too large"):
        read_texts([path, path], memory=2**40)


def test_text_that_fits_exactly_is_read(tmp_path):
    path = tmp_path / "small.txt"
    path.write_text("x" * 100)
    assert read_texts([path], memory=100 * MEMORY_PER_BYTE) == ["x" * 100]
    with pytest.raises(UsageError, match="too large"):
        read_texts([path], memory=100 * MEMORY_PER_BYTE - 1)
