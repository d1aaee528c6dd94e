"""Shared by all tests: where their compiled code goes, and random numbers that are the same in every run."""

import compileall
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
