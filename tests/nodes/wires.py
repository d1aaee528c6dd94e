"""Nodes in one process: ends of a Transport, joined by queues, each driven by a thread of its own.

Small messages are taken at once, as MPI takes them; what is longer than `eager_bytes` lies in the sender's
memory until it is received, so whoever changes it before `done()` sends something else.
"""

import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from feste_dp.nodes.link import Link
from feste_dp.nodes.transport import Request

Result = TypeVar("Result")


def octets(data: Any) -> memoryview:
    return memoryview(data).cast("B")


@dataclass
class _Sent:
    """A message: `taken` holds it where it was copied."""

    data: memoryview
    comes_at: float
    taken: bytes | None = None
    is_received: bool = False

    def done(self) -> bool:
        return self.taken is not None or self.is_received

    @property
    def received(self) -> int:
        raise AssertionError("nothing is received by a send")


@dataclass
class _Receive:
    end: "End"
    into: memoryview
    source: int
    tag: int
    received: int = 0
    is_done: bool = False

    def done(self) -> bool:
        self.end.progress(self.source, self.tag)
        return self.is_done


@dataclass
class Wires:
    """Between `size` nodes. delay(source, to, tag) in seconds."""

    size: int
    delay: Callable[[int, int, int], float] = lambda source, to, tag: 0.0
    eager_bytes: int = 4096
    lock: threading.RLock = field(default_factory=threading.RLock)
    unplugged: set[int] = field(default_factory=set)
    under_way: dict[tuple[int, int, int], deque[_Sent]] = field(default_factory=lambda: defaultdict(deque))

    def ends(self) -> list["End"]:
        return [End(self, rank) for rank in range(self.size)]

    def cut(self, node: int) -> None:
        """From now on nothing reaches this node, and nothing comes from it."""
        with self.lock:
            self.unplugged.add(node)

    def head(self, source: int, to: int, tag: int) -> _Sent | None:
        """The next message that has come."""
        queue = self.under_way[source, to, tag]
        if not queue or queue[0].comes_at > time.monotonic() or {source, to} & self.unplugged:
            return None
        return queue[0]


class End:
    """A Transport. `unreceived` is what was waited for when it was closed."""

    def __init__(self, wires: Wires, rank: int) -> None:
        self._wires, self.rank, self.size = wires, rank, wires.size
        self._waiting: dict[tuple[int, int], deque[_Receive]] = defaultdict(deque)
        self._sends: list[_Sent] = []
        self.is_closed = False
        self.unsent = 0

    def send(self, data: Any, to: int, tag: int) -> Request:
        assert not self.is_closed and to != self.rank
        wires, view = self._wires, octets(data)
        with wires.lock:
            queue = wires.under_way[self.rank, to, tag]
            comes_at = time.monotonic() + wires.delay(self.rank, to, tag)
            sent = _Sent(view, max(comes_at, queue[-1].comes_at) if queue else comes_at)
            if len(view) <= wires.eager_bytes:
                sent.taken = bytes(view)
            queue.append(sent)
            self._sends = [each for each in self._sends if not each.done()] + [sent]
        return sent

    def receive(self, into: Any, source: int, tag: int) -> Request:
        assert not self.is_closed and source != self.rank
        with self._wires.lock:
            receive = _Receive(self, octets(into), source, tag)
            self._waiting[source, tag].append(receive)
        return receive

    def incoming(self, tag: int) -> tuple[int, int] | None:
        assert not self.is_closed
        with self._wires.lock:
            for source in range(self.size):
                self.progress(source, tag)
                sent = self._wires.head(source, self.rank, tag)
                if sent is not None and not self._waiting[source, tag]:
                    return source, len(sent.data)
        return None

    def progress(self, source: int, tag: int) -> None:
        """Fill what was asked for first with what came first."""
        wires, waiting = self._wires, self._waiting[source, tag]
        with wires.lock:
            while waiting and (sent := wires.head(source, self.rank, tag)) is not None:
                wires.under_way[source, self.rank, tag].popleft()
                receive, content = waiting.popleft(), sent.data if sent.taken is None else sent.taken
                assert len(content) <= len(receive.into), "the message is longer than its buffer"
                receive.into[: len(content)] = content
                receive.received, receive.is_done, sent.is_received = len(content), True, True

    def close(self) -> None:
        assert not self.is_closed
        with self._wires.lock:
            self.is_closed = True
            self.unsent = sum(not sent.done() for sent in self._sends)


def on_nodes(ends: list[End], body: Callable[[End], Result], timeout_s: float = 20.0) -> list[Result]:
    """What body gives on each node, all of them at once; what one of them raises is the test's failure."""
    results: list[Any] = [None] * len(ends)
    errors: list[str] = []

    def run(end: End) -> None:
        try:
            results[end.rank] = body(end)
        except BaseException:
            errors.append(f"node {end.rank}: {traceback.format_exc()}")

    threads = [threading.Thread(target=run, args=(end,), daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not errors, "\n".join(errors)
    assert not any(thread.is_alive() for thread in threads), "a node waits for ever"
    return results


def linked(
    ends: list[End], body: Callable[[Link], Result], *, parts: bool = True, silent_after_s: float = 20.0
) -> list[Result]:
    """As on_nodes, with a Link on each node, which parts from the others in the end."""

    def run(end: End) -> Result:
        link = Link(end, silent_after_s)
        try:
            return body(link)
        finally:
            link.close(0, timeout_s=10.0 if parts else 0.0)

    return on_nodes(ends, run)
