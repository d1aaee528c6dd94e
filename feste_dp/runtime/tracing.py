"""What a process did when, as events of the format that ui.perfetto.dev and chrome://tracing open.

Each process records its own steps in memory and writes them to a file of its own; merge_traces makes one of
them. Clocks are time.perf_counter, which all processes of a machine share.

Format: "Trace Event Format", the Chromium project: complete events X, metadata M, flows s and f.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from feste_dp.files.writing import write_whole
from feste_dp.kernels.stamps import BEGINNING, Place, places_in
from feste_dp.model import gpt2
from feste_dp.runtime import messages as m

MAX_STEPS = 100
"""Steps in one trace: some thousand events each, more than a viewer shows well."""

_LAYERED = gpt2.forward.__name__, gpt2.backward.__name__
"""The listings whose loop goes over the layers."""
_PIECE = "*.events.json"
# A flow is drawn to the slice that lies around its end; this much before the slice's own end.
_INSIDE_S = 1e-7


class TraceRequest(BaseModel):
    """Which steps to trace, first and last included, and where each process puts its events."""

    model_config = ConfigDict(frozen=True, strict=True)

    first: int
    last: int
    directory: str


class Recorder:
    """The events of one process."""

    def __init__(self, request: TraceRequest, name: str, order: int) -> None:
        """name and order are those of the track."""
        self._request, self._file = (
            request,
            Path(request.directory) / f"{name.replace(' ', '-')}-{os.getpid()}",
        )
        self._pid = os.getpid()
        self._places: dict[int, Place] = {}
        with contextlib.suppress(OSError, SyntaxError):  # as the listings are now: they may change meanwhile
            self._places = places_in(Path(gpt2.__file__))
        self._seen: Counter[tuple[str, str]] = Counter()
        self._events: list[dict[str, Any]] = [
            self._metadata("process_name", {"name": name}),
            self._metadata("process_sort_index", {"sort_index": order}),
            self._metadata("thread_name", {"name": "main"}),
        ]

    def wants(self, step: int) -> bool:
        return self._request.first <= step <= self._request.last

    def is_past(self, step: int) -> bool:
        """Whether no step to come will be traced."""
        return step > self._request.last

    def slice(self, name: str, category: str, started: float, ended: float, **details: object) -> None:
        """Something that took from `started` to `ended`, time.perf_counter()."""
        event: dict[str, Any] = {
            "name": name,
            "cat": category,
            "ph": "X",
            "ts": 1e6 * started,
            "dur": 1e6 * max(0.0, ended - started),
            "pid": self._pid,
            "tid": self._pid,
        }
        if details:
            event["args"] = details
        self._events.append(event)

    def phases(self, step: int, phases: Mapping[str, tuple[float, float]]) -> None:
        """The phases of a step by name, each from when to when."""
        if self.wants(step):
            for name, (started, ended) in phases.items():
                self.slice(name, "phase", started, ended, step=step)

    def kernels(self, stamps: Sequence[tuple[int, float]], layers: int) -> None:
        """A slice for each kernel between two stamps, around those of a listing one more, and one around the
        micro-batch."""
        began = before = listing_began = 0.0
        listing = ""
        seen: Counter[int] = Counter()

        def end_listing() -> None:
            if listing in _LAYERED:
                self.slice(listing, "kernel", listing_began, before)

        def end_micro_batch() -> None:
            end_listing()
            if before > began:
                self.slice("micro-batch", "kernel", began, before)

        for line, at in stamps:
            if line == BEGINNING:
                end_micro_batch()
                began = before = listing_began = at
                listing = ""
                seen.clear()
            elif (place := self._places.get(line)) is not None:
                if place.listing != listing:
                    end_listing()
                    listing, listing_began = place.listing, before
                layer = {}
                if place.in_loop and listing in _LAYERED:
                    is_backward = listing == gpt2.backward.__name__
                    layer = {"layer": layers - 1 - seen[line] if is_backward else seen[line]}
                self.slice(place.name, "kernel", before, at, **layer)
                seen[line] += 1
                before = at
        end_micro_batch()

    def sent(self, worker: int, message: m.Message, started: float, ended: float) -> None:
        """A message to or from this worker left this process."""
        if self.wants(step_of(message)):
            kind = type(message).__name__
            self.slice(f"send {kind}", "message", started, ended, worker=worker, **_words(message))
            self._flow("s", worker, message, started)

    def received(
        self, worker: int, message: m.Message, started: float, ended: float, what: str = "read"
    ) -> None:
        """A message to or from this worker arrived at the end of what took this long."""
        if self.wants(step_of(message)):
            kind = type(message).__name__
            self.slice(f"{what} {kind}", "message", started, ended, worker=worker, **_words(message))
            self._flow("f", worker, message, max(started, ended - _INSIDE_S))

    def write(self) -> None:
        """Put the events where merge_traces finds them, once; what is recorded later is lost, and all of it
        where they cannot be written: no step is worth a trace."""
        events, self._events = self._events, []
        if events:
            path = self._file.with_name(f"{self._file.name}{_PIECE[1:]}")
            with contextlib.suppress(OSError):
                write_whole(path, json.dumps(events).encode())

    def _flow(self, phase: Literal["s", "f"], worker: int, message: m.Message, at: float) -> None:
        """Both ends of a message give it the same name: what it says, and how often it has been said."""
        key = f"{worker} {type(message).__name__} {' '.join(map(str, _words(message).values()))}"
        self._seen[phase, key] += 1
        event = {
            "name": type(message).__name__,
            "cat": "message",
            "ph": phase,
            "id": f"{key} {self._seen[phase, key]}",
            "ts": 1e6 * at,
            "pid": self._pid,
            "tid": self._pid,
        }
        self._events.append(event | ({"bp": "e"} if phase == "f" else {}))

    def _metadata(self, name: str, args: dict[str, object]) -> dict[str, Any]:
        return {"name": name, "ph": "M", "ts": 0, "pid": self._pid, "tid": self._pid, "args": args}


def step_of(message: m.Message) -> int:
    """The step that a message is about; -1 for one about none."""
    return int(getattr(message, "step", -1))


def read_pieces(request: TraceRequest) -> list[dict[str, Any]]:
    """The events of all processes of this machine."""
    pieces = sorted(Path(request.directory).glob(_PIECE))
    return [event for piece in pieces for event in json.loads(piece.read_text())]


def merge_traces(events: list[dict[str, Any]], about: dict[str, str]) -> str | None:
    """One JSON text of them, times from the first one on; None where nothing happened."""
    happened = [event["ts"] for event in events if event["ph"] != "M"]
    if not happened:
        return None
    start = min(happened)
    for event in events:
        if event["ph"] != "M":
            event["ts"] = round(event["ts"] - start, 3)
    events.sort(key=lambda event: (event["ts"], -event.get("dur", 0)))
    content = {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}
    return json.dumps(content, separators=(",", ":"))


def _words(message: m.Message) -> dict[str, object]:
    """What a message says, measured values apart."""
    names = ("step", "shard", "first", "last")
    return {name: getattr(message, name) for name in names if hasattr(message, name)}
