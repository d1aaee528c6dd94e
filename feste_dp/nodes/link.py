"""The nodes as each of them sees the others: words to all, arrays from the first, signs of life.

A thread watches: it sends a sign of life every second, hears the others', passes on a signal that asks to
stop, and takes note of a node that says nothing any more. Who waits for the others, waits here, and hears of
that at once. Numbers have their own way, array_sum.py.
"""

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
import numpy as np

from feste_dp.errors import RunError, on_one_line
from feste_dp.nodes.transport import Request, Transport
from feste_dp.wording import counted

ALIVE_EVERY_S = 1.0
SILENT_S = 20.0
"""A node that gives no sign of life for so long is lost; half of run.step_timeout_s where that is less."""
WORDS_BYTES = 1 << 20
"""Most that a node says to all at once: it has room for 30,000 shards."""
_LOOK_S = 0.1
_CONTROL, _WORDS, _BROADCAST = 1, 2, 3
_PIECE_BYTES = 4 << 20
_ENDED_S = 5.0
"""Who waits for so long, while another node has said goodbye, waits in vain."""
_LAST_WORDS_S = 2.0
_LISTENS = 0.25
"""Of the time after which another is silent, who calls it so has listened for this part at least."""
_SPIN_S = 3e-4
_LONGEST_SLEEP_S = 1e-3

Advance = Callable[[], bool | None]
"""One look at what is waited for: True when it is there, None when nothing has happened since the last."""


class NodeLostError(RunError):
    """Another node is gone, or has failed; what it said of it."""


@dataclass(frozen=True)
class Told:
    """What another node has to say to the people who watch the first."""

    node: int
    kind: str
    text: str
    """Which names it."""
    level: Literal["message", "warning"]


@dataclass
class _Peer:
    heard_at: float
    looks: int = 0
    """How often this node has looked for a word of it in vain since."""
    status: int | None = None
    """Its exit status, once it has said goodbye."""
    alive: Request | None = None


class Link:
    """One end of the connections between all nodes. Methods but `tell` belong to the main thread;
    all nodes call those that say so in the same order."""

    def __init__(
        self,
        transport: Transport,
        silent_after_s: float = SILENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._clock = transport, clock
        self.rank, self.size = transport.rank, transport.size
        self.peers = [node for node in range(self.size) if node != self.rank]
        self.names = [f"node {node}" for node in range(self.size)]
        """As people know them: "node 1 (beta)"."""
        self.silent_after_s = silent_after_s
        self.own_stop: Callable[[], int | None] = lambda: None
        """The signal that asks this node to stop."""
        self.pass_on: Callable[[int], None] = lambda signum: None
        """Called in the watching thread with a signal that asked another node to stop."""
        self.on_post: Callable[[int, Any], None] = lambda node, value: None
        """Called in the watching thread with what another node has posted."""
        self.wake: Callable[[], None] = lambda: None
        """Called in the watching thread when `failure` is set: who waits elsewhere is to look."""
        self.failure: str | None = None
        """What has become of another node, once it cannot go on."""
        self.failed_status = 1
        """Its exit status then."""
        self.has_parted = False
        """Whether all have said goodbye to each other."""
        now = clock()
        self._peers = {node: _Peer(now) for node in self.peers}
        self._heard = {node: bytearray(WORDS_BYTES) for node in self.peers}
        self._outbox: deque[tuple[int, bytes]] = deque()
        self._sending: list[Request] = []
        self._coming: deque[tuple[int, bytearray, Request]] = deque()
        self._told: deque[Told] = deque()
        self._passed_on = False
        self._parent = os.getppid()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nodes", daemon=True)
        self._thread.start()

    @property
    def is_first(self) -> bool:
        """Whether this node owns the run's directory and speaks for all."""
        return self.rank == 0

    def all_gather(self, words: bytes) -> list[bytes]:
        """What each node says, in their order. All nodes call it. Raises NodeLostError."""
        assert len(words) <= WORDS_BYTES, len(words)
        waiting = {node: self._transport.receive(self._heard[node], node, _WORDS) for node in self.peers}
        sends = [self._transport.send(words, node, _WORDS) for node in self.peers]
        said = {self.rank: words}

        def advance() -> bool | None:
            come = [node for node, request in waiting.items() if request.done()]
            for node in come:
                said[node] = bytes(self._heard[node][: waiting.pop(node).received])
            if not waiting and all(send.done() for send in sends):
                return True
            return False if come else None

        self.drive(advance)
        return [said[node] for node in range(self.size)]

    def gather(self, value: object) -> list[Any]:
        """As all_gather, of anything that msgpack can pack."""
        return [
            msgpack.unpackb(words, strict_map_key=False) for words in self.all_gather(msgpack.packb(value))
        ]

    def meet(self) -> None:
        """Return when all nodes have come here. All nodes call it."""
        self.gather(None)

    def from_first(self, content: bytes | None) -> bytes:
        """What the first node gives, of any length. All nodes call it."""
        length = self.gather(None if content is None else len(content))[0]
        buffer = np.empty(length, np.uint8)
        if content is not None:
            buffer[:] = np.frombuffer(content, np.uint8)
        self.copy_from_first(buffer)
        return buffer.tobytes()

    def copy_from_first(self, array: "np.ndarray[Any, Any]") -> None:
        """Overwrite a flat array with that of the first node. All nodes call it."""
        octets = array.view(np.uint8)
        pieces = [octets[at : at + _PIECE_BYTES] for at in range(0, len(octets), _PIECE_BYTES)]
        for piece in pieces:
            if self.is_first:
                requests = [self._transport.send(piece, node, _BROADCAST) for node in self.peers]
            else:
                requests = [self._transport.receive(piece, 0, _BROADCAST)]
            self.wait_for(requests)

    def wait_for(self, requests: Sequence[Request]) -> None:
        """Return when these are done. Raises NodeLostError."""
        waiting = list(requests)

        def advance() -> bool | None:
            before = len(waiting)
            waiting[:] = [request for request in waiting if not request.done()]
            return True if not waiting else (False if len(waiting) < before else None)

        self.drive(advance)

    def drive(self, advance: Advance, spin_s: float = _SPIN_S) -> None:
        """Look until what is waited for is there. Sleeps between looks where nothing has happened for spin_s,
        for others need the cores. Raises NodeLostError."""
        since = time.perf_counter()
        while True:
            done = advance()
            if done:
                return
            if self.failure is not None:
                if advance():  # who has ended may have said before what is waited for
                    return
                raise NodeLostError(self.failure)
            now = time.perf_counter()
            if done is not None:
                since = now
            elif now - since < spin_s:
                os.sched_yield()
            else:
                time.sleep(min(_LONGEST_SLEEP_S, (now - since) / 20))
                if now - since > _ENDED_S:
                    self._check_ended()

    def check(self) -> None:
        """Raises NodeLostError where another node cannot go on."""
        if self.failure is not None:
            raise NodeLostError(self.failure)

    def _check_ended(self) -> None:
        """Raises NodeLostError where another node has ended, and so will not come to where this one waits."""
        ended = [self.names[node] for node, peer in self._peers.items() if peer.status is not None]
        if ended:
            raise NodeLostError(f"{', '.join(ended)} has ended while this node waits for it")

    def post(self, node: int, value: object) -> None:
        """Hand another node's on_post anything that msgpack can pack; what is posted to it arrives in this
        order. For any thread, returns at once."""
        self._outbox.append((node, msgpack.packb(["post", value])))

    def is_up(self, node: int) -> bool:
        """Whether more can be heard of it. For any thread."""
        return self._may_say_goodbye(self._peers[node])

    def tell(self, kind: str, text: str, level: str) -> None:
        """Say it on the first node."""
        self._outbox.append((0, msgpack.packb(["tell", kind, text, level])))

    def told(self) -> list[Told]:
        """What the others have said since."""
        taken = []
        while self._told:
            taken.append(self._told.popleft())
        return taken

    def close(self, status: int, reason: str | None = None, *, timeout_s: float = math.inf) -> int:
        """Say goodbye with this exit status, and why where it failed, and wait for the goodbyes of those who
        live. Returns the status of all: the first node's, where it said one. May be called again."""
        if self._closing.is_set():
            return status
        if reason is not None:
            self._to_all(["failed", status, reason])
        self._to_all(["bye", status, self.failure])
        deadline = self._clock() + timeout_s
        while self._clock() < deadline and any(map(self._may_say_goodbye, self._peers.values())):
            time.sleep(_LOOK_S / 10)
        self._closing.set()
        self._thread.join()
        self.has_parted = all(peer.status is not None for peer in self._peers.values())
        with contextlib.suppress(RunError):
            self._say_last_words()
            if self.has_parted:
                self._transport.close()
        first = status if self.is_first else self._peers[0].status
        return status if first is None else first

    def _may_say_goodbye(self, peer: _Peer) -> bool:
        return peer.status is None and not self._is_silent(peer)

    def _say_last_words(self) -> None:
        """Return when what was said is on its way: it may have been said since the last look."""
        deadline = time.monotonic() + _LAST_WORDS_S
        self._flush()
        while self._sending and time.monotonic() < deadline:
            time.sleep(_LONGEST_SLEEP_S)
            self._flush()

    def _to_all(self, words: Sequence[object]) -> None:
        packed = msgpack.packb(words)
        self._outbox.extend((node, packed) for node in self.peers)

    def _watch(self) -> None:
        try:
            self._watch_until_closed()
        except Exception as error:
            self._fail(f"{self.names[self.rank]}: no connection to the others any more: {on_one_line(error)}")

    def _watch_until_closed(self) -> None:
        alive, alive_at = msgpack.packb(["alive"]), -ALIVE_EVERY_S
        while not self._closing.wait(_LOOK_S):
            now = self._clock()
            if now - alive_at >= ALIVE_EVERY_S:
                alive_at = now
                for node, peer in self._peers.items():
                    # one at a time, to a node that does not listen
                    if peer.alive is None or peer.alive.done():
                        peer.alive = self._transport.send(alive, node, _CONTROL)
            signum = self.own_stop()
            if signum is not None and not self._passed_on:
                self._passed_on = True
                self._to_all(["stop", signum])
            self._flush()
            self._hear()
            self._look_for_silence()

    def _flush(self) -> None:
        while self._outbox:
            node, packed = self._outbox.popleft()
            if node == self.rank:
                continue
            self._sending.append(self._transport.send(packed, node, _CONTROL))
        self._sending = [request for request in self._sending if not request.done()]

    def _hear(self) -> None:
        while (found := self._transport.incoming(_CONTROL)) is not None:
            node, size = found
            buffer = bytearray(size)
            self._coming.append((node, buffer, self._transport.receive(buffer, node, _CONTROL)))
        # a long one may take its time, or never come whole
        unfinished: set[int] = set()
        for _ in range(len(self._coming)):
            node, buffer, request = self._coming.popleft()
            if node in unfinished or not request.done():
                unfinished.add(node)
                self._coming.append((node, buffer, request))
                continue
            self._peers[node].heard_at, self._peers[node].looks = self._clock(), 0
            with contextlib.suppress(ValueError):
                self._take(node, msgpack.unpackb(bytes(buffer)))

    def _take(self, node: int, words: Sequence[Any]) -> None:
        match words:
            case ["stop", int(signum)]:
                self._passed_on = True
                self.pass_on(signum)
            case ["tell", str(kind), str(text), "message" | "warning" as level]:
                self._told.append(Told(node, kind, f"{self.names[node]}: {text}", level))
            case ["post", value]:
                self.on_post(node, value)
            case ["failed", int(status), str(reason)]:
                self._fail(f"{self.names[node]}: {reason}", status)
            case ["bye", int(status), str() | None as heard]:
                self._peers[node].status = status
                if status != 0:  # because of what it heard, which may come later here
                    self._fail(heard or f"{self.names[node]} has ended with status {status}", status)

    def _look_for_silence(self) -> None:
        for peer in self._peers.values():
            peer.looks += 1
        silent = [node for node, peer in self._peers.items() if peer.status is None and self._is_silent(peer)]
        if silent:
            names = ", ".join(self.names[node] for node in silent)
            self._fail(f"{names} gave no sign of life for {self.silent_after_s:g} s: lost, or cut off")
        if os.getppid() != self._parent:
            self._fail(f"the launcher of the {counted(self.size, 'node')} (process {self._parent}) is gone")

    def _is_silent(self, peer: _Peer) -> bool:
        # one that was stopped itself, or starved, looks for a while before it calls another silent
        looks = _LISTENS / _LOOK_S * self.silent_after_s
        return peer.looks > looks and self._clock() - peer.heard_at > self.silent_after_s

    def _fail(self, text: str, status: int = 1) -> None:
        if self.failure is None:
            self.failed_status = status
            self.failure = text
            self.wake()
