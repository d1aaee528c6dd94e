"""The history of a run, read again and again while it grows: each event is looked at once."""

from pathlib import Path

from feste_dp.report.following import Following
from feste_dp.run.events import BEGINNINGS, ENDS, TIMES, Event, decode_event


class Chronicle:
    """What events.jsonl has said so far."""

    def __init__(self, path: Path) -> None:
        self._following = Following(path, _read_events)
        self._begin()

    def _begin(self) -> None:
        self._seen, self._taken = self._following.rows, 0
        self.events: list[Event] = []
        """All but times."""
        self.times: list[Event] = []
        """Where the seconds of steps went; of steps that a resume did again, the last time only."""
        self._turns: list[Event] = []

    def update(self) -> None:
        """Read what is new. Raises OSError and ValueError."""
        self._following.update()
        if self._following.rows is not self._seen:
            self._begin()
        for event in self._seen[self._taken :]:
            self.add(event)
        self._taken = len(self._seen)

    def add(self, event: Event) -> None:
        if event.kind == TIMES:
            self.times.append(event)
            return
        self.events.append(event)
        if event.kind in BEGINNINGS | ENDS:
            self._turns.append(event)
        if event.kind in BEGINNINGS:
            while self.times and self.times[-1].step > event.step:
                self.times.pop()

    @property
    def turns(self) -> list[Event]:
        """The beginnings and ends, and whatever was said last: what the state of the run is read from."""
        return [*self._turns, *self._seen[-1:]]


def _read_events(content: bytes) -> tuple[list[Event], int]:
    end = content.rfind(b"\n") + 1
    decoded = [decode_event(line) for line in content[:end].splitlines()]
    return [event for event in decoded if event is not None], end
