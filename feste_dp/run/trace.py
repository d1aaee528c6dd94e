"""The trace of some steps of a run: asks the processes for their events and makes one file of them."""

import contextlib
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from feste_dp.errors import RunError, UsageError
from feste_dp.files.temporary import temporary_folder, temporary_places
from feste_dp.files.writing import write_whole
from feste_dp.run.screen import Progress
from feste_dp.runtime.tracing import MAX_STEPS, TraceRequest, merge_traces, read_pieces

if TYPE_CHECKING:
    from feste_dp.nodes.link import Link
    from feste_dp.nodes.tracks import Tracks
    from feste_dp.nodes.transport import Transport


class RunTrace:
    """Enter it before the coordinator: it writes the file when all processes have ended.

    Does nothing where no steps are to be traced.
    """

    def __init__(self, steps: tuple[int, int] | None, progress: Progress) -> None:
        self._steps, self._progress = steps, progress
        self.request: TraceRequest | None = None
        self._stack = contextlib.ExitStack()
        self._directory: Path | None = None
        self._tracks: Tracks | None = None

    def put_in(self, directory: Path | None) -> None:
        """Where the file goes: the run's directory, once and for as long as there is one."""
        self._directory = directory

    def __enter__(self) -> "RunTrace":
        if self._steps is not None:
            try:
                folder = self._stack.enter_context(temporary_folder("trace", temporary_places()))
            except OSError as error:
                raise UsageError(
                    f"no temporary folder can be made: {error.strerror}", about="trace"
                ) from None
            self.request = TraceRequest(first=self._steps[0], last=self._steps[1], directory=str(folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if self.request is None:
                return
            events = read_pieces(self.request)
            if self._tracks is not None and kind is None:  # else the others are gone, or train on
                events = self._of_all_nodes(self._tracks, events)
            if self._directory is not None:
                path = self._directory / f"trace-{self.request.first}-{self.request.last}.json"
                self._write(path, self.request, events)

    def of_nodes(self, link: "Link", transport: "Transport") -> None:
        """Have the trace be that of all nodes, all of which call it before the first step; the first writes
        it. Raises NodeLostError."""
        if self.request is not None:
            from feste_dp.nodes.tracks import Tracks

            self._tracks = Tracks(link, transport)

    def _of_all_nodes(self, tracks: "Tracks", events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return tracks.gather(events)
        except RunError as error:
            self._progress.warning(f"the trace is that of one node alone: {error}")
            return events

    def _write(self, path: Path, request: TraceRequest, events: list[dict[str, Any]]) -> None:
        about = {} if self._tracks is None else {"clocks": f"within {1e6 * self._tracks.within_s:.0f} us"}
        about |= {"run": path.parent.name, "steps": f"{request.first} to {request.last}"}
        text = merge_traces(events, about)
        if text is None:
            why = f"none of the steps {request.first} to {request.last} was done"
            if not Path(request.directory).is_dir():
                why = f"{request.directory}, where its parts were, was removed"
            self._progress.warning(f"no trace: {why}")
            return
        try:
            write_whole(path, text.encode())
        except OSError as error:
            self._progress.warning(f"{path}: the trace is not written: {error.strerror}")
            return
        self._progress.message(f"trace        {path}, for ui.perfetto.dev or chrome://tracing")


def check_steps(steps: tuple[int, int] | None, last_step: int, done: int = 0) -> None:
    """Raises UsageError where the run has no such steps, has done the first of them, or they are too many."""
    if steps is None:
        return
    first, last = steps
    if first <= done < last_step:
        raise UsageError(f"the run goes on with step {done + 1}: trace steps from that on", about="trace")
    if last > last_step:
        raise UsageError(f"the run ends with step {last_step}: trace steps up to that", about="trace")
    if last - first >= MAX_STEPS:
        raise UsageError(f"{last - first + 1} steps are too many: trace at most {MAX_STEPS}", about="trace")
