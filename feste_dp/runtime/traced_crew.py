"""The crew of a traced run: records each message of the traced steps as the coordinator sends or hears it."""

import time
from collections.abc import Callable, Mapping

from feste_dp.runtime import messages as m
from feste_dp.runtime.arena import Arena
from feste_dp.runtime.crew import Crew, Event, Said
from feste_dp.runtime.tracing import Recorder
from feste_dp.runtime.worker import WorkerSpec


class TracedCrew(Crew):
    """As Crew."""

    def __init__(
        self,
        make_spec: Callable[[int, int, str, bytes, int], WorkerSpec],
        arena: Arena,
        environ: Mapping[str, str],
        recorder: Recorder,
    ) -> None:
        super().__init__(make_spec, arena, environ)
        self._recorder = recorder

    def send(self, worker: int, message: m.Message) -> None:
        started = time.perf_counter()
        super().send(worker, message)
        self._recorder.sent(worker, message, started, time.perf_counter())

    def wait(self, deadline: float) -> Event | None:
        started = time.perf_counter()
        event = super().wait(deadline)
        if isinstance(event, Said):
            self._recorder.received(event.worker, event.message, started, time.perf_counter())
        return event
