"""The machines that other tests train on are apart, joined by a network, and gone afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.nodes.network import Machines, Mpi

Make = Callable[[int], Machines]
ROOT = Path(__file__).parents[2]

WHO = """
import os, socket
open(f"/dev/shm/{socket.gethostname()}", "w").close()
print(socket.gethostname(), socket.gethostbyname("node2"), os.listdir("/dev/shm"), os.environ["TMPDIR"])
"""

EXCHANGE = r"""
import os, numpy
from mpi4py import MPI
world = MPI.COMM_WORLD
sent, got = numpy.full(2_000_000, world.rank, "f"), numpy.empty(2_000_000, "f")
receive, send = world.Irecv(got, 1 - world.rank), world.Isend(sent, 1 - world.rank)
receive.Wait(), send.Wait()
assert world.size == 2 and (got == 1 - world.rank).all()
os.write(1, f"{world.rank} {os.uname().nodename} {MPI.Get_library_version().split()[0]}\n".encode())
"""

ECHO = """
import socket
listening = socket.create_server(("", 5000))
while True:
    with listening.accept()[0] as peer:
        peer.sendall(peer.recv(1))
"""

ASK = """
import socket, time
start = time.monotonic()
with socket.create_connection(("node1", 5000), timeout=1) as peer:
    peer.sendall(b"x")
    assert peer.recv(1) == b"x"
print(time.monotonic() - start)
"""


def test_machines_have_names_and_memory_of_their_own(machines: Make, tmp_path: Path) -> None:
    three = machines(3)
    for index in range(3):
        done = three.run(index, [sys.executable, "-c", WHO])
        name = f"node{index}"
        assert done.stdout == f"{name} 10.77.0.3 ['{name}'] {tmp_path}/machines/{name}\n", done.stderr
    assert not Path("/dev/shm/node0").exists()


def test_a_job_of_either_library_sends_its_numbers_over_the_network(machines: Make, mpi: Mpi) -> None:
    two = machines(2)
    done = two.run_job([sys.executable, "-c", EXCHANGE], mpi)
    assert done.returncode == 0, done
    library = {"openmpi": "Open", "mpich": "MPICH"}[mpi.name]
    assert sorted(done.stdout.splitlines()) == [f"0 node0 {library}", f"1 node1 {library}"]
    for index in range(2):
        counters = two.counters(index)
        assert min(counters.received, counters.sent) > 8_000_000


def test_a_job_may_differ_from_machine_to_machine(machines: Make, mpi: Mpi) -> None:
    done = machines(2).run_job([["printenv", "A"], ["echo", "two"]], mpi, env={"A": "one"})
    assert sorted(done.stdout.split()) == ["one", "two"], done.stderr


def test_a_link_is_slow_lossy_cut_and_healed(machines: Make) -> None:
    two = machines(2)
    two.start(1, [sys.executable, "-c", ECHO])

    def ask() -> float | None:
        done = two.run(0, [sys.executable, "-c", ASK])
        return float(done.stdout) if done.returncode == 0 else None

    def wait_for_an_answer() -> float:
        deadline = time.monotonic() + 20
        while (took := ask()) is None:
            assert time.monotonic() < deadline
        return took

    wait_for_an_answer()
    two.impair(1, delay_ms=50)
    assert wait_for_an_answer() >= 0.2  # two round trips
    two.impair(1, loss_percent=100)
    assert ask() is None
    two.heal(1)
    wait_for_an_answer()
    two.cut(1)
    assert ask() is None
    two.heal(1)
    wait_for_an_answer()


def test_nothing_is_left_of_machines_whose_test_was_killed(machines: Make, tmp_path: Path) -> None:
    machines(1)  # skipped where there are none
    script = f"""
import json, sys, time
from pathlib import Path
from tests.nodes.network import Machines
two = Machines(2, Path({str(tmp_path / "others")!r})).__enter__()
sleeping = [two.start(i, ["setsid", "sleep", "1000"]).pid for i in range(2)]
print(json.dumps([two._switch.pid, *two._pids, *sleeping]), flush=True)
time.sleep(1000)
"""
    test = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert test.stdout is not None
    pids = json.loads(test.stdout.readline())
    os.kill(test.pid, signal.SIGKILL)
    test.communicate()
    deadline = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if _runs(pid)]
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("what", ["unshare", "ip"])
def test_what_is_missing_is_said(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.nodes import network

    for program in {"unshare", "nsenter", "ip", "mount", "hostname"} - {what}:
        (tmp_path / program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    network.why_there_are_none.cache_clear()
    assert network.why_there_are_none() == f"{what} is not installed"
    network.why_there_are_none.cache_clear()
