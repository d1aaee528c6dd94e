"""Workers that end, hang or are replaced in any phase: the numbers stay those of an undisturbed run."""

import os
import re
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from feste_dp.data.order import validation_spacing
from feste_dp.errors import RunError
from feste_dp.kernels import code_cache
from feste_dp.kernels.code_cache import code_place, is_complete
from feste_dp.model.parameters import initial_params
from feste_dp.runtime import coordinator as coordinator_module
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.faults import FAULT_VARIABLE
from feste_dp.runtime.slots import ShardBlock

STEPS = 3
SOON = {"step_timeout_s": 0.8}

# faults of one run, and what is said of each loss
GROUPS = {
    "kill": (
        "worker0:step1:compute:kill,worker1:step1:computed:kill,any:step2:reduce:kill,any:step3:reduced:kill",
        [
            r"worker 0 .* was killed by signal 9 .* during compute of step 1; to be done again: shard 0, 1;",
            r"worker 1 .* was killed by signal 9 .* during compute of step 1; to be done again: .*3;",
            r"worker \d .* was killed by signal 9 .* during reduce of step 2; to be done again: chunk ",
        ],
    ),
    "other ends": (
        "worker0:step2:shard1:segv,any:step2:evaluate:exit,worker2:step3:evaluated:raise,worker3:step2:wait:kill",
        [
            r"worker 0 .* was killed by signal 11 .* during compute of step 2; to be done again: .*1;",
            r"worker \d .* exited with status 3 during validation of step 2; to be done again: unit ",
            r"worker 3 .* was killed by signal 9 .* during ",
        ],
    ),
    "hangs": (
        "worker0:step1:compute:stop,any:step2:reduce:stop,worker3:step3:compute:stop",
        [
            r"worker 0 .* gave no answer within 0.8 s \(run.step_timeout_s\), and was killed during compute",
            r"worker \d .* gave no answer within .* during reduce of step 2",
        ],
    ),
    "errors": (
        "worker2:step2:evaluated:raise",
        [r"worker 2 .* exited with status 1 during validation of step 2: InjectedFaultError: .*; to be done"],
    ),
}


VALIDATION = 48, validation_spacing(48, 800, 16)


def numbers(coordinator, steps=range(1, STEPS + 1)):
    """All that the workers' work gives: loss, losses of shards, gradient, chunk norms and validation loss."""
    for step in steps:
        gradient = coordinator.gradient(step)
        arena = coordinator.arena
        yield (
            gradient.shard_losses,
            arena.grad.tobytes(),
            arena.norms.tobytes(),
            coordinator.validation_loss(step, *VALIDATION),
        )


@pytest.fixture
def start(make_config, token_data, compiled, monkeypatch):
    """Starts a coordinator with faults and `run` settings; the workers reduce, as for a large model."""
    monkeypatch.setattr(coordinator_module, "SMALL_REDUCTION", 0)
    running = []

    def started(workers=2, faults="", data_directory=token_data.directory, block=None, **run):
        notices = []
        environ = os.environ | {FAULT_VARIABLE: faults}
        config = make_config(**run)
        coordinator = Coordinator(config, workers, data_directory, environ, notices.append, block=block)
        running.append(coordinator)
        coordinator.arena.params[:] = initial_params(make_config().model, 1)
        coordinator.start()
        coordinator.notices = notices
        return coordinator

    yield started
    for coordinator in running:
        coordinator.close(at_once=True)


@pytest.fixture(scope="module")
def undisturbed(make_config, token_data, compiled):
    with (
        pytest.MonkeyPatch.context() as patch,
        Coordinator(make_config(), 2, token_data.directory, os.environ) as coordinator,
    ):
        patch.setattr(coordinator_module, "SMALL_REDUCTION", 0)
        coordinator.arena.params[:] = initial_params(make_config().model, 1)
        coordinator.start()
        return list(numbers(coordinator))


def texts(coordinator, kind):
    return [notice.text for notice in coordinator.notices if notice.kind == kind]


def until(condition, coordinator, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        coordinator.tend()
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("group", GROUPS)
def test_workers_lost_in_every_phase_leave_every_number_as_it_was(start, undisturbed, group):
    faults, said = GROUPS[group]
    coordinator = start(workers=4, faults=faults, **(SOON if group == "hangs" else {}))
    assert list(numbers(coordinator)) == undisturbed
    coordinator.tend()
    lost = texts(coordinator, "lost")
    assert len(lost) >= len(said)
    for pattern in said:
        assert [text for text in lost if re.match(pattern, text)], (pattern, lost)
    assert all(text.endswith("another is started") for text in lost)
    until(lambda: len(coordinator._crew.ready()) == 4, coordinator)
    assert list(numbers(coordinator)) == undisturbed


@pytest.mark.parametrize("action", ["kill", "raise", "exit"])
def test_a_worker_lost_at_its_start_is_replaced(start, undisturbed, action):
    coordinator = start(faults=f"worker1:step0:start:{action}")
    assert len(texts(coordinator, "lost")) == 1 and "during start-up" in texts(coordinator, "lost")[0]
    assert list(numbers(coordinator)) == undisturbed


def test_the_only_worker_is_replaced_and_the_step_goes_on_within_two_seconds(start, undisturbed):
    coordinator = start(workers=1, faults="worker0:step2:shard3:kill")
    assert list(numbers(coordinator)) == undisturbed
    assert len(texts(coordinator, "lost")) == 1


def test_a_step_is_finished_by_the_others_while_the_replacement_starts(start, undisturbed):
    coordinator = start(workers=2, faults="worker1:step2:compute:kill")
    results = numbers(coordinator)
    assert [next(results), next(results)] == undisturbed[:2]
    assert texts(coordinator, "lost") and not texts(coordinator, "joined")


def test_a_shard_that_ends_three_workers_ends_the_run_with_its_number(start):
    coordinator = start(faults="any:step2:shard5:kill:always")
    next(numbers(coordinator))
    with pytest.raises(
        RunError, match=r"^shard 5 in compute of step 2 has ended 3 workers, the last of them: wor"
    ):
        coordinator.gradient(2)


def test_the_run_goes_on_without_a_worker_that_cannot_start_again_for_now(start, undisturbed, monkeypatch):
    coordinator = start(workers=2)
    results = numbers(coordinator)
    assert next(results) == undisturbed[0]
    coordinator._crew._environ = os.environ | {FAULT_VARIABLE: "worker1:step0:start:kill:always"}
    os.kill(coordinator.worker_pids()[1], signal.SIGKILL)
    assert next(results) == undisturbed[1]
    until(lambda: texts(coordinator, "left"), coordinator)
    assert len(texts(coordinator, "lost")) == 3  # the first, and two that were started in its place
    assert texts(coordinator, "left")[0].endswith("; going on without it; it is tried again")
    assert next(results) == undisturbed[2]


def test_when_no_worker_can_be_started_any_more_the_run_ends_with_the_reason(start):
    coordinator = start(workers=1)
    coordinator._crew._environ = os.environ | {FAULT_VARIABLE: "any:step0:start:exit:always"}
    os.kill(coordinator.worker_pids()[0], signal.SIGKILL)
    with pytest.raises(RunError, match=r"exited with status 3 during start-up.*; no worker is left"):
        coordinator.gradient(1)


def test_a_worker_that_is_slow_is_named_and_named_again_when_it_is_back(start, undisturbed):
    coordinator = start(faults="worker1:step2:shard6:slow=1.7")
    assert list(numbers(coordinator)) == undisturbed
    assert re.match(
        r"worker 1 \(pid \d+\) has said nothing for 1\.\d s in compute of step 2; after 600 s \(run\.step_t",
        texts(coordinator, "slow")[0],
    )
    assert re.match(r"worker 1 is back after 1\.\d s", texts(coordinator, "back")[0])
    assert len(coordinator.notices) == 2


def test_a_stopped_worker_that_continues_before_the_timeout_is_not_replaced(start, undisturbed):
    coordinator = start()
    stopped = coordinator.worker_pids()[1]
    results = numbers(coordinator)
    assert next(results) == undisturbed[0]
    os.kill(stopped, signal.SIGSTOP)
    threading.Timer(1.5, os.kill, (stopped, signal.SIGCONT)).start()
    assert list(results) == undisturbed[1:]
    assert coordinator.worker_pids()[1] == stopped and not texts(coordinator, "lost")
    assert texts(coordinator, "slow") and texts(coordinator, "back")


def test_the_worker_count_changes_between_steps_and_the_numbers_do_not(start, undisturbed):
    coordinator = start(workers=1)
    results = numbers(coordinator)
    assert next(results) == undisturbed[0]
    coordinator.resize(3)
    until(lambda: len(coordinator._crew.ready()) == 3, coordinator)
    assert next(results) == undisturbed[1]
    coordinator.resize(2)
    assert len(coordinator.worker_pids()) == 2
    assert next(results) == undisturbed[2]
    assert not texts(coordinator, "lost")


def test_many_losses_leave_no_descriptor_open(start, open_files):
    coordinator = start(workers=2)
    before = None
    for _ in range(4):
        os.kill(coordinator.worker_pids()[0], signal.SIGKILL)
        until(lambda: len(coordinator._crew.ready()) == 1, coordinator)
        until(lambda: len(coordinator._crew.ready()) == 2, coordinator)
        for step in range(1, 3):
            coordinator.gradient(step)
        if before is None:
            time.sleep(0.5)
            before = open_files()
    deadline = time.monotonic() + 10  # ZeroMQ closes what is dead in a thread of its own
    while open_files() != before and time.monotonic() < deadline:
        time.sleep(0.05)
        coordinator.tend()
    assert open_files() == before


def test_a_nan_that_is_asked_for_is_in_the_slot_of_its_shard_alone(start):
    coordinator = start(faults="any:step1:shard4:nan")
    coordinator.gradient(1)
    assert [bool(np.isnan(slot).any()) for slot in coordinator.arena.slots] == [s == 4 for s in range(8)]


@pytest.fixture
def own_compiled_code(tmp_path, monkeypatch):
    """A copy of the cache that this test alone uses, and may remove."""
    own = tmp_path / "code"
    shutil.copytree(code_place().path, own)
    monkeypatch.setenv(code_cache.CACHE_VARIABLE, str(own))
    code_cache._code_place.cache_clear()
    yield own
    code_cache._code_place.cache_clear()


def test_a_replacement_has_the_same_tokens_and_code_though_both_were_removed(
    start, undisturbed, token_data, tmp_path, own_compiled_code
):
    folder = tmp_path / "tokens"
    shutil.copytree(token_data.directory, folder)
    coordinator = start(workers=1, data_directory=folder)
    shutil.rmtree(folder)
    shutil.rmtree(own_compiled_code)
    os.kill(coordinator.worker_pids()[0], signal.SIGKILL)
    assert list(numbers(coordinator)) == undisturbed
    assert texts(coordinator, "joined") == ["worker 0 is ready"]
    assert is_complete(own_compiled_code)


def test_what_a_lost_worker_leaves_has_its_number_in_the_batch(start):
    coordinator = start(
        faults="worker0:step1:compute:kill,worker1:step2:evaluate:kill", block=ShardBlock(2, 2)
    )
    coordinator.gradient(1)
    coordinator.unit_losses(2, range(6, 8), VALIDATION[1])
    lost = texts(coordinator, "lost")
    assert len(lost) == 2
    assert "during compute of step 1; to be done again: shard 2;" in lost[0]
    assert re.search(r"during validation of step 2; to be done again: unit [67][;,]", lost[1])
