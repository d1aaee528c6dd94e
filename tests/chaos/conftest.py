import os

import pytest

from feste_dp.runtime.warmup import compile_kernels


@pytest.fixture(scope="session")
def compiled():
    compile_kernels(os.environ, lambda seconds: None)
