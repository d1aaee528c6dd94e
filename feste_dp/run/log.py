"""log.txt: lines with their time."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.files.descriptors import spare
from feste_dp.files.growing import append_line
from feste_dp.run.directory import time_text

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class RunLog:
    """Appends lines with their UTC time to a log file. A line that cannot be written is dropped and counted:
    a full disk must not stop the run."""

    def __init__(self, path: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.dropped = 0
        self.path = path
        self._now = now

    def info(self, line: str) -> None:
        self._append("info", line)

    def warning(self, line: str) -> None:
        self._append("warning", line)

    def _append(self, kind: str, line: str) -> None:
        shown = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), line)
        try:
            spare.in_need(lambda: append_line(self.path, f"{time_text(self._now())} {kind}: {shown}"))
        except OSError:
            self.dropped += 1
