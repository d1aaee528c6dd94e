"""The watches over a run: for loss spikes, for slow workers, and for what happens to the workers.

Decides nothing: whatever fails here is a warning, and the training goes on.
"""

from collections.abc import Iterable

from feste_dp.run.observing import Observing
from feste_dp.run.record import Level, Record
from feste_dp.run.step_times import StepTimes
from feste_dp.runtime.gathering import Notice
from feste_dp.train.spikes import SpikeWatch
from feste_dp.train.step import StepResult
from feste_dp.train.stragglers import Stragglers

_GOOD_NEWS = ("joined", "back")


class Observers:
    """Tell what they see by `record`. No method raises."""

    def __init__(self, record: Record, stragglers: Stragglers | None = None) -> None:
        self.record = record
        self._stragglers, self._spikes = stragglers or Stragglers(), SpikeWatch()
        self._observing = Observing(record.warn)

    def remember(self, step: int, losses: Iterable[float]) -> None:
        """The losses before a resume, up to that of `step`; nothing is told of them."""
        with self._observing("the watch for loss spikes"):
            for loss in losses:
                self._spikes.add(step, loss)

    def step(self, step: int, result: StepResult) -> None:
        """A step's update is done."""
        self.record.step = step
        self.record.times(result.times)
        with self._observing("the watch for slow workers"):
            self._watch_workers(result.times)
        with self._observing("the watch for loss spikes"):
            if spike := self._spikes.add(step, result.train_loss):
                self.record.tell("spike", spike)

    def notice(self, notice: Notice) -> None:
        """Something happened to a worker. What is held against one that is lost is not held against the next
        with its number."""
        with self._observing("telling what happens to the workers"):
            if notice.kind == "lost":
                self._stragglers.forget(notice.worker)
            level: Level = "message" if notice.kind in _GOOD_NEWS else "warning"
            kind = f"worker_{notice.kind}"
            self.record.tell(kind, notice.text, level, trace=notice.trace, worker=notice.worker)

    def _watch_workers(self, times: StepTimes) -> None:
        """Name workers that are slow for a while, and log every worker's times now and then."""
        for verdict in self._stragglers.add(times.worker_compute, times.worker_shards):
            if verdict.slow:
                self.record.tell("worker_slow", verdict.line, "warning")
            else:
                self.record.tell("worker_back", verdict.line)
        report = self._stragglers.report()
        if report is not None:
            self.record.note(report)
