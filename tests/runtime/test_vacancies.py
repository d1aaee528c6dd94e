"""Workers that cannot be started in the place of lost ones: a crew of our choice, no process."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import zmq

from feste_dp.errors import RunError, UsageError
from feste_dp.runtime import gathering as gathering_module
from feste_dp.runtime import messages as m
from feste_dp.runtime.crew import Joined, Lost, Said
from feste_dp.runtime.gathering import Gathering, Task
from feste_dp.runtime.ledger import Ledger

TROUBLES = [
    RunError("worker 1 could not be started: Resource temporarily unavailable"),
    UsageError("no socket for the workers: set TMPDIR"),
    OSError(28, "No space left on device"),
    zmq.ZMQError(24),
]
TASK = Task("compute", 1, "shard", m.ShardsDone, lambda first, last: (first, last))


class FakeCrew:
    """Does every order at once; `trouble` is what starting a worker raises, `losses` end workers at the next
    look."""

    def __init__(self):
        self.members, self.hired, self.events = {}, [], []
        self.trouble, self.now = None, 0.0

    def hire(self, numbers):
        if self.trouble is not None:
            raise self.trouble
        for worker in numbers:
            life = self.hired.count(worker)
            self.hired.append(worker)
            spec, process = SimpleNamespace(life=life), SimpleNamespace(pid=100 + worker)
            self.members[worker] = SimpleNamespace(spec=spec, process=process, heard_at=self.now)
            self.events.append(Joined(worker))

    def lose(self, worker):
        self.events.insert(0, Lost(worker, 100 + worker, "was killed by signal 9", True))

    def ready(self):
        return sorted(self.members)

    def starting(self):
        return [event.worker for event in self.events if isinstance(event, Joined)]

    def send(self, worker, shards):
        self.events += [Said(worker, m.ShardsDone(1, shard, (1.0,), 0.1)) for shard in range(*shards)]

    def wait(self, deadline):
        if self.events:
            event = self.events.pop(0)
            if isinstance(event, Lost):
                del self.members[event.worker]
            return event
        self.now = max(self.now, deadline)
        return None

    def dismiss(self, numbers):
        for worker in numbers:
            del self.members[worker]


@pytest.fixture
def crew(monkeypatch):
    crew = FakeCrew()
    monkeypatch.setattr(gathering_module, "time", SimpleNamespace(monotonic=lambda: crew.now))
    return crew


@pytest.fixture
def gathering(crew):
    notices = []
    made = Gathering(crew, 2, 60.0, notices.append)
    made.notices = notices
    made.start()
    return made


def gather(gathering, shards=8):
    ledger = Ledger(shards)
    gathering.gather(ledger, TASK)
    return ledger.losses()


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
def test_where_no_replacement_can_be_started_the_others_go_on_and_it_is_tried_again(crew, gathering, trouble):
    crew.trouble = trouble
    crew.lose(1)
    assert len(gather(gathering)) == 8
    left = [notice for notice in gathering.notices if notice.kind == "left"]
    assert len(left) == 1
    assert "could not be started" in left[0].text and "going on without it" in left[0].text
    crew.trouble, crew.now = None, crew.now + 1.0
    gathering.tend()
    gathering.tend()
    assert sorted(crew.members) == [0, 1]
    assert [notice.text for notice in gathering.notices if notice.kind == "joined"] == ["worker 1 is ready"]


def test_a_run_without_a_worker_waits_for_one_to_come(crew, gathering):
    crew.trouble = TROUBLES[0]
    crew.lose(1)
    crew.lose(0)
    wait = crew.wait

    def wait_until_there_is_room(deadline):
        if crew.now > 10.0:
            crew.trouble = None
        return wait(deadline)

    crew.wait = wait_until_there_is_room
    assert len(gather(gathering)) == 8
    assert crew.members


def test_a_run_for_which_no_worker_comes_ends_with_the_reason(crew, gathering):
    crew.trouble = TROUBLES[0]
    crew.lose(0)
    crew.lose(1)
    with pytest.raises(RunError, match=r"^no worker is left, and none has come for \d+ s: .* unavailable$"):
        gather(gathering)
    assert gathering_module.NO_WORKER_S < crew.now < 4 * gathering_module.NO_WORKER_S


def test_losses_after_every_step_end_in_a_run_with_fewer_workers_and_then_in_its_end(crew, gathering):
    with pytest.raises(RunError, match=r"^worker \d .*; no worker is left, and too many were lost to"):
        for _ in range(100):
            gather(gathering)
            gathering.step_done()
            crew.lose(min(crew.members))
            gathering.tend()
    kinds = [notice.kind for notice in gathering.notices]
    assert 8 <= kinds.count("lost") <= 14 and kinds.count("left") == 1


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: type(trouble).__name__)
def test_more_workers_that_cannot_be_started_leave_those_that_are_there(crew, gathering, trouble):
    crew.trouble = trouble
    with pytest.raises(RunError):
        gathering.resize(4)
    assert sorted(crew.members) == [0, 1]
    assert len(gather(gathering)) == 8
    gathering.resize(1)
    assert sorted(crew.members) == [0]


def test_a_start_without_any_worker_is_an_error(crew):
    crew.trouble = TROUBLES[0]
    with pytest.raises(RunError):
        Gathering(crew, 2, 60.0, lambda notice: None).start()


def test_a_place_whose_workers_never_become_ready_is_tried_again_after_longer_and_longer_pauses(
    crew, gathering, monkeypatch
):
    fails = True

    def hire(numbers):
        for worker in numbers:
            crew.hired.append(worker)
            spec, process = SimpleNamespace(life=1), SimpleNamespace(pid=100 + worker)
            crew.members[worker] = SimpleNamespace(spec=spec, process=process, heard_at=crew.now)
            lost = Lost(worker, 100 + worker, "exited with 1", False)
            crew.events.append(lost if fails else Joined(worker))

    monkeypatch.setattr(crew, "hire", hire)
    monkeypatch.setattr(crew, "ready", lambda: [0])
    crew.lose(1)
    tries = []
    for second in range(200):
        crew.now = float(second)
        before = len(crew.hired)
        gathering.tend()
        tries += [second] * (len(crew.hired) - before)
    assert 6 < len(tries) < 14 and max(b - a for a, b in pairwise(tries)) >= 60
    fails = False
    crew.now = 300.0
    gathering.tend()
    gathering.tend()
    assert sorted(crew.members) == [0, 1]
    assert gathering.notices[-1].text == "worker 1 is ready"
