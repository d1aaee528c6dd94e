import gc
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from feste_dp.data.order import validation_spacing
from feste_dp.errors import RunError
from feste_dp.model.parameters import initial_params
from feste_dp.runtime import coordinator as coordinator_module
from feste_dp.runtime import crew as crew_module
from feste_dp.runtime import messages as m
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.crew import Lost, Said
from feste_dp.runtime.letterbox import Letterbox
from feste_dp.runtime.protocol import Phase
from feste_dp.runtime.results import mean_loss, tree_sum

MANY_THREADS = {
    name: "8" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")
}
WORKERS = 2


def loss_of(gradient):
    """Mean over the 16 sequences of 16 positions."""
    return mean_loss(gradient.shard_losses, 16 * 16)


@pytest.fixture(scope="module")
def short_directory():
    """A temporary directory whose name leaves room for a socket's."""
    path = Path(tempfile.mkdtemp(prefix="fdp-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def temporary(short_directory, monkeypatch):
    """Where coordinators put their sockets in this test."""
    path = Path(tempfile.mkdtemp(dir=short_directory))
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    return path


@pytest.fixture(scope="module")
def shared(make_config, token_data, short_directory, compiled):
    """Two workers for the tests that leave them alive, in an environment that asks for many threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(short_directory))
        coordinator = Coordinator(make_config(), WORKERS, token_data.directory, os.environ | MANY_THREADS)
    with coordinator:
        coordinator.arena.params[:] = initial_params(make_config().model, 1)
        coordinator.start()
        yield coordinator


@pytest.fixture
def start(make_config, token_data, temporary, compiled):
    """Starts a coordinator with `run` settings; ends it with the test if the test has not."""
    coordinators = []

    def started(workers=WORKERS, **run):
        coordinators.append(Coordinator(make_config(**run), workers, token_data.directory, os.environ))
        coordinators[-1].arena.params[:] = initial_params(make_config().model, 1)
        coordinators[-1].start()
        return coordinators[-1]

    yield started
    for coordinator in coordinators:
        if coordinator.arena is not None:
            coordinator.close(at_once=True)


def is_running(pid):
    """Whether the process exists and is no zombie that init has yet to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def stop_now_and_kill_soon(pid):
    """The worker does nothing from here on, and is killed while the coordinator waits for it."""
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()


def socket_inodes(pid):
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    return {link[8:-1] for link in links if link.startswith("socket:[")}


class KilledAfterItsReport:
    """A poller that, asked for the first time, sees a worker leave its report and end before it can ring."""

    def __init__(self, crew):
        self.crew, self.poller = crew, crew._router._poller

    def poll(self, milliseconds):
        member = self.crew.members[0]
        member.phase = Phase.COMPUTE
        assert Letterbox(self.crew._arena.reports[0]).put(m.encode(m.ShardsDone(1, 5, (2.5,), 0.1)))
        os.kill(member.process.pid, signal.SIGKILL)
        member.process.wait()
        self.crew._router._poller = self.poller
        return self.poller.poll(milliseconds)


def test_the_last_report_of_a_worker_comes_before_its_end_though_it_did_not_ring(start):
    crew = start(workers=1)._crew
    crew._router._poller = KilledAfterItsReport(crew)
    deadline = time.monotonic() + 30
    assert crew.wait(deadline) == Said(0, m.ShardsDone(1, 5, (2.5,), 0.1))
    assert isinstance(crew.wait(deadline), Lost)


def test_what_a_worker_of_before_left_in_its_box_is_not_taken_for_a_report_of_the_next(start):
    coordinator = start(workers=1)
    expected = coordinator.gradient(1)
    member = coordinator._crew.members[0]
    os.kill(member.process.pid, signal.SIGKILL)
    member.process.wait()
    bury = coordinator._crew._bury

    def leave_it_late(worker):
        lost = bury(worker)
        assert Letterbox(coordinator.arena.reports[0]).put(m.encode(m.ShardsDone(2, 0, (1e9,), 0.1)))
        return lost

    coordinator._crew._bury = leave_it_late
    again = coordinator.gradient(2)
    assert again.shard_losses != expected.shard_losses  # another step, another dropout
    assert max(again.shard_losses) < 1e6 and coordinator.dropped_frames == 0


def test_the_loss_and_the_gradient_do_not_depend_on_the_worker_count(shared, start):
    alone = start(workers=1)
    for step in (1, 2):
        results = [c.gradient(step) for c in (shared, alone)]
        assert loss_of(results[0]) == loss_of(results[1])
        assert results[0].shard_losses == results[1].shard_losses
        assert shared.arena.grad.tobytes() == alone.arena.grad.tobytes()
        assert shared.arena.norms.tobytes() == alone.arena.norms.tobytes()
        assert [len(result.worker_seconds) for result in results] == [2, 1]
    validation = 48, validation_spacing(48, 800, 16)
    assert shared.validation_loss(2, *validation) == alone.validation_loss(2, *validation)


def test_a_loss_at_the_start_is_that_of_a_uniform_guess(shared):
    assert loss_of(shared.gradient(1)) == pytest.approx(np.log(256), abs=0.05)
    assert shared.validation_loss(1, 16, validation_spacing(16, 800, 16)) == pytest.approx(
        np.log(256), abs=0.05
    )


def test_validation_of_fewer_units_than_workers_completes(start):
    coordinator = start(workers=3)
    assert coordinator.validation_loss(1, 4, validation_spacing(4, 800, 16)) > 0
    assert loss_of(coordinator.gradient(1)) > 0


def test_frames_of_a_stranger_are_dropped_and_counted_and_the_step_completes(shared, rng):
    expected = loss_of(shared.gradient(5))
    frames = [
        [b""],
        [b"x"],
        [b"x" * 32, b"\x91\x00"],
        [b"x" * 32, b"\x91\x00", b"one more"],
        [shared._crew._token],
        [shared._crew._token, b"\xc1"],
        [
            shared._crew._token,
            b"\x95\x02\x05\x00\xcb?\xf0\x00\x00\x00\x00\x00\x00\xcb?\xf0\x00\x00\x00\x00\x00\x00",
        ],
        *([rng.bytes(32), rng.bytes(int(rng.integers(0, 300)))] for _ in range(100)),
    ]
    before = shared.dropped_frames
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(shared._crew._router._door.endpoint)
        for frame in frames:
            stranger.send_multipart(frame)
        deadline = time.monotonic() + 20
        while shared.dropped_frames < before + len(frames) and time.monotonic() < deadline:
            assert loss_of(shared.gradient(5)) == expected
    assert shared.dropped_frames == before + len(frames)


def test_a_stranger_cannot_take_the_place_of_a_worker(shared):
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.setsockopt(zmq.IDENTITY, shared._crew.members[1].spec.identity)
        stranger.connect(shared._crew._router._door.endpoint)
        stranger.send_multipart([b"x" * 32, b"\x90"])
        assert loss_of(shared.gradient(6)) > 0
        assert not stranger.poll(50)


def test_a_worker_has_one_thread_beside_those_of_zeromq_whatever_the_environment_says(shared):
    shared.gradient(1)
    for pid in shared.worker_pids():
        names = [(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]
        assert sorted(name for name in names if name.startswith("ZMQbg")) == ["ZMQbg/IO/0", "ZMQbg/Reaper"]
        assert len(names) == 3


def test_the_socket_cannot_be_found_by_a_name(shared):
    file = Path(shared._crew._router._door.endpoint.removeprefix("ipc://")).readlink()
    assert file.parent.name.startswith("feste-dp-door-") and not file.parent.exists()


def test_nobody_listens_on_the_network(shared):
    inodes = set().union(*(socket_inodes(pid) for pid in (os.getpid(), *shared.worker_pids())))
    assert inodes
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path("/proc/net") / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        assert not inodes & {line.split()[9] for line in lines}


def test_no_descriptor_of_the_coordinator_reaches_a_worker_but_the_arena(shared):
    ours = socket_inodes(os.getpid())
    for pid in shared.worker_pids():
        assert not ours & socket_inodes(pid)
        names = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        assert sum(name.startswith("/memfd:feste-dp") for name in names) == 2  # passed, and mapped
        assert not any("pidfd" in name for name in names)


def test_workers_that_are_asked_to_stop_exit_with_status_zero_and_leave_nothing(
    start, temporary, monkeypatch, open_files
):
    gc.collect()
    files, started = open_files(), []
    original = crew_module.start_worker

    def recorded(*arguments):
        started.append(original(*arguments))
        return started[-1]

    monkeypatch.setattr(crew_module, "start_worker", recorded)
    coordinator = start(workers=3)
    pids = coordinator.worker_pids()
    coordinator.gradient(1)
    coordinator.close(at_once=False)
    assert [worker.process.returncode for worker in started] == [0, 0, 0]
    assert not any(map(is_running, pids)) and list(temporary.iterdir()) == []
    coordinator.arena = coordinator._crew._arena = None
    gc.collect()
    assert open_files() == files


def test_workers_reduce_to_the_bits_that_the_coordinator_reduces_to_itself(start, monkeypatch):
    results = []
    for limit in (1 << 21, 0):
        monkeypatch.setattr(coordinator_module, "SMALL_REDUCTION", limit)
        asked = []
        with start() as coordinator:
            send = coordinator._crew.send
            coordinator._crew.send = lambda worker, message, send=send, asked=asked: (
                asked.append(type(message).__name__),
                send(worker, message),
            )
            coordinator.gradient(1)
            results.append((coordinator.arena.grad.tobytes(), coordinator.arena.norms.tobytes()))
        assert ("Reduce" in asked) == (limit == 0)
    assert results[0] == results[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_cannot_start_ends_the_run_with_its_reason(make_config, temporary, capfd, workers):
    missing = temporary / "missing"
    with (
        pytest.raises(
            RunError,
            match=r"worker \d .* exited with status 1 during start-up: token data is incomplete: .*missing",
        ),
        Coordinator(make_config(), workers, missing, os.environ) as coordinator,
    ):
        coordinator.start()
    assert list(temporary.iterdir()) == []


def test_workers_do_not_outlive_a_coordinator_that_is_killed(make_config, token_data, temporary, compiled):
    program = """
import os
import sys
from pathlib import Path
from feste_dp.config.schema import Config
from feste_dp.runtime.coordinator import Coordinator
with Coordinator(Config.model_validate_json(sys.argv[1]), 3, Path(sys.argv[2]), os.environ) as coordinator:
    coordinator.start()
    print(*coordinator.worker_pids(), flush=True)
    step = 0
    while True:
        step += 1
        coordinator.gradient(step)
"""
    arguments = [make_config().model_dump_json(), str(token_data.directory)]
    before = set(Path("/dev/shm").iterdir())
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    ) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 3 and all(map(is_running, pids))
        process.kill()
        deadline = time.monotonic() + 2
        while any(map(is_running, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_running, pids))
    assert set(Path("/dev/shm").iterdir()) == before


def test_a_coordinator_that_never_started_leaves_nothing(make_config, token_data, temporary):
    with Coordinator(make_config(), 2, token_data.directory, os.environ):
        pass
    assert list(temporary.iterdir()) == []


def test_losses_are_summed_in_the_tree_of_the_gradient_slots():
    assert tree_sum([1e16, 1.0, -1e16, 1.0]) == (1e16 + 1.0) + (-1e16 + 1.0)
    assert tree_sum([0.1, 0.2, 0.3]) == (0.1 + 0.2) + 0.3
    assert tree_sum([0.1, 0.2, 0.3, 0.4, 0.5]) == ((0.1 + 0.2) + (0.3 + 0.4)) + 0.5
    assert tree_sum([7.0]) == 7.0
