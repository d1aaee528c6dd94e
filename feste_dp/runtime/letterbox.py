"""One worker's place in the arena for its next order, used for as long as the worker does not sleep.

A worker that has nothing to do looks into its letterbox for a short while and then sleeps on its socket. The
coordinator puts an order there, and sends it by ZeroMQ where the worker sleeps or has not yet taken the one
before. The frames are the same. docs/performance.md has what it gives: a worker that does not sleep is
neither woken late nor moved to the core of another.
"""

import time

import numpy as np
from numpy.typing import NDArray

from feste_dp.kernels.handover import AWAY, go_away, hand_over, is_listening, listen, look

BOX_BYTES = 4096
_WORD, _LENGTH, _CONTENT = slice(0, 8), slice(8, 16), slice(64, BOX_BYTES)
_ROUNDS = 200  # looks between two of the clock, about 80 us


class Letterbox:
    """BOX_BYTES of shared memory: a word that says whether the owner looks, a length, the frame."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._word, self._length = memory[_WORD].view(np.int64), memory[_LENGTH].view(np.int64)
        self._content = memory[_CONTENT]

    def clear(self) -> None:
        """The coordinator, before a worker starts: what a worker before it left there counts no more."""
        self._word[0] = AWAY

    def listen(self) -> None:
        """The worker: it is awake, and will look here before it sleeps."""
        listen(self._word)

    def put(self, frame: bytes) -> bool:
        """The coordinator: leave a frame; False where the worker sleeps or has not taken the one before, or
        the frame is too long."""
        size = len(frame)
        if size > len(self._content) or not is_listening(self._word):
            return False
        self._content[:size] = np.frombuffer(frame, np.uint8)
        self._length[0] = size
        given: bool = hand_over(self._word)
        return given

    def take(self, seconds: float) -> bytes | None:
        """The worker: the frame that comes within about so many seconds; None when it may now sleep."""
        deadline = time.perf_counter() + seconds
        while not look(self._word, _ROUNDS):
            if time.perf_counter() >= deadline and go_away(self._word):
                return None
        frame = self._content[: self._length[0]].tobytes()
        listen(self._word)
        return frame
