"""The interface of a tracker: something outside this program that takes the figures of a run as they come.

A tracker may be slow and may fail: courier.py sees to it that neither holds up the training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from feste_dp.run.events import Event


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told before the first step."""

    directory: Path
    config: Mapping[str, object]
    """Every key as `section.key`: the hyper-parameters."""
    config_text: str
    first_step: int
    """The last step that is done already: 0, or that of the checkpoint a resumed run goes on from."""

    @property
    def name(self) -> str:
        return self.directory.name


class Tracker:
    """Takes everything and keeps nothing; a subclass overrides what it has a place for. Any method may raise.

    All calls come from one thread, `start` first, `close` last.
    """

    name = "none"

    def start(self, run: RunFacts) -> None:
        """The run begins, or goes on."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Figures of a finished step, such as {"loss/train": 3.1}."""

    def text(self, step: int, tag: str, text: str) -> None:
        """Text that the model wrote after a step."""

    def event(self, event: Event) -> None:
        """Something happened to the run."""

    def close(self) -> None:
        """Nothing more will come: keep what was given, let go of files and connections."""
