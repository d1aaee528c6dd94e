"""Which of two ways to do the same is the faster one at present, found out by trying."""

import math

_TRIES, _FIRST_REST, _LONGEST_REST = 3, 64, 1024


class Pace:
    """Threads that wait for each other are slower than one where other programs use the cores as well, by up
    to ten times, and which it is changes. So the way that seemed slower is tried again now and then, less and
    less often."""

    def __init__(self) -> None:
        self.way = 0
        """The one to take: 0, at first, or 1."""
        self._best = [math.inf, math.inf]
        self._rest = _FIRST_REST
        self._tries_left, self._calls_left = _TRIES, 0

    def took(self, seconds: float) -> None:
        """What a call took in this way."""
        self._best[self.way] = min(self._best[self.way], seconds)
        if self._tries_left:
            self._tries_left -= 1
            if not self._tries_left:
                self._decide()
            return
        self._calls_left -= 1
        if self._calls_left < _TRIES:
            self._best[self.way] = seconds if self._calls_left == _TRIES - 1 else self._best[self.way]
        if not self._calls_left:
            self._try_the_other()

    def _decide(self) -> None:
        if math.inf in self._best:
            self._try_the_other()
            return
        self.way = 0 if self._best[0] <= self._best[1] else 1
        self._calls_left = self._rest
        self._rest = min(2 * self._rest, _LONGEST_REST)

    def _try_the_other(self) -> None:
        self.way = 1 - self.way
        self._best[self.way] = math.inf
        self._tries_left = _TRIES
