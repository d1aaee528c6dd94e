"""Whether the nodes of a run can write its checkpoints together, found out at the start, and their ends of
checkpoint/joint_saving.py."""

import os
import queue
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feste_dp.checkpoint.filesystem import TEMPORARY
from feste_dp.checkpoint.format import PARAMS
from feste_dp.checkpoint.joint_saving import Helpers
from feste_dp.checkpoint.part_writer import PartWriter
from feste_dp.config.schema import Config
from feste_dp.files.reading import read_plain
from feste_dp.files.writing import write_whole
from feste_dp.model.parameters import parameter_count
from feste_dp.nodes.link import Link
from feste_dp.optim.optimizer import optimizer_class
from feste_dp.plan.needs import checkpoint_bytes
from feste_dp.run.directory import reason

WORTH_BYTES = 64_000_000
"""A smaller checkpoint is written by one node as fast as by several."""
_SEEN_LATE_S = 1.0
"""So long after it was made, a network file system may not show a file yet."""


@dataclass(frozen=True)
class SharedSaving:
    """What was found out, the same on all nodes, and a line about it, where it is worth one."""

    is_shared: bool
    line: str = ""


def share_saving(link: Link, config: Config, checkpoints: Path | None = None) -> SharedSaving:
    """All nodes call it; the first gives the folder of the checkpoints."""
    if checkpoint_bytes(config) < WORTH_BYTES:
        return SharedSaving(False)
    problems = _problems(link, checkpoints)
    odd = [(name, problem) for name, problem in zip(link.names, problems, strict=True) if problem]
    if not odd:
        return SharedSaving(True, f"checkpoints: each of {link.size} nodes writes its part")
    said = ", ".join(f"{name} {problem}" for name, problem in odd)
    return SharedSaving(False, f"checkpoints: node 0 writes all, for {said}")


def helpers(link: Link, place: Callable[[], Path]) -> Helpers:
    """Those of the first node, whose checkpoints others find in place()."""
    return Helpers(LinkWire(link), place)


def part_writer(link: Link, config: Config) -> PartWriter:
    """That of another node."""
    tensors = (PARAMS, *optimizer_class(config.optim).names)
    return PartWriter(LinkWire(link), link.rank, parameter_count(config.model), tensors)


class LinkWire:
    """The Wire of joint_saving.py, by the signs of life between nodes."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inbox: queue.SimpleQueue[tuple[int, list[Any]]] = queue.SimpleQueue()
        link.on_post = lambda node, words: self._inbox.put((node, words))

    @property
    def names(self) -> Sequence[str]:
        return self._link.names

    def send(self, to: int, words: list[Any]) -> None:
        self._link.post(to, words)

    def receive(self, timeout_s: float) -> tuple[int, list[Any]] | None:
        try:
            return self._inbox.get(timeout=timeout_s) if timeout_s > 0 else self._inbox.get_nowait()
        except queue.Empty:
            return None

    def is_up(self, machine: int) -> bool:
        return self._link.is_up(machine)


def _problems(link: Link, checkpoints: Path | None) -> list[str]:
    """Of each node, why it cannot write beside what the first writes; "" where it can. In a folder that the
    first makes each leaves a file with words that nobody can guess, and they look for each other's."""
    folder, words, problem = Path(), "", ""
    if checkpoints is not None:
        words = secrets.token_hex(16)
        folder = checkpoints / f"{TEMPORARY}seen-by-all-{secrets.token_hex(8)}"
        problem = _made(folder) or _left(folder, 0, words)
    told = link.gather([os.fsencode(folder), words, problem])[0]
    if checkpoints is None:
        place, words, failed = told
        folder = Path(os.fsdecode(place))
        if not failed:
            problem = _not_seen(folder, 0, words) or _left(folder, link.rank, words)
    problems: list[str] = link.gather(problem)
    if checkpoints is not None:
        if not problem:
            problems = [each or _not_seen(folder, node, words) for node, each in enumerate(problems)]
        shutil.rmtree(folder, ignore_errors=True)
    agreed: list[str] = link.gather(problems)[0]
    return agreed


def _made(folder: Path) -> str:
    try:
        folder.mkdir()
    except OSError as error:
        return f"cannot write in {folder.parent}: {reason(error)}"
    return ""


def _left(folder: Path, node: int, words: str) -> str:
    try:
        write_whole(folder / str(node), f"{words} {node}".encode())
    except OSError as error:
        return f"cannot write in {folder.parent}: {reason(error)}"
    return ""


def _not_seen(folder: Path, node: int, words: str) -> str:
    """Why the file of a node is not there with these words."""
    late = time.monotonic() + _SEEN_LATE_S
    while True:
        try:
            found = read_plain(folder / str(node), 1000)
        except OSError as error:
            if time.monotonic() < late:
                time.sleep(_SEEN_LATE_S / 20)
                continue
            if isinstance(error, FileNotFoundError):
                return f"does not see {folder.parent} as node 0 does"
            return f"cannot read in {folder.parent}: {reason(error)}"
        if found != f"{words} {node}".encode():
            return f"does not see {folder.parent} as node 0 does"
        return ""
