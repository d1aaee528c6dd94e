"""A command on a terminal of its own, driven like a person does: wait for words, press a key.

Nothing here waits for seconds: a wait ends when the words are there, or fails after a limit that only a
hang reaches.
"""

import contextlib
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

LIMIT_S = 90.0
CTRL_C = b"\x03"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# sh, the leader of a new session, opens the terminal and so gets it as its own: Ctrl-C becomes SIGINT
OPEN_TERMINAL = 'terminal=$1; shift; exec "$@" <"$terminal" >"$terminal" 2>"$terminal"'


class Terminal:
    """Use as a context manager; leaving it kills what still runs."""

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], cwd: Path, columns: int = 100
    ) -> None:
        self._mark = f"FESTE_DP_TEST_TERMINAL={secrets.token_hex(8)}"
        self._screen, self._keyboard_end = pty.openpty()
        termios.tcsetwinsize(self._keyboard_end, (24, columns))
        wrapped = ["sh", "-c", OPEN_TERMINAL, "sh", os.ttyname(self._keyboard_end), *command]
        self.process = subprocess.Popen(
            wrapped, env=dict(environ) | dict([self._mark.split("=")]), cwd=cwd, start_new_session=True
        )
        self._output = b""
        self._is_open = True

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def raw(self) -> str:
        return self._output.decode(errors="replace")

    @property
    def output(self) -> str:
        """What has been printed, without colours and cursor movements."""
        return ANSI.sub("", self.raw).replace("\r\n", "\n")

    def wait_for(self, words: str, times: int = 1) -> None:
        """Read until the words have been printed so many times."""
        deadline = time.monotonic() + LIMIT_S
        while self.output.count(words) < times:
            ended = self.process.poll() is not None
            if not self._read(0.0 if ended else 1.0) and ended:
                raise AssertionError(f"ended without {words!r}: {self.output[-2000:]}")
            assert time.monotonic() < deadline, f"no {words!r} at the end of {self.output[-2000:]}"

    def wait_for_silence(self, silence_s: float = 1.0) -> None:
        """Read until nothing has been printed for a while: the run is at something long, or waits."""
        while self._read(silence_s):
            pass

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Go on reading until something is so."""
        deadline = time.monotonic() + LIMIT_S
        while not is_so():
            self._read(0.02)
            assert self.process.poll() is None, f"ended: {self.output[-2000:]}"
            assert time.monotonic() < deadline, f"not so: {self.output[-2000:]}"

    def press(self, key: bytes) -> None:
        os.write(self._screen, key)

    def send(self, signum: signal.Signals) -> None:
        """To the program alone, as kill does."""
        self.process.send_signal(signum)

    def close_window(self) -> None:
        """Hang up: the kernel sends SIGHUP, and nothing can be read or written any more."""
        os.close(self._keyboard_end)
        os.close(self._screen)
        self._is_open = False

    def others(self, words: str) -> list[int]:
        """Processes that the command has started and whose command line has these words."""
        return [pid for pid, line in self._started() if pid != self.pid and words in line]

    def finish(self) -> int:
        """Read to the end; the exit status, as a shell gives it. No process is left."""
        deadline = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            self._read(0.1)
            assert time.monotonic() < deadline, f"does not end: {self.output[-2000:]}"
        while self._read(0.0):
            pass
        left = [line for _, line in self._started()]
        assert not left, f"processes left behind: {left}"
        status = self.process.returncode
        return status if status >= 0 else 128 - status

    def _read(self, timeout_s: float) -> bool:
        if not self._is_open:
            time.sleep(timeout_s)
            return False
        if not select.select([self._screen], [], [], timeout_s)[0]:
            return False
        chunk = os.read(self._screen, 65536)
        self._output += chunk
        return bool(chunk)

    def _started(self) -> list[tuple[int, str]]:
        """The processes of the command that live: their numbers and command lines."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (directory / "environ").read_bytes():
                    line = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    found.append((int(directory.name), line))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self._is_open:
            self.close_window()
