import os
from pathlib import Path

import pytest

from feste_dp.cache import cache_root
from feste_dp.kernels.code_cache import COMPILED_FOLDER
from feste_dp.runtime.warmup import compile_kernels
from tests.seccomp import SUPPORTED
from tests.starts.stage import Stage


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    if not SUPPORTED:
        pytest.skip("calls can be watched on Linux on x86-64 only")
    compile_kernels(os.environ, lambda seconds: None)
    folder: Path = tmp_path_factory.mktemp("starts")
    try:
        return Stage(folder, cache_root(os.environ) / COMPILED_FOLDER)
    except OSError as error:
        pytest.skip(str(error))
