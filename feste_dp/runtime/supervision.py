"""What to do about a lost worker, and how long to wait for a silent one. Pure: sees no process and no clock.

A lost worker is replaced, unless too many were lost of late: then the run goes on without it, and ends when
none is left. A piece of work that has ended three workers ends the run, for it would end any other too. Where
the machine cannot start another now, or none becomes ready, the place stays vacant, and is tried again and
again.
"""

import math
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

SUSPECT_LIMIT = 3
START_LIMIT = 3
STEPS_PER_REPLACEMENT = 10
"""Finished steps that earn one more replacement: a crash in every step ends a run, one in an hour never."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
"""Before a vacant place is tried again; each pause is twice as long as the one before."""

_FIRST_PATIENCE_S = 30.0
_LEAST_PATIENCE_S = 1.0
_PATIENCE = 5.0  # times as long as the longest piece of its kind so far


@dataclass(frozen=True)
class Verdict:
    """Whether to start a worker in the place of the lost one; `end` says why the run cannot go on."""

    replace: bool
    end: str | None = None


class Supervision:
    """Remembers losses."""

    def __init__(self, workers: int) -> None:
        self._most = self._replacements = 8 + 2 * workers
        self._steps = 0
        self._deaths: Counter[tuple[str, Hashable]] = Counter()
        self._failed_starts: Counter[int] = Counter()

    def step_done(self) -> None:
        self._steps += 1
        self._deaths.clear()
        if self._steps % STEPS_PER_REPLACEMENT == 0:
            self._replacements = min(self._most, self._replacements + 1)

    def ready(self, worker: int) -> None:
        self._failed_starts[worker] = 0

    def lost(self, worker: int, where: str, suspect: Hashable | None, *, was_ready: bool) -> Verdict:
        """A worker ended that was not asked to. suspect names the piece of work it was at, such as "shard 5";
        `where` the phase and step, such as "compute of step 3"."""
        if suspect is not None:
            self._deaths[where, suspect] += 1
            if self._deaths[where, suspect] >= SUSPECT_LIMIT:
                return Verdict(False, f"{suspect} in {where} has ended {SUSPECT_LIMIT} workers")
        if not was_ready:
            self._failed_starts[worker] += 1
            if self._failed_starts[worker] >= START_LIMIT:
                return Verdict(False)
        if self._replacements == 0:
            return Verdict(False)
        self._replacements -= 1
        return Verdict(True)


class Vacancies:
    """The places for which no worker could be started, and when each is tried again. Times are those of any
    one clock, in seconds."""

    def __init__(self) -> None:
        self._pauses: dict[int, float] = {}
        self._due: dict[int, float] = {}

    def failed(self, worker: int, now: float) -> None:
        pause = self._pauses.get(worker, 0.0)
        self._pauses[worker] = min(2 * pause, LONGEST_PAUSE_S) if pause else FIRST_PAUSE_S
        self._due[worker] = now + self._pauses[worker]

    def fill(self, worker: int) -> None:
        """One is started; until it is ready() the next pause would be longer still."""
        self._due.pop(worker, None)

    def ready(self, worker: int) -> None:
        self._pauses.pop(worker, None)

    def clear(self) -> None:
        self._due.clear()
        self._pauses.clear()

    def due(self, now: float) -> list[int]:
        return sorted(worker for worker, moment in self._due.items() if moment <= now)

    @property
    def next_try(self) -> float:
        """Infinite where there is none."""
        return min(self._due.values(), default=math.inf)


class Patience:
    """How long a worker may be silent before it is worth a line, by how long its kind of work took before."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def done(self, kind: str, seconds: float) -> bool:
        """A piece is done; whether there is less patience from here on, as after the first."""
        is_first = kind not in self._longest
        self._longest[kind] = max(seconds, self._longest.get(kind, 0.0))
        return is_first

    def seconds(self, kind: str) -> float:
        longest = self._longest.get(kind)
        return _FIRST_PATIENCE_S if longest is None else max(_LEAST_PATIENCE_S, _PATIENCE * longest)
