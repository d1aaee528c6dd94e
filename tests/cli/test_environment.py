"""The environment of the user: no threads but those that compute, and kernels compiled in one way."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.cli.environment import settle_environment
from tests.cli.conftest import COMMAND, Place


def test_numpy_starts_no_threads_unless_the_user_asks_for_them() -> None:
    environ = {"HOME": "/h"}
    assert settle_environment(environ) == []
    assert environ == {"HOME": "/h", "OPENBLAS_NUM_THREADS": "1"}
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environ = {name: "8"}
        assert settle_environment(environ) == [] and environ == {name: "8"}


def test_variables_that_change_what_numba_compiles_are_dropped() -> None:
    environ = {"NUMBA_OPT": "0", "NUMBA_DISABLE_JIT": "1", "NUMBAT": "x", "OMP_NUM_THREADS": "1"}
    assert settle_environment(environ) == ["NUMBA_DISABLE_JIT", "NUMBA_OPT"]
    assert environ == {"NUMBAT": "x", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("value", "kept"), [("4", True), ("0", False), ("-1", False), ("many", False)])
def test_a_number_of_threads_that_numba_would_refuse_is_dropped(value: str, kept: bool) -> None:
    environ = {"NUMBA_NUM_THREADS": value}
    settle_environment(environ)
    assert ("NUMBA_NUM_THREADS" in environ) == kept


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ((-1, -1), (-1, -1)),
        ((7, -1), (7, -1)),
        ((100, 100), (80, 100)),
        ((7200, 7200), (7140, 7200)),
        ((30, 100), (30, 100)),
        ((2, 2), (1, 2)),
    ],
)
def test_a_limit_of_cpu_time_that_kills_warns_before(given: tuple[int, int], left: tuple[int, int]) -> None:
    program = (
        f"import resource; resource.setrlimit(resource.RLIMIT_CPU, {given})\n"
        "from feste_dp.cli.environment import settle_cpu_limit; settle_cpu_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"{left}\n", "")


PASS_OVER = """
import sys, warnings
warnings.simplefilter("error")
from feste_dp.runtime.numba_config import pass_over_numba_config
assert pass_over_numba_config() and "yaml" not in sys.modules
from numba import config
config.reload_config()
print(int(config.OPT), config.DISABLE_JIT)
"""


@pytest.mark.parametrize("content", ["disable_jit: 1\nopt: 0\n", "- no\n- map\n", "{"])
def test_a_configuration_file_of_numba_is_not_read(tmp_path: Path, content: str) -> None:
    (tmp_path / ".numba_config.yaml").write_text(content)
    done = subprocess.run([sys.executable, "-c", PASS_OVER], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3 0\n", "")


# The command line, and then the names of the threads that are there when it ends.
THREADS = """
import atexit, os, sys
from pathlib import Path
atexit.register(lambda: print(len(list(Path("/proc/self/task").iterdir())), file=sys.stderr))
from feste_dp.cli.main import main
sys.argv = ["feste-dp", "checkpoint", "list", sys.argv[1]]
main()
"""


def test_the_process_that_the_user_starts_has_no_idle_threads_of_libraries(place: Place) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-c", THREADS, str(place.run)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == "1\n"


def test_a_hostile_environment_is_a_warning_and_gives_the_same_run(place: Place, tmp_path: Path) -> None:
    environ = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "NUMBA_OPT": "0",
        "NUMBA_NUM_THREADS": "0",
        "OMP_NUM_THREADS": "8",
    }
    (tmp_path / ".numba_config.yaml").write_text("disable_jit: 1\nopt: 0\n")
    command = [*COMMAND, "launch", "--config", str(place.config), "--out", str(tmp_path / "run"), "--quiet"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    warnings = [line for line in done.stderr.splitlines() if re.search("NUM_THREADS|NUMBA|numba_conf", line)]
    assert len(warnings) == len(done.stderr.splitlines()) == 5
    assert warnings[-1].startswith("warning: OMP_NUM_THREADS=8: a worker has one thread all the same")
    last = "checkpoints/step-00000012"
    for file in sorted((place.run / last).glob("*.safetensors")):
        assert (tmp_path / "run" / last / file.name).read_bytes() == file.read_bytes()
