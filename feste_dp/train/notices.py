"""Tells people what happens to the workers: on the screen at once, in the log with all of it."""

from collections.abc import Callable

from feste_dp.run.history import History
from feste_dp.run.log import RunLog
from feste_dp.run.screen import Progress
from feste_dp.runtime.gathering import Notice
from feste_dp.train.observing import Observing
from feste_dp.train.stragglers import Stragglers

_GOOD_NEWS = ("joined", "back", "count")


def teller(
    progress: Progress,
    log: RunLog | None = None,
    history: History | None = None,
    stragglers: Stragglers | None = None,
) -> Callable[[Notice], None]:
    """What is to be done with a notice; before there is a log and a history, it is only shown.

    What the stragglers hold against a worker that is lost is not held against the next with its number.
    """

    observing = Observing(progress.warning, *([] if log is None else [log.warning]))

    def tell(notice: Notice) -> None:
        with observing("telling what happens to the workers"):
            tell_all(notice)

    def tell_all(notice: Notice) -> None:
        if notice.kind in _GOOD_NEWS:
            progress.message(notice.text)
        else:
            progress.warning(notice.text)
        if stragglers is not None and notice.kind == "lost":
            stragglers.forget(notice.worker)
        if history is not None:
            history.event(history.step, f"worker_{notice.kind}", notice.text, worker=notice.worker)
        if log is None:
            return
        (log.info if notice.kind in _GOOD_NEWS else log.warning)(notice.text)
        for line in notice.trace.splitlines():
            log.warning(line)

    return tell
