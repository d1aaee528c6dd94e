"""metrics.csv: exact round trips, torn files, full disks."""

import csv
import io
import math
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feste_dp.errors import UsageError
from feste_dp.run.metrics import (
    COLUMNS,
    MetricsRow,
    MetricsWriter,
    comparable_rows,
    encode_row,
    perplexity,
    read_metrics,
    read_rows,
    truncate_after,
)

HEADER = (
    "step,elapsed_seconds,learning_rate,train_loss,val_loss,"
    "train_perplexity,val_perplexity,grad_norm,tokens_per_second,sample\n"
)


def row(step: int, **changes: object) -> MetricsRow:
    plain = MetricsRow(step, 0.5 * step, 1e-3 / step, 7.0 - 0.1 * step, 1.25, 1000.0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def write(path: Path, rows: list[MetricsRow]) -> None:
    with MetricsWriter(path) as writer:
        for each in rows:
            writer.append(each)


SAMPLE = 'HAMLET.\n"To be," he said,\r\nor not\n'
ROWS = [row(1), row(2, val_loss=6.5), row(3, sample=SAMPLE), row(4, val_loss=6.25, sample='"\n"'), row(5)]


def same_text(text: str) -> str:
    """What a sample reads back as: lone surrogates become escapes."""
    return text.encode(errors="backslashreplace").decode()


losses = st.floats(allow_nan=False)


@given(
    step=st.integers(1, 10**9),
    lr=losses,
    loss=losses,
    val_loss=st.none() | losses,
    norm=losses,
    sample=st.text() | st.text(alphabet=st.sampled_from('",\n\r\x00\\ab\ud800')),
)
def test_any_row_reads_back_exactly_but_for_rounded_times(
    tmp_path_factory: pytest.TempPathFactory,
    step: int,
    lr: float,
    loss: float,
    val_loss: float | None,
    norm: float,
    sample: str,
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    rows = [MetricsRow(step, 1.23456, lr, loss, norm, 98.76, val_loss, sample), row(7)]
    write(path, rows)
    expected = replace(rows[0], elapsed_seconds=1.235, tokens_per_second=98.8, sample=same_text(sample))
    assert read_metrics(path) == [expected, row(7)]


@given(sample=st.text(min_size=1, alphabet=st.characters(codec="utf-8")))
def test_other_csv_readers_see_the_same_fields(sample: str) -> None:
    text = encode_row(row(3, val_loss=2.5, sample=sample)).decode()
    (fields,) = csv.reader(io.StringIO(text, newline=""))
    assert len(fields) == len(COLUMNS)
    assert (fields[0], fields[4], fields[-1]) == ("3", "2.5", sample)


def test_the_columns_are_those_of_the_format(tmp_path: Path) -> None:
    write(tmp_path / "m.csv", [row(4, val_loss=0.0)])
    text = (tmp_path / "m.csv").read_text()
    assert text == HEADER + f"4,2.000,0.00025,6.6,0.0,{perplexity(6.6)!r},1.0,1.25,1000.0,\n"


def test_nan_and_infinite_losses_survive(tmp_path: Path) -> None:
    write(tmp_path / "m.csv", [row(1, train_loss=math.nan, val_loss=math.inf)])
    (read,) = read_metrics(tmp_path / "m.csv")
    assert math.isnan(read.train_loss)
    assert math.isnan(read.train_perplexity)
    assert read.val_loss == read.val_perplexity == math.inf


def test_perplexity_is_capped_to_infinity() -> None:
    assert perplexity(0.0) == 1.0
    assert perplexity(1e9) == math.inf
    assert perplexity(-math.inf) == 0.0


@given(loss=st.floats(-700, 709))
def test_perplexity_is_the_exponential_function_within_two_units_of_its_last_place(loss: float) -> None:
    assert abs(perplexity(loss) - math.exp(loss)) <= 2 * math.ulp(math.exp(loss))


def test_each_row_is_one_write_and_visible_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = os.pwrite

    def counted(fd: int, data: bytes, offset: int) -> int:
        calls.append(data)
        return real(fd, data, offset)

    with MetricsWriter(tmp_path / "m.csv") as writer:
        monkeypatch.setattr(os, "pwrite", counted)
        for each in ROWS:
            writer.append(each)
            assert read_metrics(tmp_path / "m.csv")[-1] == each
    assert calls == [encode_row(each) for each in ROWS]


def test_a_file_cut_at_any_byte_gives_its_whole_rows_to_readers_and_is_repaired_by_a_writer(
    tmp_path: Path,
) -> None:
    path = tmp_path / "m.csv"
    write(path, ROWS)
    content = path.read_bytes()
    ends = [len(HEADER)]
    for each in ROWS:
        ends.append(ends[-1] + len(encode_row(each)))
    assert ends[-1] == len(content)
    for size in range(len(content) + 1):
        whole = max(sum(end <= size for end in ends) - 1, 0)
        path.write_bytes(content[:size])
        assert read_metrics(path) == ROWS[:whole]
        write(path, [row(9)])
        assert read_metrics(path) == [*ROWS[:whole], row(9)]
        path.write_bytes(content[:size])
        assert truncate_after(path, 5) == ROWS[:whole]
        assert path.read_bytes() == (content[: ends[whole]] if size >= len(HEADER) else b"")


def test_rows_after_a_step_are_cut_and_the_rest_is_untouched(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    write(path, ROWS)
    content = path.read_bytes()
    assert truncate_after(path, 10) == ROWS
    assert path.read_bytes() == content
    assert truncate_after(path, 3) == ROWS[:3]
    assert content.startswith(path.read_bytes())
    assert truncate_after(path, 0) == []
    assert path.read_text() == HEADER
    assert list(tmp_path.iterdir()) == [path]


def test_cutting_a_missing_file_finds_no_rows_and_makes_none(tmp_path: Path) -> None:
    assert truncate_after(tmp_path / "m.csv", 3) == []
    assert not list(tmp_path.iterdir())


def test_a_cut_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.csv"
    write(path, ROWS)
    content = path.read_bytes()

    def read_only(fd: int, size: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "ftruncate", read_only)
    with pytest.raises(UsageError, match="Read-only"):
        truncate_after(path, 2)
    assert path.read_bytes() == content


def test_a_cut_takes_no_room_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    write(path, ROWS)
    inode = path.stat().st_ino
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, old[1]))
    try:
        truncate_after(path, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert read_metrics(path) == ROWS[:2]
    assert path.stat().st_ino == inode and list(tmp_path.iterdir()) == [path]


def test_comparable_rows_ignore_times_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ROWS)
    write(tmp_path / "b.csv", [replace(each, elapsed_seconds=9.0, tokens_per_second=1.0) for each in ROWS])
    write(tmp_path / "c.csv", [replace(each, grad_norm=math.nextafter(1.25, 2)) for each in ROWS])
    a, b, c = (comparable_rows(tmp_path / f"{name}.csv") for name in "abc")
    assert a == b != c
    assert list(a[0]) == [name for name in COLUMNS if name not in ("elapsed_seconds", "tokens_per_second")]


def test_a_full_disk_raises_and_leaves_whole_rows_and_later_rows_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsWriter(path) as writer:
        writer.append(row(1))
        before = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, old[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                writer.append(row(2, sample=SAMPLE))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert path.read_bytes() == before
        writer.append(row(3))
    assert read_metrics(path) == [row(1), row(3)]


def test_a_writer_killed_at_any_time_leaves_rows_in_order(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from feste_dp.run.metrics import MetricsRow, MetricsWriter
with MetricsWriter(Path(sys.argv[1])) as writer:
    for step in range(1, 10**9):
        writer.append(MetricsRow(step, 0.0, 1e-3, 2.0, 1.0, 0.0, sample='"x"\\n' * 50))
        if step == 100:
            print("going", flush=True)
"""
    path = tmp_path / "m.csv"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"going\n"
        process.send_signal(signal.SIGKILL)
    rows = read_metrics(path)
    assert len(rows) >= 100
    assert [each.step for each in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "loss\n" + text, "header"),
        (lambda text: text.replace("\n2,", "\ntwo,"), "row 2 is damaged"),
        (lambda text: text.replace("\n2,", "\n"), "row 2 is damaged .9 fields"),
        (lambda text: text + "6,0,0,0,,0,,0,0,unquoted\n", "row 6 is damaged .a sample without quotes"),
    ],
)
def test_a_damaged_file_is_named_and_refused(
    tmp_path: Path, damage: Callable[[str], str], message: str
) -> None:
    path = tmp_path / "m.csv"
    write(path, [row(step) for step in range(1, 6)])
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match=message):
        read_metrics(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"m\.csv: No such file"):
        read_metrics(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (lambda text: text.replace("\n", "\r\n"), "CRLF line ends"),
        (lambda text: "\ufeff" + text, "a byte order mark"),
        (lambda text: text.replace(",", ";"), "semicolons between the columns"),
        (lambda text: text.replace(",", "\t"), "tabs between the columns"),
        (lambda text: text.replace("step", '"step"', 1), "quotes around the names"),
        (lambda text: text.replace(",0.5,", ",0.500000,", 1).replace("0.001,", "1E-03,", 1), "'1E-03'"),
        (lambda text: text.replace("\n1,0.500,", "\n1,0.5,", 1), "'0.5'"),
    ],
)
def test_what_a_spreadsheet_made_of_a_file_is_named_with_the_way_out(
    change: Callable[[str], str], sign: str, tmp_path: Path
) -> None:
    path = tmp_path / "my metrics.csv"
    write(path, [row(1), row(2)])
    changed = change(path.read_text()).encode()
    path.write_bytes(changed)
    with pytest.raises(UsageError, match=re.escape(sign)) as refused:
        truncate_after(path, 1)
    line = str(refused.value)
    assert "a spreadsheet" in line and "\n" not in line and path.read_bytes() == changed
    subprocess.run(line[line.rindex("mv ") :], shell=True, check=True)
    assert truncate_after(path, 1) == [] and (tmp_path / "my metrics-changed.csv").read_bytes() == changed
    if "'" not in sign:
        with pytest.raises(ValueError, match=re.escape(sign)):
            read_rows(changed)
