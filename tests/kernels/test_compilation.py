import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.kernels import compilation
from feste_dp.kernels.compilation import CACHE_DIRECTORY, FASTMATH, sources_digest
from feste_dp.kernels.matmul import matmul
from feste_dp.model.gpt2 import micro_batch


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of the package's sources, of which the digest is taken."""
    package = Path(compilation.__file__).parent.parent
    for name in compilation.COMPILED_PACKAGES:
        shutil.copytree(package / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compilation, "__file__", str(tmp_path / "kernels" / "compilation.py"))
    return tmp_path


def test_the_digest_is_that_of_one_state_of_the_sources_in_one_place(copied_package, monkeypatch):
    copied = sources_digest()
    assert sources_digest() == copied
    assert len(copied) == 16 and set(copied) <= set("0123456789abcdef")
    os.utime(copied_package / "kernels" / "linear.py", (1, 1))
    assert sources_digest() != copied
    monkeypatch.undo()
    assert sources_digest() != copied


@pytest.mark.parametrize("file", ["kernels/simd.py", "model/gpt2.py"])
def test_a_change_in_any_kernel_gives_another_digest(copied_package, file):
    before = sources_digest()
    path = copied_package / file
    path.write_text(path.read_text() + "\n# changed\n")
    assert sources_digest() != before


def test_a_new_or_renamed_kernel_file_gives_another_digest(copied_package):
    digests = [sources_digest()]
    (copied_package / "kernels" / "new.py").write_text("")
    digests.append(sources_digest())
    (copied_package / "kernels" / "new.py").rename(copied_package / "kernels" / "newer.py")
    digests.append(sources_digest())
    assert len(set(digests)) == 3


@pytest.mark.parametrize("version", ["numba", "llvmlite", "np"])
def test_code_of_another_version_is_not_taken(version, monkeypatch):
    before = sources_digest()
    monkeypatch.setattr(getattr(compilation, version), "__version__", "0.0.1")
    assert sources_digest() != before


def test_code_for_another_cpu_is_not_taken(monkeypatch):
    digests = {sources_digest()}
    monkeypatch.setattr(compilation.llvmlite.binding, "get_host_cpu_name", lambda: "skylake")
    digests.add(sources_digest())
    monkeypatch.setattr(compilation.numba.config, "OPT", 1)
    digests.add(sources_digest())
    assert len(digests) == 3


def test_compiled_code_is_kept_in_a_private_directory():
    assert stat.S_IMODE(CACHE_DIRECTORY.stat().st_mode) == 0o700
    command = "import numba; from feste_dp.model import gpt2; print(gpt2.forward.stats.cache_path)"
    printed = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=120
    )
    assert Path(printed.stdout.strip()).is_relative_to(CACHE_DIRECTORY)


def test_compiled_code_may_not_assume_that_there_are_no_nans():
    assert not FASTMATH & {"fast", "nnan", "ninf", "afn"}
    for function in (matmul, micro_batch):
        assert function.targetoptions["fastmath"] == FASTMATH
        assert function.targetoptions["error_model"] == "numpy"


def test_compiled_code_releases_the_lock_of_the_interpreter():
    assert matmul.targetoptions["nogil"] and micro_batch.targetoptions["nogil"]
