"""Standard output and error, written so that nobody who prints ever waits for who reads.

A stopped pager, a stalled ssh or a stuck collector lets a pipe run full, and the next write blocks for ever.
So a thread writes; what finds no room is dropped, and counted in a line where it is missing. The descriptor
stays blocking: it may be shared with the user's shell.
"""

import errno
import os
import queue
import select
import signal
import threading
import time
import weakref
from collections import deque
from typing import TextIO

LIMIT_BYTES = 256 * 1024
"""What may wait for a reader, beside what the pipe holds: some thousand lines."""
PATIENCE_S = 2.0
"""How long the end of a program waits for a reader that takes nothing."""
LONGEST_END_S = 10.0
"""How long it waits for one that is slow."""
_PIECE = 4096  # a write to a pipe of no more is whole or not at all (PIPE_BUF)
_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Output:
    """A text stream that never fails and never waits. Characters that its encoding lacks are escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._unflushed = stream, ""
        self._descriptor = _descriptor_of(stream)
        self._channel = None if self._descriptor is None else _channel_of(self._descriptor)
        self._broken = False
        self.urgent = False
        """From now on nothing is dropped: what comes is the end, and short."""

    @property
    def encoding(self) -> str:
        return self._stream.encoding or "utf-8"

    def write(self, text: str) -> None:
        self._unflushed += text

    def flush(self) -> None:
        data, self._unflushed = self._unflushed.encode(self.encoding, "backslashreplace"), ""
        if not data:
            return
        if self._channel is not None and self._descriptor is not None:
            self._channel.put(self._descriptor, data, self.urgent)
        elif not self._broken:
            try:
                self._stream.write(data.decode(self.encoding))
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream was closed
                self._broken = True

    def line(self, text: str) -> None:
        self.write(f"{text}\n")
        self.flush()

    def troubles(self) -> list[str]:
        """What went wrong since the last call, a line each."""
        return [] if self._channel is None else self._channel.troubles()

    def drain(self) -> None:
        """Wait until all is written, but not for a reader that takes nothing."""
        if self._channel is not None:
            self._channel.drain()

    @property
    def lost_lines(self) -> int:
        """Lines for which the file behind it had no room."""
        return 0 if self._channel is None else self._channel.lost_lines


def write_if_room(descriptor: int, data: bytes) -> None:
    """Write a short line by the descriptor, or nothing where that would wait; never raises. For handlers of
    signals, which may run in the middle of anything."""
    try:
        if _has_room(descriptor, 0):
            os.write(descriptor, data[:_PIECE])
    except (OSError, ValueError):  # ValueError: no descriptor at all
        pass


class _Tally:
    """What the two sides of a channel tell each other; each field has one writer."""

    def __init__(self) -> None:
        self.given = 0
        self.taken = 0
        """Bytes given to the thread and done with by it."""
        self.written = 0
        self.lost_lines = 0
        """Lines that could not be written."""
        self.broken = False
        self.troubles: deque[str] = deque()


class _Channel:
    """The queue and thread of a file that one or more descriptors lead to: lines keep their order. `put`
    belongs to one thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._tally = _Tally()
        self._dropped = self._told_lost = 0
        self._threaded = True
        # a daemon, and no method: it must keep neither the program nor the channel
        thread = threading.Thread(
            target=_write_all, args=(self._queue, self._tally), name="output", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no further thread may be started
            self._threaded = False
        weakref.finalize(self, self._queue.put, None)

    def put(self, descriptor: int, data: bytes, urgent: bool) -> None:
        tally = self._tally
        if tally.broken:
            return
        if not self._threaded:
            return write_if_room(descriptor, data)
        if tally.given - tally.taken > LIMIT_BYTES and not urgent:
            if not self._dropped:
                tally.troubles.append("nobody reads the output: lines are dropped until somebody does")
            self._dropped += max(1, data.count(b"\n"))
            return
        missing = self._dropped + tally.lost_lines - self._told_lost
        if missing:
            self._dropped, self._told_lost = 0, tally.lost_lines
            plural = "s are" if missing > 1 else " is"
            data = f"[{missing} line{plural} missing here: the output took no more]\n".encode() + data
        tally.given += len(data)
        self._queue.put((descriptor, data))

    @property
    def lost_lines(self) -> int:
        return 0 if self._tally.broken else self._tally.lost_lines

    def troubles(self) -> list[str]:
        found = []
        while self._tally.troubles:
            found.append(self._tally.troubles.popleft())
        return found

    def drain(self) -> None:
        tally = self._tally
        began = moved = time.monotonic()
        written = tally.written
        while tally.taken < tally.given and not tally.broken:
            now = time.monotonic()
            if tally.written != written:
                written, moved = tally.written, now
            if now - moved > PATIENCE_S or now - began > LONGEST_END_S:
                return
            time.sleep(0.002)


_channels: "weakref.WeakValueDictionary[tuple[int, int], _Channel]" = weakref.WeakValueDictionary()


def _channel_of(descriptor: int) -> _Channel | None:
    """The one for the file behind the descriptor: standard output and error are often the same."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    key = status.st_dev, status.st_ino
    channel = _channels.get(key)
    if channel is None:
        channel = _channels[key] = _Channel()
    return channel


def _descriptor_of(stream: TextIO) -> int | None:
    try:
        stream.flush()
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # in memory, or closed
        return None


def _write_all(lines: "queue.SimpleQueue[tuple[int, bytes] | None]", tally: _Tally) -> None:
    """The life of the thread: writes what it is given until it is given None."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the main thread
    while (given := lines.get()) is not None:
        descriptor, data = given
        try:
            if not tally.broken:
                _write(descriptor, data, tally)
        except OSError as error:
            tally.lost_lines += data.count(b"\n")
            if error.errno not in _MAY_PASS:
                tally.broken = True
            if error.errno not in _MAY_PASS or not tally.troubles:
                tally.troubles.append(f"the output cannot be written: {error.strerror}; the run goes on")
        tally.taken += len(data)


def _write(descriptor: int, data: bytes, tally: _Tally) -> None:
    left = memoryview(data)
    while left:
        try:
            count = os.write(descriptor, left[:_PIECE])
        except BlockingIOError:  # somebody who shares it has made it so
            _has_room(descriptor, None)
            continue
        tally.written += count
        left = left[count:]


def _has_room(descriptor: int, timeout_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_ms))
