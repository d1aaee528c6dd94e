"""How a run is doing: from its lock and the last thing its history says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from feste_dp.run.events import BEGINNINGS, ENDS, FAIL, FINISH, Event
from feste_dp.wording import command

State = Literal["training", "finished", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Status:
    """The state and a sentence on it."""

    state: State
    text: str

    @property
    def is_over(self) -> bool:
        return self.state != "training"


def status_of(
    locked: bool, events: Sequence[Event], last_step: int, steps: int, run: Path, marked: bool = False
) -> Status:
    """`locked` must have been looked up before the events were read: a run ends after its last event.
    `marked`: it has the file `finished`."""
    if locked:
        return Status("training", f"step {last_step:,} of {steps:,}")
    turns = [event for event in events if event.kind in BEGINNINGS | ENDS]
    if not turns or (marked and turns[-1].kind != FINISH):
        if marked or last_step >= steps:
            return Status("finished", f"finished after step {last_step:,}")
        return Status("stopped", f"ended after step {last_step:,}; it kept no history that says how")
    last = turns[-1]
    if last.kind == FINISH:
        return Status("finished", last.text)
    if last.kind == FAIL:
        return Status("failed", f"failed after step {last.step:,}: {last.text}")
    if last.kind in BEGINNINGS:
        sign = events[-1].time.strftime("%Y-%m-%d %H:%M:%S")
        return Status(
            "interrupted",
            f"its process ended after step {last_step:,} without a word; last sign of life {sign} UTC; "
            f"to go on from its last checkpoint: {command('resume', run)}",
        )
    return Status("stopped", last.text)
