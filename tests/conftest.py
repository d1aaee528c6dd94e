"""Shared by all tests: where their compiled code goes, and random numbers that are the same in every run."""

import signal

import numpy as np
import pytest
from hypothesis import settings

from feste_dp.kernels.code_cache import KernelCache

# Tests compile kernels for float64 and more; the cache of real runs, which the processes that tests start
# use, must hold what the warm-up wrote and nothing else.
KernelCache.kind = "-tests"

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
