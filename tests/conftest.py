"""Shared by all tests: where their compiled code goes, and random numbers that are the same in every run."""

import compileall
import gc
import os
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from feste_dp.kernels.code_cache import KernelCache, code_place
from feste_dp.runtime.warmup import compile_kernels

# Hundreds of processes that tests start load them, also where Python is told to write none.
compileall.compile_dir(Path(__file__).parents[1] / "feste_dp", quiet=2)

# Tests compile kernels for float64 and more; the cache of real runs, which the processes that tests start
# use, must hold what the warm-up wrote and nothing else.
KernelCache.kind = "-tests"


WHOLE, OURS = code_place().path, code_place(KernelCache.kind).path  # before a test sets the environment
open_cache = KernelCache._open


def begin_with_the_code_of_runs(cache: KernelCache) -> None:
    """What a run calls is compiled once, by the warm-up; tests use that code and add theirs to a copy."""
    KernelCache._open = open_cache
    compile_kernels(os.environ, lambda seconds: None)
    if not OURS.exists():
        begun = Path(tempfile.mkdtemp(prefix="begun-", dir=OURS.parent))
        for folder in filter(Path.is_dir, WHOLE.iterdir()):
            shutil.copytree(folder, begun / folder.name)
        try:
            begun.rename(OURS)
        except OSError:  # another process of the tests was faster
            shutil.rmtree(begun)
    cache._open()


KernelCache._open = begin_with_the_code_of_runs

# Several processes take file after file from one list (pytest-xdist, loadfile). The first compiles what a run
# calls, for about a minute, while the second has files that need nothing of it; then come those that take
# longest, so that at the end no process is left with one of them while the others have nothing to do.
FIRST = "kernels/test_matmul.py"
WITHOUT_KERNELS = (
    "test_json_text.py", "config/", "data/test_tok", "data/test_splitting.py", "report/", "files/",
    "checkpoint/", "machine/", "scale/test_laws.py", "test_imports.py",
)  # fmt: skip
LONGEST = (
    "verify/", "model/test_gpt2.py", "train/test_exactness.py", "runtime/test_recovery.py",
    "cli/test_signals.py", "train/test_resume.py", "cli/test_disk_trouble.py", "cli/test_scale.py",
    "cli/test_machine.py", "chaos/", "train/test_replay.py", "cli/test_commands.py", "launch/",
    "runtime/test_coordinator.py", "kernels/test_linear.py", "api/test_", "kernels/test_attention.py",
    "train/test_giving_up.py", "train/test_run_history.py", "train/test_recovery.py",
    "cli/test_plan.py", "cli/test_doors.py", "nodes/", "cli/test_taken_away.py",
    "cli/test_fine_tuning.py", "train/test_run_trace.py", "test_documented_commands.py",
    "cli/test_bad_input.py", "train/test_held_run.py", "runtime/test_letterbox.py",
    "runtime/test_warmup.py", "cli/", "train/", "runtime/", "kernels/",
)  # fmt: skip
ORDER = (FIRST, *WITHOUT_KERNELS, *LONGEST)


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # files with many tests first: those with few take longer


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # thousands of tests, which no later collection has to look through


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place_in_order)


def _place_in_order(item: pytest.Item) -> int:
    file = item.nodeid.removeprefix("tests/")
    return next((place for place, start in enumerate(ORDER) if file.startswith(start)), len(ORDER))


# How long an example takes says nothing on a busy machine.
settings.register_profile("feste-dp", deadline=None)
settings.load_profile("feste-dp")

# Ignored under nohup, or in the background of a script; a process that a test starts, and that has to end by
# one of them, would not.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)
