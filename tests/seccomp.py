"""Runs a command under a filter of its system calls, which all its children inherit (Linux on x86-64).

`python seccomp.py [-refuse=NAME[:SECOND]=ERRNO].. [-watch=SOCKET] COMMAND..`: refused calls, or those of them
with this second argument, fail with this error, as where the kernel or a container's profile has none. Calls
that write are shown to who holds the other end of the socket, before each is made (Watch). A program of its
own: no fork of a process with threads.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64"

OPENAT = 257
OF_DESCRIPTORS = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "ftruncate": 77, "fallocate": 285,
    "sendfile": 40, "copy_file_range": 326, "fsync": 74, "fdatasync": 75,
}  # fmt: skip
OF_NAMES = {
    "creat": 85, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "unlink": 87, "unlinkat": 263, "rename": 82,
    "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266,
    "truncate": 76, "bind": 49,
}  # fmt: skip
OTHERS = {
    "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_getaffinity": 204, "setpriority": 141,
    "pidfd_open": 434, "memfd_create": 319, "prctl": 157,
}  # fmt: skip
SYNCS = ("fsync", "fdatasync")
_NAMES = {number: name for name, number in (OF_DESCRIPTORS | OF_NAMES | OTHERS).items()}
_CREATES = os.O_CREAT | os.O_TRUNC

_LOAD_NUMBER, _LOAD_SECOND, _LOAD_FLAGS = (
    (0x20, 0, 0, 0),
    (0x20, 0, 0, 16 + 8),
    (0x20, 0, 0, 16 + 2 * 8),
)  # of struct seccomp_data
_EQUALS, _HAS_BITS, _RETURN = 0x15, 0x45, 0x06
_ALLOW, _SHOW, _REFUSE = 0x7FFF0000, 0x7FC00000, 0x00050000
_SECCOMP, _SET_FILTER, _NO_NEW_PRIVILEGES = 317, 1, 38
_LISTENER, _WAITS_FOR_KILLS_ONLY = 1 << 3, 1 << 5
_RECEIVE, _ANSWER, _CONTINUE = 0xC0502100, 0xC0182101, 1


def under(command: Sequence[str], refused: Mapping[str, int] | None = None, watch: int = -1) -> list[str]:
    """The command that runs `command` with these calls refused; shown to the socket `watch`."""
    more = [f"-refuse={name}={number}" for name, number in (refused or {}).items()]
    more += [f"-watch={watch}"] if watch >= 0 else []
    return [sys.executable, "-I", __file__, *more, *command]


def main() -> None:
    arguments = sys.argv[1:]
    program: list[tuple[int, int, int, int]] = [_LOAD_NUMBER]
    channel = None
    while arguments[0].startswith("-"):
        kind, _, value = arguments.pop(0).partition("=")
        if kind == "-refuse":
            name, _, number = value.partition("=")
            name, _, second = name.partition(":")
            program += [(_EQUALS, 0, 4 if second else 1, (OF_DESCRIPTORS | OF_NAMES | OTHERS)[name])]
            if second:
                program += [_LOAD_SECOND, (_EQUALS, 0, 1, int(second))]
            program += [(_RETURN, 0, 0, _REFUSE | int(number))]
            program += [_LOAD_NUMBER] if second else []
        else:
            channel = socket.socket(fileno=int(value))
            for shown in (OF_DESCRIPTORS | OF_NAMES).values():
                program += [(_EQUALS, 0, 1, shown), (_RETURN, 0, 0, _SHOW)]
            program += [(_EQUALS, 0, 3, OPENAT), _LOAD_FLAGS]
            program += [(_HAS_BITS, 0, 1, _CREATES), (_RETURN, 0, 0, _SHOW)]
    program += [(_RETURN, 0, 0, _ALLOW)]
    listener = _install(program, 0 if channel is None else _LISTENER | _WAITS_FOR_KILLS_ONLY)
    if channel is not None:
        socket.send_fds(channel, [b"x"], [listener])
        channel.close()
        os.close(listener)
    os.execvp(arguments[0], arguments)


def _install(program: Sequence[tuple[int, int, int, int]], flags: int) -> int:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    done: int = libc.syscall(_SECCOMP, _SET_FILTER, flags, ctypes.byref(Program(len(program), code)))
    if done < 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    return done


@dataclass(frozen=True)
class Call:
    """A call that is about to be made; whoever makes it waits until it may."""

    pid: int
    name: str
    file: tuple[int, int] | None
    """Device and inode of the open file that it is about."""


class Watch:
    """A command and the calls with which it, or a child, is about to change a file or a folder."""

    def __init__(self, command: Sequence[str], **options: object) -> None:
        """options are those of subprocess.Popen."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                command = under(command, watch=theirs.fileno())
                self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], **options)  # type: ignore[call-overload]
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if not descriptors:
            self.process.wait()
            raise OSError("no filter of system calls can be watched here")
        self._listener = descriptors[0]

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *raised: object) -> None:
        os.close(self._listener)  # calls fail with ENOSYS from here on
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def calls(self, limit_s: float) -> Iterator[Call]:
        """Each call, made when the next is asked for; ends when all processes have. TimeoutError."""
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        while True:
            ready = poller.poll(limit_s * 1000)
            if not ready:
                raise TimeoutError
            if not ready[0][1] & select.POLLIN:
                self.process.wait()
                return
            asked = bytearray(80)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, asked)
            except OSError as error:  # ENOENT: who asked was killed
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue
                raise
            token, pid, _, number, _, _, first = struct.unpack_from("=QIIiIQQ", asked)
            call = _understood(pid, number, first)
            if call is not None:
                yield call
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._listener, _ANSWER, struct.pack("=QqiI", token, 0, 0, _CONTINUE))


def _understood(pid: int, number: int, first: int) -> Call | None:
    """None for a call about no file: words in pipes and sockets, memory."""
    name = _NAMES.get(number, "openat")
    if name not in OF_DESCRIPTORS:
        return Call(pid, name, None)
    descriptor = Path(f"/proc/{pid}/fd/{first & 0xFFFFFFFF}")
    try:
        found = descriptor.stat()
        target = str(descriptor.readlink())
    except OSError:
        return None
    is_file = stat.S_ISREG(found.st_mode) and not target.startswith("/memfd:")
    if not is_file and not (stat.S_ISDIR(found.st_mode) and name in SYNCS):
        return None
    return Call(pid, name, (found.st_dev, found.st_ino))


def descendants(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def kill_all(pid: int) -> None:
    """As a power failure does: a process and all that came of it, at once."""
    for each in descendants(pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


if __name__ == "__main__":
    main()
