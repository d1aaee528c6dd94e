"""What arrives on a socket becomes a message of this run, or is dropped, counted and told of.

Knows the run's token and the shape of its frames; nothing of sockets, phases and workers, whose owners drop
through it too. Whoever can write to a socket of ours (it lies in a private directory for the seconds in which
workers connect) can thereby fill neither the log nor the memory, and cannot end the run.
"""

import secrets
import time
from collections.abc import Callable, Sequence

from feste_dp.runtime.messages import Message, ProtocolError, decode

TELL_EVERY_S = 60.0


class FrameReader:
    """Reads the frames of one socket. `dropped` counts those that were not of this run.

    `tell` gets one line for the first that is dropped, and then at most one in TELL_EVERY_S with the count.
    """

    def __init__(
        self,
        token: bytes,
        expected: tuple[type[Message], ...],
        most_bytes: int,
        tell: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """expected are the kinds of message that the other side may send, most_bytes the longest of them."""
        self.dropped = 0
        self._token, self._expected, self._most_bytes = token, expected, most_bytes
        self._tell, self._clock = tell, clock
        self._told, self._told_at = 0, float("-inf")

    def read(self, frames: Sequence[bytes]) -> Message | None:
        """The message in [token, content]; None, and counted, for anything else."""
        try:
            # the whole of the token is compared whatever the first wrong byte: the time tells nothing of it
            if len(frames) != 2 or not secrets.compare_digest(frames[0], self._token):
                raise ProtocolError("not a frame of this run")
            if len(frames[1]) > self._most_bytes:
                raise ProtocolError(f"frame of {len(frames[1])} bytes, more than {self._most_bytes}")
            message = decode(frames[1])
            if not isinstance(message, self._expected):
                raise ProtocolError(f"{type(message).__name__} from the wrong side")
        except ProtocolError as error:
            self.drop(error)
            return None
        return message

    def drop(self, why: ProtocolError) -> None:
        """Count a frame that its reader has no use for, and tell of it unless that was done just now."""
        self.dropped += 1
        now = self._clock()
        if now - self._told_at < TELL_EVERY_S:
            return
        fresh, self._told, self._told_at = self.dropped - self._told, self.dropped, now
        frames = "a frame" if fresh == 1 else f"{fresh} frames"
        self._tell(f"dropped {frames} that came on the run's socket ({self.dropped} so far); the last: {why}")
