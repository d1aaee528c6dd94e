"""A file is followed as it grows, is cut or exchanged: what is read is what a whole reading gives."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.report.following import Following
from feste_dp.run.metrics import COLUMNS, encode_row, read_metrics, read_rows
from tests.report.conftest import row

HEADER = (",".join(COLUMNS) + "\n").encode()


def lines(content: bytes) -> tuple[list[bytes], int]:
    end = content.rfind(b"\n") + 1
    return content[:end].splitlines(), end


def test_each_line_is_read_once_and_a_partial_one_not_yet(tmp_path: Path) -> None:
    path = tmp_path / "file"
    following = Following(path, lines)
    following.update()
    assert following.rows == []
    path.write_bytes(b"one\ntw")
    following.update()
    assert following.rows == [b"one"]
    path.write_bytes(b"one\ntwo\nthree\n")
    following.update()
    assert following.rows == [b"one", b"two", b"three"]


def test_an_exchanged_a_shorter_and_a_missing_file_are_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\n")
    following = Following(path, lines)
    following.update()
    (tmp_path / "other").write_bytes(b"one\nTWO\nthree\n")
    (tmp_path / "other").replace(path)
    following.update()
    assert following.rows == [b"one", b"TWO", b"three"]
    with path.open("r+b") as file:
        file.truncate(4)
    following.update()
    assert following.rows == [b"one"]
    path.unlink()
    following.update()
    assert following.rows == []


@given(cuts=st.lists(st.integers(1, 400), max_size=12))
def test_metrics_read_in_any_pieces_are_the_rows_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("following") / "metrics.csv"
    sample = 'HAMLET.\n"To be," he said,\nor not'
    whole = HEADER + b"".join(encode_row(row(step, sample=sample if step == 2 else "")) for step in (1, 2, 3))
    following = Following(path, read_rows)
    path.touch()
    for cut in sorted(cuts):
        path.write_bytes(whole[:cut])
        following.update()
    path.write_bytes(whole)
    following.update()
    assert following.rows == read_metrics(path)
