"""The switch between the machines of `network.py`: in namespaces of its own it makes the others.

    unshare [--user --map-root-user] --net --mount python -I switch.py N FOLDER

A machine is a set of namespaces (network, hostname, mounts, IPC), held open by a process that does nothing.
Its interface eth0 is one end of a veth pair; the other end, portK, hangs on a bridge here. Reads one command
a line, JSON, and answers each with a line; at the end of its input it kills every process in the machines
and goes, so that nothing is left when whoever started it was killed.

A link that delays or loses frames leads through this process (many kernels lack netem): portK is taken off
the bridge, frames are read from it and written to a second pair, one end of which is on the bridge, and the
other way round. Standard library alone.
"""

import collections
import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

PACKET_VNET_HDR = 15
"""Frames come and go with the header that says what the kernel left to the card (checksum, segments)."""
PACKET_IGNORE_OUTGOING = 23
SOL_PACKET = 263
ETH_P_ALL = 3

MACHINE = """
set -e
hostname {name}
mount -t tmpfs -o size=4g tmpfs /dev/shm
mount --bind {folder}/hosts /etc/hosts
ip link set lo up
echo
exec cat
"""


def ip(*lines: str) -> None:
    done = subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, capture_output=True)
    if done.returncode:
        raise OSError(f"ip: {done.stderr.strip()}")


class Machine:
    """The process that holds a machine's namespaces, and its link."""

    def __init__(self, index: int, folder: Path) -> None:
        self.index, self.relays = index, []
        script = MACHINE.format(name=f"node{index}", folder=folder)
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "--ipc", "--mount", "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def join(self) -> None:
        """Connects eth0 to the bridge, once the namespaces stand."""
        if not self.holder.stdout.readline():
            raise OSError(f"the namespaces of machine {self.index} could not be made")
        i, pid = self.index, self.holder.pid
        ip(
            f"link add name port{i} type veth peer name eth0 address 02:00:00:00:00:{i + 1:02x} netns {pid}",
            f"link set dev port{i} master bridge up",
        )
        inside = ["nsenter", "--target", str(pid), "--net", "ip"]
        subprocess.run([*inside, "address", "add", f"10.77.0.{i + 1}/24", "dev", "eth0"], check=True)
        subprocess.run([*inside, "link", "set", "dev", "eth0", "up"], check=True)

    def cut(self) -> None:
        """Frames are lost without a sign of it on either side."""
        self._end_relays()
        ip(f"link set dev port{self.index} nomaster")

    def heal(self) -> None:
        self._end_relays()
        ip(f"link set dev port{self.index} master bridge")

    def impair(self, delay_s: float, loss: float) -> None:
        """Every frame, in both directions, comes later or not at all."""
        self.cut()
        i = self.index
        ip(
            f"link add name relay{i} type veth peer name out{i}",
            f"link set dev relay{i} up",
            f"link set dev out{i} master bridge up",
        )
        inner, outer = raw_socket(f"port{i}"), raw_socket(f"relay{i}")
        self.relays = [Relay(inner, outer, delay_s, loss), Relay(outer, inner, delay_s, loss)]

    def _end_relays(self) -> None:
        for relay in self.relays:
            relay.end()
        if self.relays:
            ip(f"link del dev relay{self.index}")
        self.relays = []


def raw_socket(interface: str) -> socket.socket:
    """Receives all frames that arrive at the interface, and sends frames out of it."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # hears nothing yet
    raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    raw.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    raw.bind((interface, ETH_P_ALL))
    return raw


class Relay(threading.Thread):
    """Moves frames in one direction."""

    def __init__(self, source: socket.socket, sink: socket.socket, delay_s: float, loss: float) -> None:
        super().__init__(daemon=True)
        self._source, self._sink, self._delay_s, self._loss = source, sink, delay_s, loss
        self._random = random.Random(20240229)
        self._ended, self._end = os.pipe()
        self.start()

    def run(self) -> None:
        waiting: collections.deque[tuple[float, bytes]] = collections.deque()
        poller = select.poll()
        poller.register(self._source, select.POLLIN)
        poller.register(self._ended, select.POLLIN)
        while True:
            timeout = max(0.0, waiting[0][0] - time.monotonic()) * 1000 if waiting else None
            ready = dict(poller.poll(timeout))
            if self._ended in ready:
                return
            if ready:
                frame = self._source.recv(1 << 17)
                if self._random.random() >= self._loss:
                    waiting.append((time.monotonic() + self._delay_s, frame))
            while waiting and waiting[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):  # no room: a lost frame
                    self._sink.send(waiting.popleft()[1])

    def end(self) -> None:
        os.write(self._end, b"x")
        self.join()
        os.close(self._end)
        os.close(self._ended)
        self._source.close()


def network_of(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def processes_in(networks: set[int]) -> list[int]:
    """Of all processes those in one of these network namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if network_of(int(entry.name)) in networks:
                found.append(int(entry.name))
    return found


def kill_all(machines: list[Machine]) -> None:
    networks = set()
    for machine in machines:
        with contextlib.suppress(OSError):
            networks.add(network_of(machine.holder.pid))
    networks.discard(network_of(os.getpid()))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (left := processes_in(networks)):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for machine in machines:
            machine.holder.poll()
        time.sleep(0.01)


def main(count: int, folder: Path) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # its input says when to go
    machines = [Machine(index, folder) for index in range(count)]
    try:
        ip("link set lo up", "link add name bridge type bridge stp_state 0", "link set bridge up")
        for machine in machines:
            machine.join()
        print(json.dumps([machine.holder.pid for machine in machines]), flush=True)
        for line in sys.stdin:
            method, index, *arguments = json.loads(line)
            try:
                getattr(machines[index], method)(*arguments)
                print(json.dumps(None), flush=True)
            except OSError as error:
                print(json.dumps(str(error)), flush=True)
    finally:
        kill_all(machines)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
