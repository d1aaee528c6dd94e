"""Several machines write one checkpoint: what the one that commits it asks of the others and believes them.

All of them have the same arrays and see the same folder. Each writes some of the shard files, into a folder
beside the checkpoint; the first takes a file from there once it is done and has the hash that it must have,
and writes itself whatever is missing. So helpers save time, and nothing depends on them.

Words of the first machine:  ["begin", step, path of the folder]
                             ["end", step]  nothing is wanted for this step any more
                             ["out"]  nothing is wanted of you any more
Words of the others:         ["part", name of the folder, file, size, SHA-256]
                             ["failed", name of the folder, reason]
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.errors import RunError

PATIENCE_S = 60.0
"""So long and as long as its own files took, the first machine waits for the next file of the others."""
_LOOK_S = 0.02


class DivergedError(RunError):
    """Machines that must have the same bits have others: all since the last checkpoint is in doubt."""


class Wire(Protocol):
    """Words between the machines. The first is number 0."""

    @property
    def names(self) -> Sequence[str]:
        """Of all machines, as people know them."""
        ...

    def send(self, to: int, words: list[Any]) -> None:
        """Returns at once. What is sent to a machine arrives in this order."""
        ...

    def receive(self, timeout_s: float) -> tuple[int, list[Any]] | None:
        """The sender and its words; None where none come in time."""
        ...

    def is_up(self, machine: int) -> bool:
        """False once it will say nothing any more."""
        ...


def owner(file: int, machines: int) -> int:
    """Which machine writes a shard file."""
    return file % machines


class Helpers:
    """The other machines, for the thread that writes checkpoints on the first."""

    def __init__(self, wire: Wire, place: Callable[[], Path], patience_s: float = PATIENCE_S) -> None:
        """place() is where the others find the folder of the checkpoints."""
        self._wire, self._place, self.patience_s = wire, place, patience_s
        self._useless: set[int] = set()
        self._warnings: list[tuple[str, str]] = []

    def name(self, machine: int) -> str:
        return self._wire.names[machine]

    def owner(self, file: int) -> int:
        """Which machine is to write a shard file; 0, the first, for one that is not asked any more."""
        machine = owner(file, len(self._wire.names))
        return machine if machine and machine not in self._useless and self._wire.is_up(machine) else 0

    def begin(self, step: int, folder: str) -> None:
        """Have all write their files of this step, into a folder beside the checkpoints."""
        self._to_all(["begin", step, os.fsencode(self._place() / folder)])

    def end(self, step: int) -> None:
        """Nothing is wanted for this step: no save of it is to come, or it is done."""
        self._to_all(["end", step])

    def receive(self, timeout_s: float) -> tuple[int, list[Any]] | None:
        return self._wire.receive(timeout_s)

    def is_up(self, machine: int) -> bool:
        return self._wire.is_up(machine)

    def give_up(self, machine: int) -> None:
        """Never ask it again: it says nothing, and waiting for it takes long."""
        self._useless.add(machine)
        self._wire.send(machine, ["out"])

    def warn(self, machine: int, step: int, reason: str) -> None:
        name = self.name(machine)
        line = f"checkpoint of step {step}: node 0 wrote the files of {name} too, which {reason}"
        self._warnings.append((f"{name} {reason}", line))

    def take_warnings(self) -> list[tuple[str, str]]:
        """(what is to be said once, the line)."""
        taken, self._warnings = self._warnings, []
        return taken

    def _to_all(self, words: list[Any]) -> None:
        for machine in range(1, len(self._wire.names)):
            self._wire.send(machine, words)


class HelpedSave:
    """The files that the others write for one save. Close it whatever happens."""

    def __init__(
        self, helpers: Helpers, fs: Filesystem, folder: Path, step: int, names: Sequence[str]
    ) -> None:
        """folder is to be made, for the others; names are those of all shard files."""
        self._helpers, self._fs, self._folder = helpers, fs, folder
        self._step, self._names = step, names
        owners = {file: helpers.owner(file) for file in range(len(names))}
        self._missing = {file: machine for file, machine in owners.items() if machine}
        """Which machine is to write a file that is not there yet."""
        if self._missing:
            fs.make_directory(folder)
            helpers.begin(step, folder.name)

    def is_own(self, file: int) -> bool:
        """Whether the first machine writes it."""
        return file not in self._missing

    def collect(
        self, into: Path, digest: Callable[[int], str], own_seconds: float
    ) -> dict[int, tuple[int, str]]:
        """Move the files of the others there, as they come; digest(file) is the hash that each must have.
        Returns size and hash of those that came; the others are to be written here."""
        taken: dict[int, tuple[int, str]] = {}
        digests: dict[int, str] = {}

        def hash_of(file: int) -> str:
            if file not in digests:
                digests[file] = digest(file)
            return digests[file]

        unhashed = iter(list(self._missing))
        patience = self._helpers.patience_s + own_seconds
        deadline = time.monotonic() + patience
        while self._missing:
            file = next(
                (file for file in unhashed if file in self._missing), None
            )  # while the others write, for it takes as long
            if file is not None:
                hash_of(file)
                deadline = time.monotonic() + patience
            come = self._helpers.receive(_LOOK_S if file is None else 0.0)
            if come is not None:
                deadline = time.monotonic() + patience
                self._take(*come, into, hash_of, taken)
            elif time.monotonic() > deadline:
                for machine in set(self._missing.values()):
                    self._do_without(machine, f"said nothing for {patience:.0f} s")
                    self._helpers.give_up(machine)
            elif file is None:
                for machine in set(self._missing.values()):
                    if not self._helpers.is_up(machine):
                        self._do_without(machine, "is gone")
        return taken

    def close(self) -> None:
        """Remove what is left of their folder, as far as it goes: the next save removes the rest."""
        with contextlib.suppress(OSError):
            if self._folder.exists():
                self._fs.remove(self._folder)

    def _take(
        self,
        machine: int,
        words: list[Any],
        into: Path,
        digest: Callable[[int], str],
        taken: dict[int, tuple[int, str]],
    ) -> None:
        match words:
            case ["part" | "failed", str(folder), *_] if folder != self._folder.name:
                return  # of a save that went on without it
            case ["part", _, int(file), int(size), str(sha256)] if self._missing.get(file) == machine:
                reason = self._refused(machine, file, size, sha256, digest, into)
                if reason is None:
                    taken[file] = size, sha256
                    del self._missing[file]
                else:
                    self._do_without(machine, reason)
            case ["failed", _, str(reason)]:
                self._do_without(machine, f"could not: {reason}")

    def _refused(
        self, machine: int, file: int, size: int, sha256: str, digest: Callable[[int], str], into: Path
    ) -> str | None:
        """Why a file is not taken; it is where it belongs, where it is."""
        if sha256 != digest(file):
            raise DivergedError(
                f"{self._helpers.name(machine)} has other weights or optimizer state than node 0 after step "
                f"{self._step}, which is not saved: one of the two computes wrongly, or its memory errs"
            )
        written = self._folder / self._names[file]
        try:
            if written.stat().st_size != size:
                return f"wrote another number of bytes into {self._names[file]} than it says"
            self._fs.rename(written, into / written.name)
        except OSError as error:
            return f"wrote {self._names[file]} where node 0 cannot take it: {error.strerror or error}"
        return None

    def _do_without(self, machine: int, reason: str) -> None:
        self._helpers.warn(machine, self._step, reason)
        self._missing = {file: other for file, other in self._missing.items() if other != machine}
