import shutil
import stat
import tempfile
from pathlib import Path

import numba
import pytest

from feste_dp.kernels import compilation
from feste_dp.kernels.compilation import FASTMATH, compiled_cache_directory, sources_digest
from feste_dp.kernels.matmul import matmul


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The fallback goes below tmp_path as well."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of the package's sources, of which the digest is taken."""
    package = Path(compilation.__file__).parent.parent
    for name in compilation.COMPILED_PACKAGES:
        shutil.copytree(package / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(compilation, "__file__", str(tmp_path / "kernels" / "compilation.py"))
    return tmp_path


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"FESTE_DP_CACHE": "own", "XDG_CACHE_HOME": "xdg", "HOME": "home"}, "own"),
        ({"XDG_CACHE_HOME": "xdg", "HOME": "home"}, "xdg/feste-dp"),
        ({"HOME": "home"}, "home/.cache/feste-dp"),
    ],
)
def test_the_cache_lies_where_the_environment_says(environ, root, temporary):
    directory = compiled_cache_directory({key: str(temporary / value) for key, value in environ.items()})
    assert directory == temporary / root / "compiled" / sources_digest()
    assert directory.is_dir()


def test_the_cache_is_private_even_where_it_was_open(temporary):
    directory = compiled_cache_directory({"FESTE_DP_CACHE": str(temporary)})
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    directory.chmod(0o777)
    assert compiled_cache_directory({"FESTE_DP_CACHE": str(temporary)}) == directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_cache_that_cannot_be_made_falls_back_to_the_temporary_directory(temporary):
    (temporary / "file").write_text("in the way")
    directory = compiled_cache_directory({"FESTE_DP_CACHE": str(temporary / "file" / "cache")})
    assert directory.is_relative_to(temporary / "tmp")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("file", ["kernels/simd.py", "model/gpt2.py"])
def test_a_change_in_any_kernel_moves_the_cache(copied_package, file):
    before = sources_digest()
    assert before == sources_digest()
    path = copied_package / file
    path.write_text(path.read_text() + "\n# changed\n")
    assert sources_digest() != before


def test_this_process_uses_the_cache_of_the_present_sources():
    assert Path(numba.config.CACHE_DIR).name == sources_digest() or "feste-dp-" in numba.config.CACHE_DIR


def test_compiled_code_may_not_assume_that_there_are_no_nans():
    assert not FASTMATH & {"fast", "nnan", "ninf", "afn"}
    options = matmul.targetoptions
    assert options["nogil"] and options["error_model"] == "numpy" and options["fastmath"] == FASTMATH
