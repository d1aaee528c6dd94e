"""Places in the arena where one process leaves a frame for another, instead of sending it by ZeroMQ.

Each worker has two. Into the one for orders it looks for a short while before it sleeps on its socket, so
that it is neither woken late nor moved to the core of another. In the other it leaves its reports and rings a
bell, an eventfd, which wakes the coordinator itself and not an I/O thread on either side first. What a box
does not take (its owner sleeps, or has not yet taken the frame before; the frame is too long) goes by ZeroMQ.
The frames are the same. docs/performance.md has what it gives.
"""

import time

import numpy as np
from numpy.typing import NDArray

from feste_dp.kernels.handover import AWAY, go_away, hand_over, is_full, is_listening, listen, look

BOX_BYTES = 4096
_WORD, _LENGTH, _ITEM, _CONTENT = slice(0, 8), slice(8, 16), slice(16, 24), slice(64, BOX_BYTES)
_ROUNDS = 200  # looks between two of the clock, about 80 us


class Letterbox:
    """BOX_BYTES of shared memory: a word that says whether the owner looks, a length, the item that the other
    side is at, the frame."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._word, self._length = memory[_WORD].view(np.int64), memory[_LENGTH].view(np.int64)
        self._item, self._content = memory[_ITEM].view(np.int64), memory[_CONTENT]

    def clear(self) -> None:
        """Before a worker starts: what was left there for, or by, the one before it counts no more."""
        self._word[0] = AWAY

    def listen(self) -> None:
        """The owner: it is awake, and will look here before it sleeps."""
        listen(self._word)

    @property
    def item(self) -> int:
        """What a worker was at when it ended: the number of an item, -1 between two orders."""
        return int(self._item[0])

    @item.setter
    def item(self, number: int) -> None:
        self._item[0] = number

    def put(self, frame: bytes) -> bool:
        """The other side: leave a frame; False where the owner sleeps or has not taken the one before, or the
        frame is too long."""
        size = len(frame)
        if size > len(self._content) or not is_listening(self._word):
            return False
        self._content[:size] = np.frombuffer(frame, np.uint8)
        self._length[0] = size
        given: bool = hand_over(self._word)
        return given

    def take(self, seconds: float) -> bytes | None:
        """The owner: the frame that comes within about so many seconds; None when it may now sleep."""
        deadline = time.perf_counter() + seconds
        while not look(self._word, _ROUNDS):
            if time.perf_counter() >= deadline and go_away(self._word):
                return None
        return self._taken()

    def collect(self) -> bytes | None:
        """The owner: the frame that is there, None without one. It stays awake."""
        return self._taken() if is_full(self._word) else None

    def _taken(self) -> bytes:
        frame = self._content[: self._length[0]].tobytes()
        listen(self._word)
        return frame
