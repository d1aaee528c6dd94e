"""What of a run is on the disk: the save in flight and what became of those before, the rows of metrics.csv,
and what others do to the run's directory. When to save, and what, is trainer.py's.
"""

from collections.abc import Callable
from typing import Protocol

from feste_dp.checkpoint.background import SaveResult
from feste_dp.checkpoint.format import Arrays, ManifestFields
from feste_dp.run.held import HeldRun
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.record import Record
from feste_dp.runtime.faults import Faults


class Rows(Protocol):
    """Where the rows of metrics go, see MetricsWriter."""

    def append(self, row: MetricsRow) -> None: ...
    def sync(self) -> None: ...


class Writer(Protocol):
    """What stores checkpoints, see BackgroundWriter."""

    def submit(self, manifest_fields: ManifestFields, arrays: Arrays, *, together: bool = False) -> None: ...
    def forgo(self, step: int) -> None: ...
    def wait(self) -> list[SaveResult]: ...
    def poll(self) -> list[SaveResult]: ...


class Saves:
    """What cannot be written is told, and training goes on."""

    def __init__(
        self,
        record: Record,
        metrics: Rows,
        writer: Writer,
        held: HeldRun | None,
        faults: Faults,
    ) -> None:
        self._record, self._metrics, self._writer = record, metrics, writer
        self._held, self._faults = held, faults
        self._newest: int | None = None
        self._failed: int | None = None
        self._stored: int | None = None
        self.degraded = False
        """Whether something that the user asked for could not be kept: a save or a metrics row failed."""

    def restored(self, step: int) -> None:
        """The run goes on from the checkpoint of this step."""
        self._newest = self._stored = step

    def has(self, step: int) -> bool:
        """Whether this step was given to the writer, as it is now."""
        return step == self._newest

    def has_kept(self, step: int) -> bool:
        """As has(), and it has not failed."""
        return step == self._newest != self._failed

    def has_still(self, step: int) -> bool:
        """As has(), and nobody has removed it since."""
        if self._held is not None and step == self._newest and not self._held.holds(step):
            self._newest = None
        return self.has(step)

    def outdate(self, step: int) -> None:
        """What is saved of this step lacks what is known of it now."""
        if step == self._newest:
            self._newest = None

    @property
    def stored_step(self) -> int | None:
        """The last step that a checkpoint holds, None where there is none."""
        held = self._held
        if held is not None and (held.is_gone or not held.holds(self._stored or 0)):
            return None
        return self._stored

    def save(self, fields: ManifestFields, arrays: Arrays, *, together: bool = False) -> None:
        """Copy the state and let the writer thread store it, after the rows that it continues; together with
        the other nodes, where all come here at this step."""
        self.look_after_the_run()
        if self._held is not None and self._held.is_gone:
            self._newest = self._failed = fields.step
            if together:
                self._writer.forgo(fields.step)
            return
        self._guard("metrics file", fields.step, self._metrics.sync)
        self._faults.at("save", fields.step)
        self._writer.submit(fields, arrays, together=together)
        self._newest = fields.step
        self._faults.at("saved", fields.step)

    def write_row(self, row: MetricsRow) -> None:
        self._guard("metrics row", row.step, lambda: self._metrics.append(row))

    def wait(self) -> None:
        """Return when no save is in flight, and tell what became of it."""
        self._tell(self._writer.wait())

    def poll(self) -> None:
        """Tell what became of the saves that have ended."""
        self._tell(self._writer.poll())

    def look_after_the_run(self, *, at_once: bool = True) -> None:
        """Tell what others did to the run's directory; the exit status will say so too."""
        if self._held is not None:
            for line in self._held.look(at_once=at_once):
                self.report_unsaved(line)

    def report_unsaved(self, line: str) -> None:
        """Say that something was not kept; the run goes on, and its exit status will say so."""
        self.degraded = True
        self._record.warn(line)

    def _tell(self, results: list[SaveResult]) -> None:
        for result in results:
            if result.path is not None:
                self._stored = result.step
            for line in result.warnings:
                self._record.warn(line if self._held is None else self._held.shown(line))
            if result.error is not None:
                if result.path is None:
                    self._failed = result.step
                line = str(result.error)
                if self._held is not None:
                    self.look_after_the_run()
                    if self._held.is_gone:
                        continue  # which is told
                    line = self._held.shown(line)
                self.degraded = True
                self._record.tell("save_failed", line, "warning", step=result.step)
            else:
                line = f"saved step {result.step} in {result.seconds:.2f} s"
                self._record.tell("save", line, "routine", step=result.step, seconds=round(result.seconds, 3))

    def _guard(self, what: str, step: int, write: Callable[[], None]) -> None:
        """Training goes on when a file cannot be written; the exit status will say so."""
        try:
            write()
        except OSError as error:
            if not self.degraded:
                self._record.warn(f"step {step}: {what} not written: {error.strerror}")
            self.degraded = True
