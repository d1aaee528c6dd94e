import bz2
import gzip
import hashlib
import lzma
import os
import socket
import zipfile

import pytest

from feste_dp.data import text_file
from feste_dp.data.text_file import survey, text_in_memory
from feste_dp.errors import UsageError

MIXED = "one\r\ntwo\rthree äöü 漢字 \u2028 🎭\n" * 50


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 2**20])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_text_comes_back_as_it_stands_without_its_byte_order_mark(tmp_path, monkeypatch, piece_bytes, bom):
    path = tmp_path / "a.txt"
    path.write_bytes(bom + MIXED.encode())
    monkeypatch.setattr(text_file, "_PIECE_BYTES", max(piece_bytes, len(bom)))
    text, same = survey(path), text_in_memory(str(path), MIXED)
    assert "".join(text.pieces()) == "".join(text.pieces()) == MIXED
    facts = [(each.name, each.size, each.characters, each.sha256, each.ends_line) for each in (text, same)]
    assert facts[0] == facts[1] and text.sha256 == hashlib.sha256(MIXED.encode()).hexdigest()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"abc\0def", r"is binary \(a NUL byte at offset 3\)"),
        (b"\xef\xbb\xbfabc\0def", r"is binary \(a NUL byte at offset 6\)"),
        (b"abcd\xff", r"is not UTF-8 \(bad byte 0xff at offset 4\)"),
        ("half a character: ä".encode()[:-1], r"is not UTF-8 \(bad byte 0xc3 at offset 18\)"),
        (b"x" * (2**20 - 1) + "ä".encode() + b"\xff", r"bad byte 0xff at offset 1048577\)"),
        ("text ä\n".encode("utf-16"), "is UTF-16: convert it, with iconv -f UTF-16 -t UTF-8"),
        ("text ä\n".encode("utf-32"), "is UTF-32: convert it"),
        ("to be or not\n".encode("utf-16-le"), "is UTF-16 without a byte order mark, .* -f UTF-16LE"),
        ("to be or not\n".encode("utf-16-be"), "is UTF-16 without a byte order mark, .* -f UTF-16BE"),
        (gzip.compress(b"text", mtime=0), r"is compressed \(gzip\): unpack it first, with gunzip"),
        (bz2.compress(b"text"), r"is compressed \(bzip2\)"),
        (lzma.compress(b"text"), r"is compressed \(xz\)"),
        (b"\x28\xb5\x2f\xfd\x04\x00\x21", r"is compressed \(zstd\)"),
        (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3", "is a PDF"),
    ],
)
def test_what_is_no_utf8_text_is_named_for_what_it_is(tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        survey(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_zip_archive_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.txt", "w") as archive:
        archive.writestr("a", "text")
    with pytest.raises(UsageError, match="is a zip archive"):
        survey(tmp_path / "a.txt")


def test_what_is_no_file_is_named_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    os.mkfifo("pipe.txt")
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("socket.txt")
    for name, message in (
        ("none.txt", "does not exist"),
        (".", "it is a directory"),
        ("/dev/null", "it is a device"),
        ("pipe.txt", "it is a FIFO"),
        ("socket.txt", "it is a socket"),
        ("loop.txt", "cannot be read"),
        ("nul\0name", "cannot be read"),
        ("x" * 300, "cannot be read: File name too long"),
    ):
        with pytest.raises(UsageError, match=message):
            survey(text_file.Path(name))
    listener.close()


def test_a_text_that_changes_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("to be\n")
    text = survey(path)
    path.write_text("to be, or not\n")
    with pytest.raises(UsageError, match=r"a\.txt changed while it was read"):
        list(text.pieces())
