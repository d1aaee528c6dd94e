"""How the nodes of a job meet: each says what it is, and one that differs is named before anything begins."""

import contextlib
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from feste_dp import __version__
from feste_dp.errors import UsageError, on_one_line
from feste_dp.kernels import ARITHMETIC
from feste_dp.machine.cpus import cpu_name, usable_cpus
from feste_dp.nodes.link import Link
from feste_dp.nodes.team import NodeFacts
from feste_dp.runtime.own_code import own_code
from feste_dp.runtime.slots import ShardBlock

CLOCK_S = 5.0
"""Clocks that differ by more are told: times in logs and checkpoints would not fit together."""

_MUST_AGREE = {
    "version": "feste-dp",
    "arithmetic": "arithmetic version",
    "sources": "source files with SHA-256",
}


def introduce(link: Link) -> list[str]:
    """All nodes say what they are; sets link.names. Returns what is worth a warning. Raises UsageError that
    names the node that differs. All nodes call it."""
    said = link.gather(_own_facts())
    link.names = [f"node {node} ({facts['host']})" for node, facts in enumerate(said)]
    for key, what in _MUST_AGREE.items():
        check_alike(link.names, [facts[key] for facts in said], f"has {what}", "install the same everywhere")
    commands = [facts["command"] for facts in said]
    check_alike(link.names, commands, "runs feste-dp", "give all nodes the same command")
    began = time.time()
    clocks = [clock - began for clock in link.gather(time.time())]
    warnings = []
    middle = sorted(clocks)[len(clocks) // 2]
    for name, clock in zip(link.names, clocks, strict=True):
        if abs(clock - middle) > CLOCK_S:
            warnings.append(f"the clock of {name} is {clock - middle:+.0f} s off the others': set it")
    for name, facts in zip(link.names, said, strict=True):
        if facts["usable"] == 1 < facts["cpus"]:
            warnings.append(
                f"{name} may use 1 of its {facts['cpus']} CPUs, as mpirun binds a rank to a core: give it "
                "--bind-to none"
            )
    return warnings


def sharing(link: Link) -> int:
    """How many nodes, this one included, run on the same CPUs. All nodes call it."""
    own = _place()
    return sum(bool(set(own[1]) & set(cpus)) for boot, cpus in link.gather(own) if boot == own[0])


def introduce_workers(
    link: Link, asked: int | None, workers: int, blocks: Sequence[ShardBlock], shared_by: int
) -> list[NodeFacts]:
    """All nodes say what they compute with, once their workers have started. All nodes call it."""
    said = link.gather([cpu_name(), usable_cpus(), workers, asked, shared_by])
    return [
        NodeFacts(name, on_one_line(cpu)[:100], usable, workers, block.count, asked, shared)
        for name, (cpu, usable, workers, asked, shared), block in zip(link.names, said, blocks, strict=True)
    ]


def check_alike(names: Sequence[str], values: Sequence[Any], what: str, remedy: str) -> None:
    """Raises UsageError that names those nodes whose value differs from most, or from the first's."""
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return
    most = max(counts.values())
    usual = next(value for value in map(str, values) if counts[value] == most)
    odd = [name for name, value in zip(names, values, strict=True) if str(value) != usual]
    value = next(str(value) for value in values if str(value) != usual)
    others = "the others" if len(names) - len(odd) > 1 else next(name for name in names if name not in odd)
    raise UsageError(f"{', '.join(odd)} {what} {_short(value)}, {others} {_short(usual)}: {remedy}")


def differing(
    own: Mapping[str, object], first: Mapping[str, object], apart: Callable[[str], bool]
) -> str | None:
    """What to say of the first key in which a node's config differs from the first node's."""
    for key in [*first, *own]:
        if not apart(key) and own.get(key) != first.get(key):
            return (
                f"{key} is {_short(str(own.get(key)))} here and {_short(str(first.get(key)))} on node 0: "
                "give all nodes the same config"
            )
    return None


def _own_facts() -> dict[str, object]:
    return {
        "host": on_one_line(socket.gethostname())[:64],
        "version": __version__,
        "arithmetic": ARITHMETIC,
        "sources": own_code().sources,
        "command": "".join(sys.argv[1:2]),
        "cpus": os.cpu_count() or 1,
        "usable": usable_cpus(),
    }


def _place() -> tuple[str, list[int]]:
    """This machine since its last start, and the CPUs that may be used of it."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return boot.strip(), sorted(os.sched_getaffinity(0))


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
