"""A save is stopped at every operation on the disk, by an error and by SIGKILL.

Run as a script it is the process that dies.
"""

import errno
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.listing import newest_whole
from feste_dp.checkpoint.loading import load_checkpoint, verify_checkpoint
from feste_dp.checkpoint.pointers import BEST, LATEST, point, pointed_step
from feste_dp.checkpoint.retention import retain
from feste_dp.checkpoint.saving import write_checkpoint

EXAMPLES = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
example_fields, example_arrays = EXAMPLES["example_fields"], EXAMPLES["example_arrays"]
P = 4_001
OPERATIONS = [
    "make_directory",
    "create",
    "write",
    "sync",
    "close",
    "sync_directory",
    "rename",
    "symlink",
    "remove",
    "free_bytes",
]
SCENARIOS = ["new step", "replaced step"]


class InterruptedFilesystem(Filesystem):
    """Calls `interrupt` at one operation: before it, or after it (a write: after half of it)."""

    def __init__(self, at, when, interrupt):
        self.done = []
        self.at, self.when, self.interrupt = at, when, interrupt


def _interrupted(name):
    operation = getattr(Filesystem, name)

    def method(self, *arguments):
        self.done.append(name)
        if len(self.done) - 1 != self.at:
            return operation(self, *arguments)
        if self.when == "after":
            descriptor, data = arguments if name == "write" else (None, b"")
            operation(self, *((descriptor, data[: len(data) // 2]) if name == "write" else arguments))
        return self.interrupt()

    return method


for _name in OPERATIONS:
    setattr(InterruptedFilesystem, _name, _interrupted(_name))


def prepare(directory, scenario):
    """Checkpoints 50, 100 (best) and 150 (latest); in the second scenario 150 is damaged and comes again."""
    for step in (50, 100, 150):
        path = write_checkpoint(directory, example_fields(step, P), example_arrays(step, P))
        point(directory, LATEST, path)
        if step == 100:
            point(directory, BEST, path)
    if scenario == "replaced step":
        os.truncate(directory / "step-00000150" / "manifest.json", 10)


@pytest.fixture
def copies(tmp_path):
    """copies(scenario, names): folders as prepare() makes them, of which only one waits for the disk."""

    def make(scenario, names):
        prepare(tmp_path / "first", scenario)
        for name in names:
            shutil.copytree(tmp_path / "first", tmp_path / str(name), symlinks=True)

    return make


def save(directory, scenario, filesystem):
    step = 200 if scenario == "new step" else 150
    path = write_checkpoint(
        directory, example_fields(step, P), example_arrays(step, P), file_count=2, filesystem=filesystem
    )
    point(directory, LATEST, path, filesystem)
    point(directory, BEST, path, filesystem)
    retain(directory, 1, filesystem=filesystem)


def count_operations(directory, scenario):
    prepare(directory, scenario)
    filesystem = InterruptedFilesystem(-1, "before", None)
    save(directory, scenario, filesystem)
    assert set(filesystem.done) == set(OPERATIONS)
    return len(filesystem.done)


def assert_nothing_is_lost(directory, scenario):
    """What must hold at once, before anybody repairs anything."""
    found, _ = newest_whole(directory)
    assert int(found.name[5:]) >= (150 if scenario == "new step" else 100)
    for path in directory.glob("step-*"):
        damaged_before = scenario == "replaced step" and path.name == "step-00000150"
        assert damaged_before or verify_checkpoint(path) == []


def assert_the_next_save_repairs_all(directory, scenario):
    save(directory, scenario, Filesystem())
    step = 200 if scenario == "new step" else 150
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["best", "latest", f"step-{step:08d}"]
    assert pointed_step(directory, LATEST) == pointed_step(directory, BEST) == step
    assert (
        load_checkpoint(directory / f"step-{step:08d}")[1]["v"].tobytes()
        == example_arrays(step, P)["v"].tobytes()
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_at_any_operation_loses_nothing(tmp_path, copies, scenario, when):
    def fail():
        raise OSError(errno.EIO, "Input/output error")

    silent, count = 0, count_operations(tmp_path / "count", scenario)
    copies(scenario, range(count))
    for at in range(count):
        directory = tmp_path / str(at)
        filesystem = InterruptedFilesystem(at, when, fail)
        try:
            save(directory, scenario, filesystem)
        except SaveError as error:
            assert str(error).isprintable() and "Input/output error" in str(error)
        else:
            assert filesystem.done[at] in ("remove", "symlink")  # else a file that holds the name
            silent += 1
        assert pointed_step(directory, LATEST) is not None and pointed_step(directory, BEST) is not None
        assert not list(directory.glob(".tmp-*"))
        assert_nothing_is_lost(directory, scenario)
        assert_the_next_save_repairs_all(directory, scenario)
    assert silent == 2  # two links; or one, and a replaced checkpoint that goes with the next save


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill_9_at_any_operation_loses_nothing(tmp_path, copies, scenario, when):
    count = count_operations(tmp_path / "count", scenario)
    copies(scenario, range(count))
    run_script("die", tmp_path, scenario, when, str(count))
    dangling = 0
    for at in range(count):
        directory = tmp_path / str(at)
        dangling += pointed_step(directory, LATEST) is None
        assert_nothing_is_lost(directory, scenario)
        assert_the_next_save_repairs_all(directory, scenario)
    # Only between the two renames of a replacement has the step no directory; the next open gives it back.
    assert dangling == (1 if scenario == "replaced step" else 0)


def test_a_file_size_limit_loses_nothing(tmp_path):
    prepare(tmp_path / "run", "new step")
    run_script("limit", tmp_path / "run", "new step")
    assert pointed_step(tmp_path / "run", LATEST) == 150
    assert not list((tmp_path / "run").glob(".*"))
    assert_nothing_is_lost(tmp_path / "run", "new step")
    assert_the_next_save_repairs_all(tmp_path / "run", "new step")


def run_script(*arguments):
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def die_at_every_operation(directory, scenario, when, count):
    for at in range(count):
        child = os.fork()
        if child == 0:
            save(
                directory / str(at),
                scenario,
                InterruptedFilesystem(at, when, lambda: os.kill(os.getpid(), signal.SIGKILL)),
            )
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def save_under_a_size_limit(directory, scenario):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    with pytest.raises(SaveError, match="was not saved: File too large"):
        save(directory, scenario, Filesystem())


if __name__ == "__main__":
    if sys.argv[1] == "die":
        die_at_every_operation(Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
    else:
        save_under_a_size_limit(Path(sys.argv[2]), sys.argv[3])
