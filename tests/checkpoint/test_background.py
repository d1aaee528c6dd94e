import errno
import threading
import time

import pytest

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.filesystem import Filesystem, SaveError
from feste_dp.checkpoint.format import TrainState
from feste_dp.checkpoint.loading import load_checkpoint, read_manifest, verify_checkpoint
from feste_dp.checkpoint.pointers import BEST, LATEST, best_step, point, pointed_step
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.errors import UsageError
from tests.checkpoint.conftest import TENSORS

P = 10_007


class SlowFilesystem(Filesystem):
    """Holds the first write until the test lets it go."""

    def __init__(self):
        self.started = threading.Event()
        self.go = threading.Event()

    def write(self, descriptor, data):
        self.started.set()
        assert self.go.wait(10)
        return super().write(descriptor, data)


class FullDisk(Filesystem):
    def __init__(self, failures):
        self.failures = failures

    def sync(self, descriptor):
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        super().sync(descriptor)


@pytest.fixture
def open_writer(tmp_path):
    writers = []

    def open_one(**options):
        writers.append(BackgroundWriter(tmp_path / "run", P, TENSORS, **({"keep": 2} | options)))
        return writers[-1]

    yield open_one
    for writer in writers:
        writer.close()


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def best_at(step):
    return TrainState(
        best_val_loss=1.0,
        best_step=step,
        evals_since_best=0,
        val_loss=1.0,
        elapsed_seconds=2.0,
        skipped_steps=0,
    )


def test_a_background_save_equals_a_synchronous_one_though_the_arrays_change_at_once(
    tmp_path, make_fields, make_arrays, open_writer
):
    filesystem = SlowFilesystem()
    writer = open_writer(filesystem=filesystem)
    fields, arrays = make_fields(250, P), make_arrays(0, P)
    writer.submit(fields, arrays)
    assert filesystem.started.wait(10)
    for array in arrays.values():
        array[:] = -1
    fields.config["optim"] = "changed"
    assert writer.poll() == []
    filesystem.go.set()
    (result,) = writer.wait()
    expected = write_checkpoint(tmp_path / "sync", make_fields(250, P), make_arrays(0, P))
    assert (result.step, result.path, result.error) == (250, tmp_path / "run" / "step-00000250", None)
    assert contents(result.path) == contents(expected)


def test_a_second_save_waits_for_the_first_and_both_are_whole(make_fields, make_arrays, open_writer):
    filesystem = SlowFilesystem()
    writer = open_writer(filesystem=filesystem)
    writer.submit(make_fields(100, P), make_arrays(1, P))
    threading.Timer(0.1, filesystem.go.set).start()
    began = time.perf_counter()
    writer.submit(make_fields(200, P), make_arrays(2, P))
    assert time.perf_counter() - began > 0.09
    results = writer.close()
    assert [(result.step, result.error) for result in results] == [(100, None), (200, None)]
    for seed, result in enumerate(results, 1):
        assert load_checkpoint(result.path)[1]["params"].tobytes() == make_arrays(seed, P)["params"].tobytes()


def test_an_abandoned_writer_waits_for_nothing_and_its_save_is_not_committed(
    tmp_path, make_fields, make_arrays, open_writer
):
    filesystem = SlowFilesystem()
    writer = open_writer(filesystem=filesystem)
    writer.submit(make_fields(100, P), make_arrays(1, P))
    assert filesystem.started.wait(10)
    writer.abandon()
    assert writer.close() == []
    assert not (tmp_path / "run" / "step-00000100").exists()
    filesystem.go.set()
    writer.wait()


def test_pointers_and_retention_follow_each_commit(tmp_path, make_fields, make_arrays, open_writer):
    writer = open_writer()
    deleted = []
    for step in range(50, 401, 50):
        best = 100 if step >= 100 else 50
        writer.submit(make_fields(step, P, train=best_at(best)), make_arrays(step, P))
        (result,) = writer.wait()
        assert result.error is None and result.seconds > 0
        deleted += result.deleted_steps
        assert pointed_step(tmp_path / "run", LATEST) == step
        assert pointed_step(tmp_path / "run", BEST) == best
    assert deleted == [50, 150, 200, 250, 300]
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["best", "latest", *(f"step-{step:08d}" for step in (100, 350, 400))]


def test_what_a_process_had_to_do_that_was_killed_right_after_its_commit_is_done_by_the_next(
    tmp_path, make_fields, make_arrays, open_writer
):
    run, before = tmp_path / "run", {}
    for step in (50, 100, 150):
        before[step] = write_checkpoint(
            run, make_fields(step, P, train=best_at(min(step, 100))), make_arrays(step, P)
        )
    for name in (LATEST, BEST):
        point(run, name, before[50])
    writer = open_writer(keep=1)
    writer.catch_up(before[150], read_manifest(before[150]))
    assert (pointed_step(run, LATEST), pointed_step(run, BEST)) == (150, 100)
    assert sorted(path.name[5:] for path in run.glob("step-*")) == ["00000100", "00000150"]
    assert writer.close() == []


def test_a_failed_save_is_reported_once_and_the_next_one_succeeds(
    tmp_path, make_fields, make_arrays, open_writer
):
    writer = open_writer(filesystem=FullDisk(failures=1))
    writer.submit(make_fields(50, P), make_arrays(1, P))
    (failed,) = writer.wait()
    assert failed.step == 50 and failed.path is None
    assert isinstance(failed.error, SaveError) and str(failed.error).endswith("No space left on device")
    assert list((tmp_path / "run").iterdir()) == []
    assert writer.poll() == []
    writer.submit(make_fields(100, P), make_arrays(2, P))
    (result,) = writer.close()
    assert result.error is None and verify_checkpoint(result.path) == []


def test_a_failed_save_rotates_nothing_away(tmp_path, make_fields, make_arrays, open_writer):
    disk = FullDisk(failures=0)
    writer = open_writer(keep=1, filesystem=disk)
    writer.submit(make_fields(50, P), make_arrays(1, P))
    assert [result.error for result in writer.wait()] == [None]
    disk.failures = 1
    writer.submit(make_fields(100, P), make_arrays(2, P))
    (failed,) = writer.wait()
    assert failed.error is not None and failed.deleted_steps == ()
    assert pointed_step(tmp_path / "run", LATEST) == 50
    assert verify_checkpoint(tmp_path / "run/step-00000050") == []


def test_a_failed_pointer_is_reported_beside_the_whole_checkpoint(
    tmp_path, make_fields, make_arrays, open_writer
):
    writer = open_writer(keep=1)
    (tmp_path / "run" / "latest" / "of the user").mkdir(parents=True)
    warnings = []
    for step in (50, 100, 150):
        writer.submit(make_fields(step, P), make_arrays(1, P))
        (result,) = writer.wait()
        assert result.error is None and verify_checkpoint(result.path) == []
        warnings += result.warnings
    assert len(warnings) == 1 and "'latest' does not point at it" in warnings[0]
    assert [path.name for path in sorted((tmp_path / "run").glob("step-*"))] == [
        "step-00000050",  # the best
        "step-00000150",
    ]


def test_a_run_that_was_copied_without_its_links_rotates_and_keeps_the_best(
    tmp_path, make_fields, make_arrays, open_writer
):
    writer = open_writer(keep=1)
    for step in (50, 100):
        writer.submit(make_fields(step, P, train=best_at(50)), make_arrays(step, P))
        writer.wait()
    writer.close()
    for name in ("latest", "best"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    writer = open_writer(keep=1)
    assert best_step(tmp_path / "run", [50, 100]) == 50
    writer.submit(make_fields(150, P, train=best_at(50)), make_arrays(150, P))
    (result,) = writer.wait()
    assert (result.error, result.warnings, result.deleted_steps) == (None, (), (100,))
    assert [path.name[5:] for path in sorted((tmp_path / "run").glob("step-*"))] == ["00000050", "00000150"]


def test_what_is_only_convenient_stops_no_save(tmp_path, make_fields, make_arrays, open_writer, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".tmp-step-00000007-1.ab").mkdir()

    class Grudging(Filesystem):
        def remove(self, path):
            raise OSError(errno.EACCES, "Permission denied")

        def symlink(self, target, link):
            raise OSError(errno.EPERM, "Operation not permitted")

    def refuse(*arguments):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("feste_dp.checkpoint.filesystem.shutil.disk_usage", refuse)
    writer = open_writer(keep=1, filesystem=Grudging())
    results = []
    for step in (50, 100, 150):
        writer.submit(make_fields(step, P), make_arrays(step, P))
        results += writer.wait()
    assert [result.error for result in results] == [None] * 3
    said = [line for result in results for line in result.warnings]
    assert len(said) == 2 and "leftovers" in said[0] and "could not be deleted" in said[1]
    assert pointed_step(tmp_path / "run", LATEST) == 150
    assert verify_checkpoint(tmp_path / "run" / "step-00000150") == []


def test_a_fault_of_the_program_is_raised_in_the_training_loop(make_fields, make_arrays, open_writer):
    writer = open_writer()
    writer.submit(make_fields(50, P, config={"lr": float("inf")}), make_arrays(1, P))
    with pytest.raises(UsageError, match=r"config\.lr"):
        writer.wait()
    writer.submit(make_fields(50, P), make_arrays(1, P))
    assert [result.error for result in writer.wait()] == [None]


def test_leftovers_of_a_dead_run_are_removed_on_opening(tmp_path, open_writer):
    (tmp_path / "run" / ".tmp-step-00000050-1.ab").mkdir(parents=True)
    open_writer()
    assert list((tmp_path / "run").iterdir()) == []


def test_arrays_of_another_size_and_a_closed_writer_are_faults_of_the_caller(
    make_fields, make_arrays, open_writer
):
    writer = open_writer()
    with pytest.raises(ValueError, match="2 parameters given where 10007 are expected"):
        writer.submit(make_fields(1, 2), make_arrays(0, 2))
    assert writer.close() == writer.close() == []
    with pytest.raises(ValueError, match="closed"):
        writer.submit(make_fields(1, P), make_arrays(0, P))
