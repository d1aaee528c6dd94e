"""What a run tells beside metrics.csv: its history in events.jsonl, and everything to the trackers.

Nothing here raises or waits: what cannot be written is said once, and the training goes on. Costs some
microseconds a step: the times of steps are added up and written about once a second.
"""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from feste_dp.files.growing import LineFile
from feste_dp.run.events import ENDS, FAIL, STOP, TIMES, Event, encode_event
from feste_dp.run.metrics import MetricsRow
from feste_dp.run.step_times import StepTimes
from feste_dp.run.trackers.courier import CLOSE_TIMEOUT_S, Courier, Method
from feste_dp.run.trackers.tracker import RunFacts, Tracker

TIMES_EVERY_S = 1.0


class History:
    """One run's events and times. Use as a context manager; warn() gets the line of each thing that fails."""

    def __init__(
        self,
        events: Path,
        warn: Callable[[str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._warn, self._now, self._clock = events, warn, now, clock
        self._file: LineFile | None = None
        self._warned = False
        self._couriers: list[Courier] = []
        self._batch = _TimesBatch()
        self._written_at = clock()
        self._step = 0
        self._ended = True

    def open(self, run: RunFacts, trackers: Sequence[Tracker] = ()) -> None:
        """Before this nothing is written: what is only looked at leaves no trace."""
        self._step = run.first_step
        self._ended = False
        self._couriers = [Courier(tracker, run) for tracker in trackers]
        try:
            self._file = LineFile(self._path)
        except OSError as error:
            self._failed(error)

    def is_at(self, path: Path) -> bool:
        """Whether the events have this name, as far as there are any."""
        return self._file is None or self._file.is_at(path)

    def put_back(self, path: Path) -> None:
        """Write all events so far anew, at `path`, and go on there. OSError leaves everything as it was."""
        if self._file is not None:
            self._file.put_back(path)

    @property
    def step(self) -> int:
        """The last finished step that was told of."""
        return self._step

    def event(self, step: int, kind: str, text: str = "", **fields: object) -> None:
        """Something happened after `step` steps; fields are what JSON can hold."""
        self._ended = kind in ENDS
        if self._ended:
            self._write_times()
        event = Event(self._now(), step, kind, text, fields)
        self._write(event)
        self._send("event", event)

    def times(self, step: int, times: StepTimes) -> None:
        """Where the time of a finished step went."""
        if not self._batch.fits(times):
            self._write_times()
        self._step = step
        self._batch.add(times)
        if self._clock() - self._written_at >= TIMES_EVERY_S:
            self._write_times()

    def row(self, row: MetricsRow) -> None:
        """The figures of a finished step."""
        if not self._couriers:
            return
        values = {
            "loss/train": row.train_loss,
            "perplexity/train": row.train_perplexity,
            "optim/learning_rate": row.learning_rate,
            "optim/grad_norm": row.grad_norm,
            "speed/tokens_per_second": row.tokens_per_second,
        }
        if row.val_loss is not None and row.val_perplexity is not None:
            values |= {"loss/validation": row.val_loss, "perplexity/validation": row.val_perplexity}
        self._send("scalars", row.step, values)
        if row.sample:
            self._send("text", row.step, "sample", row.sample)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Writes what is left; trackers get timeout_s to do the same. May be called again."""
        self._write_times()
        couriers, self._couriers = self._couriers, []
        for courier in couriers:
            courier.close(timeout_s)
            self._report(courier)
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        at_once = kind is not None and not issubclass(kind, Exception)
        if not self._ended:
            self.event(self._step, STOP if at_once else FAIL, "stopped at once" if at_once else str(error))
        self.close(0.0 if at_once else CLOSE_TIMEOUT_S)

    def _write_times(self) -> None:
        self._written_at = self._clock()
        if self._batch.steps == 0:
            return
        batch, self._batch = self._batch, _TimesBatch()
        self._write(Event(self._now(), self._step, TIMES, fields=batch.fields()))
        self._send("scalars", self._step, batch.scalars())

    def _write(self, event: Event) -> None:
        if self._file is not None:
            try:
                self._file.append(encode_event(event))
            except OSError as error:
                self._failed(error)

    def _send(self, method: Method, *arguments: object) -> None:
        for courier in self._couriers:
            courier.send(method, *arguments)
            self._report(courier)

    def _report(self, courier: Courier) -> None:
        while (problem := courier.problem()) is not None:
            self._warn(problem)

    def _failed(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            self._warn(f"{self._path.name} not written: {error.strerror}; the report will lack some events")


class _TimesBatch:
    """The times of steps in a row by the same number of workers and nodes, added up."""

    def __init__(self) -> None:
        self.steps = 0
        self._total = 0.0
        self._phases: dict[str, float] = {}
        self._compute: list[float] = []
        self._nodes: list[float] = []

    def fits(self, times: StepTimes) -> bool:
        workers, nodes = len(times.worker_compute), len(times.node_seconds)
        return self.steps == 0 or (workers, nodes) == (len(self._compute), len(self._nodes))

    def add(self, times: StepTimes) -> None:
        if self.steps == 0:
            self._phases = dict.fromkeys(times.phases, 0.0)
            self._compute = [0.0] * len(times.worker_compute)
            self._nodes = [0.0] * len(times.node_seconds)
        self.steps += 1
        self._total += times.total
        for phase in self._phases:
            self._phases[phase] += getattr(times, phase)
        for worker, seconds in enumerate(times.worker_compute):
            self._compute[worker] += seconds
        for node, seconds in enumerate(times.node_seconds):
            self._nodes[node] += seconds

    def fields(self) -> dict[str, object]:
        """Means a step, in milliseconds."""
        fields: dict[str, object] = {
            "steps": self.steps,
            "step_ms": self._mean_ms(self._total),
            "phases_ms": {phase: self._mean_ms(seconds) for phase, seconds in self._phases.items()},
            "worker_compute_ms": [self._mean_ms(seconds) for seconds in self._compute],
        }
        if self._nodes:
            fields["node_compute_ms"] = [self._mean_ms(seconds) for seconds in self._nodes]
        return fields

    def scalars(self) -> dict[str, float]:
        """The same for trackers."""
        values = {f"time/{phase}_ms": self._mean_ms(seconds) for phase, seconds in self._phases.items()}
        for worker, seconds in enumerate(self._compute):
            values[f"worker/{worker}_compute_ms"] = self._mean_ms(seconds)
        for node, seconds in enumerate(self._nodes):
            values[f"node/{node}_compute_ms"] = self._mean_ms(seconds)
        return values

    def _mean_ms(self, seconds: float) -> float:
        return round(1e3 * seconds / self.steps, 4)
