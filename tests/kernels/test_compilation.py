import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.cache import Place
from feste_dp.kernels import code_cache
from feste_dp.kernels.code_cache import code_place, holds_trusted_code, mark_line, sources_digest
from feste_dp.kernels.matmul import matmul
from feste_dp.model.gpt2 import micro_batch


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of the package's sources, of which the digest is taken."""
    package = Path(code_cache.__file__).parent.parent
    for name in code_cache.COMPILED_PACKAGES:
        shutil.copytree(package / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_cache, "__file__", str(tmp_path / "kernels" / "code_cache.py"))
    return tmp_path


def test_the_digest_is_that_of_one_state_of_the_sources_in_one_place(copied_package, monkeypatch):
    copied = sources_digest()
    assert sources_digest() == copied
    assert len(copied) == 16 and set(copied) <= set("0123456789abcdef")
    os.utime(copied_package / "kernels" / "linear.py", (1, 1))
    assert sources_digest() == copied  # an image or a checkout gives files another time
    monkeypatch.undo()
    assert sources_digest() != copied


@pytest.mark.parametrize("file", ["kernels/vector/tile.py", "model/gpt2.py"])
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
    (copied_package / "kernels" / "inner").mkdir()
    (copied_package / "kernels" / "newer.py").rename(copied_package / "kernels" / "inner" / "newer.py")
    digests.append(sources_digest())
    assert len(set(digests)) == 4


@pytest.mark.parametrize("version", ["numba", "llvmlite", "np"])
def test_code_of_another_version_is_not_taken(version, monkeypatch):
    before = sources_digest()
    monkeypatch.setattr(getattr(code_cache, version), "__version__", "0.0.1")
    assert sources_digest() != before


def test_code_of_another_python_or_of_other_bytecode_is_not_taken(monkeypatch):
    before, flags = sources_digest(), ["-O", "-OO"]
    printed = [
        subprocess.run([sys.executable, *flag, "-c", PRINT_PLACE], capture_output=True, text=True, check=True)
        for flag in ([], *([flag] for flag in flags))
    ]
    assert len({done.stdout for done in printed}) == 3
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    assert sources_digest() != before


def test_code_for_another_cpu_is_not_taken(monkeypatch):
    digests = {sources_digest()}
    monkeypatch.setattr(code_cache.llvmlite.binding, "get_host_cpu_name", lambda: "skylake")
    digests.add(sources_digest())
    monkeypatch.setattr(code_cache.numba.config, "OPT", 1)
    digests.add(sources_digest())
    assert len(digests) == 3


PRINT_PLACE = "from feste_dp.kernels.compilation import CACHE_DIRECTORY; print(CACHE_DIRECTORY)"

# Imports everything, and says what that changed; then compiles one kernel, and where it lies.
IMPORT_ALL = """
import os, numba
from pathlib import Path
settings = {name: value for name, value in vars(numba.config).items() if name.isupper()}
from feste_dp.cli import commands
from feste_dp.kernels.handover import listen
assert {name: value for name, value in vars(numba.config).items() if name.isupper()} == settings
assert not Path(os.environ["FESTE_DP_CACHE"]).exists()
import numpy as np
listen(np.zeros(1, np.int64))
print(listen.stats.cache_path)
"""


def test_importing_the_program_touches_nothing_and_compiled_code_is_private(tmp_path):
    environ = os.environ | {"FESTE_DP_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
    assert done.stderr == ""
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "cache" / "compiled") and len(list(folder.iterdir())) == 2
    folders = (folder, *folder.parents)
    inside = [path for path in folders if path.is_relative_to(tmp_path / "cache")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in inside} == {0o700}


def complete_code(folder: Path) -> Path:
    """A folder as a warm-up leaves it, which others may read."""
    code = folder / "kernels_0" / "code.nbc"
    code.parent.mkdir(parents=True)
    code.write_bytes(b"machine code")
    (folder / "complete").write_bytes(mark_line(folder, code))
    return code


def test_code_that_others_could_have_changed_is_not_trusted(tmp_path):
    code = complete_code(tmp_path)
    assert holds_trusted_code(tmp_path)
    for path in (tmp_path, code.parent, code):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(before | 0o020)
        assert not holds_trusted_code(tmp_path)
        path.chmod(before)
        if os.getuid() == 0:
            os.chown(path, 4242, -1)
            assert not holds_trusted_code(tmp_path)
            os.chown(path, 0, -1)
    code.write_bytes(b"machine kode")
    assert not holds_trusted_code(tmp_path)


def test_complete_code_that_cannot_be_written_to_is_used_where_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv(code_cache.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("FESTE_DP_CACHE", str(tmp_path))
    monkeypatch.setattr(
        code_cache, "locate", lambda *parts: Place(Path("/elsewhere"), "cannot be written to")
    )
    baked = tmp_path / "compiled" / f"{sources_digest()}-baked"
    assert code_place("-baked").warning == "cannot be written to"
    code_cache._code_place.cache_clear()
    complete_code(baked)
    assert code_place("-baked") == Place(baked)
    code_cache._code_place.cache_clear()


def test_compiled_code_may_neither_reorder_nor_join_what_is_written():
    for function in (matmul, micro_batch):
        assert not function.targetoptions.get("fastmath")
        assert function.targetoptions["error_model"] == "numpy"


def test_compiled_code_releases_the_lock_of_the_interpreter():
    assert matmul.targetoptions["nogil"] and micro_batch.targetoptions["nogil"]
