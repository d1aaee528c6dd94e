"""The tracker `jsonl`: everything as JSON lines in tracker.jsonl, for programs of one's own to follow.

Each line has `type`: start, scalars, text or event. The file only grows: after a resume, `start` names the
step that the run goes on from, and what came before for later steps no longer counts.
"""

import json
from collections.abc import Mapping

from feste_dp.files.growing import LineFile
from feste_dp.json_text import json_text
from feste_dp.run.events import Event, encode_event
from feste_dp.run.trackers.tracker import RunFacts, Tracker

FILE_NAME = "tracker.jsonl"


class JsonLines(Tracker):
    """Writes `<run>/tracker.jsonl`. A NaN or infinity, which JSON lacks, is written as null."""

    name = "jsonl"

    def start(self, run: RunFacts) -> None:
        self._file = LineFile(run.directory / FILE_NAME)
        self._write({"type": "start", "run": run.name, "step": run.first_step, "config": dict(run.config)})

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._write({"type": "scalars", "step": step, **values})

    def text(self, step: int, tag: str, text: str) -> None:
        self._write({"type": "text", "step": step, "tag": tag, "text": text})

    def event(self, event: Event) -> None:
        self._write({"type": "event", **json.loads(encode_event(event))})

    def close(self) -> None:
        self._file.close()

    def _write(self, content: Mapping[str, object]) -> None:
        self._file.append(json_text(content))
