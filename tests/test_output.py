"""Printing into pipes that nobody reads, that are closed, and into full disks."""

import contextlib
import fcntl
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from feste_dp import output
from feste_dp.output import LIMIT_BYTES, Output, write_if_room
from feste_dp.train import signals
from feste_dp.train.signals import write_notice

PAGE = 4096


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reading end of a pipe that holds 4096 bytes, and a stream into it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PAGE)
    with open(writer, "w") as stream:  # noqa: PTH123
        yield reader, stream
        with contextlib.suppress(OSError):
            os.close(reader)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PATIENCE_S", 0.05)


def read_all(reader: int) -> list[str]:
    """What comes until nothing has for a while."""
    os.set_blocking(reader, False)
    content, silent = b"", 0
    while silent < 20:
        try:
            content += os.read(reader, 1 << 20)
            silent = 0
        except BlockingIOError:
            silent += 1
            time.sleep(0.01)
    return content.decode().splitlines()


def test_lines_that_nobody_reads_are_dropped_and_counted_and_the_others_keep_their_order(
    pipe: tuple[int, TextIO],
) -> None:
    reader, stream = pipe
    out = Output(stream)
    total = LIMIT_BYTES // 100 + 500
    for number in range(total):
        out.line(f"{number:099}")
    assert out.troubles() == ["nobody reads the output: lines are dropped until somebody does"]
    shown = read_all(reader)
    assert [int(line) for line in shown] == list(range(len(shown)))
    assert LIMIT_BYTES // 100 <= len(shown) < total
    out.line("again")
    assert read_all(reader) == [
        f"[{total - len(shown)} lines are missing here: the output took no more]",
        "again",
    ]
    assert out.troubles() == []


def test_the_end_is_not_dropped_and_does_not_wait_for_who_reads_nothing(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    out = Output(stream)
    for _ in range(LIMIT_BYTES // 100 + 500):
        out.line("x" * 99)
    out.urgent = True
    out.line("the end")
    before = time.monotonic()
    out.drain()
    assert time.monotonic() - before < 5
    assert read_all(reader)[-1] == "the end"


def test_a_slow_reader_gets_all_of_it(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, stream = pipe
    monkeypatch.setattr(output, "PATIENCE_S", 5.0)
    seen: list[bytes] = []

    def read_slowly() -> None:
        while piece := os.read(reader, PAGE):
            seen.append(piece)
            time.sleep(0.005)

    thread = threading.Thread(target=read_slowly)
    thread.start()
    out = Output(stream)
    for number in range(1000):
        out.line(f"{number:099}")
    out.drain()
    stream.close()
    thread.join()
    assert [int(line) for line in b"".join(seen).splitlines()] == list(range(1000))


def test_two_streams_into_one_pipe_keep_the_order_of_their_lines(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    with open(os.dup(stream.fileno()), "w") as other:  # noqa: PTH123
        out, err = Output(stream), Output(other)
        for number in range(100):
            (out, err)[number % 3 == 0].line(str(number))
        out.drain()
        err.drain()
    assert read_all(reader) == [str(number) for number in range(100)]


def test_a_pipe_that_is_closed_is_told_once(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.close(reader)
    out = Output(stream)
    for _ in range(10):
        out.line("x")
        out.drain()
    assert out.troubles() == ["the output cannot be written: Broken pipe; the run goes on"]


def test_a_full_disk_is_told_and_tried_again() -> None:
    with Path("/dev/full").open("w") as stream:
        out = Output(stream)
        for _ in range(10):
            out.line("x")
            out.drain()
        assert out.troubles() == ["the output cannot be written: No space left on device; the run goes on"]


def test_where_no_thread_can_be_started_lines_are_written_while_there_is_room(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, stream = pipe

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    fcntl.fcntl(
        stream.fileno(), fcntl.F_SETPIPE_SZ, 16 * PAGE
    )  # one page alone has room only while it is empty
    out = Output(stream)
    for number in range(20_000):
        out.line(str(number))
    out.drain()
    shown = read_all(reader)
    assert shown[:3] == ["0", "1", "2"] and len(shown) < 20_000


def test_a_stream_in_memory_is_written_at_once() -> None:
    stream = io.StringIO()
    out = Output(stream)
    out.line("x")
    assert stream.getvalue() == "x\n" and out.troubles() == []


def test_a_handler_of_signals_writes_only_where_there_is_room(
    pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, stream = pipe
    for _ in range(PAGE):
        write_if_room(stream.fileno(), b"x" * 100)
    assert len(read_all(reader)[0]) <= PAGE
    os.close(reader)
    write_if_room(stream.fileno(), b"x")
    write_if_room(-1, b"x")
    monkeypatch.setattr(signals, "write_if_room", lambda fd, data: seen.append((fd, data)))
    seen: list[tuple[int, bytes]] = []
    write_notice("stopping")
    assert seen == [(2, b"\nstopping\n")]


def test_signals_are_left_to_the_main_thread(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    out = Output(stream)
    out.line("x")
    out.drain()
    (thread,) = [each for each in threading.enumerate() if each.name == "output"][-1:]
    blocked = next(
        int(line.split()[1], 16)
        for line in Path(f"/proc/self/task/{thread.native_id}/status").read_text().splitlines()
        if line.startswith("SigBlk")
    )
    assert blocked >> (signal.SIGTERM - 1) & 1 and blocked >> (signal.SIGINT - 1) & 1
