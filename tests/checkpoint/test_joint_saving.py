"""Several machines write one checkpoint: threads here, a queue each, one folder."""

import contextlib
import errno
import os
import queue
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.filesystem import Filesystem
from feste_dp.checkpoint.joint_saving import DivergedError, Helpers
from feste_dp.checkpoint.listing import newest_whole, step_directories
from feste_dp.checkpoint.loading import load_checkpoint, verify_checkpoint
from feste_dp.checkpoint.part_writer import PartWriter
from feste_dp.checkpoint.saving import remove_leftovers, write_checkpoint
from tests.checkpoint.conftest import TENSORS

P = 10_007
NAMES = ["node 0 (alpha)", "node 1 (beta)", "node 2 (gamma)", "node 3 (delta)"]


class Wires:
    """What machines say to each other; one may be cut off."""

    def __init__(self, machines):
        self.names = NAMES[:machines]
        self.inboxes = [queue.SimpleQueue() for _ in range(machines)]
        self.down = set()
        self.said = []

    def of(self, machine):
        return _Wire(self, machine)


class _Wire:
    def __init__(self, wires, machine):
        self.wires, self.machine, self.names = wires, machine, wires.names

    def send(self, to, words):
        if not {to, self.machine} & self.wires.down:
            self.wires.said.append((self.machine, to, words))
            self.wires.inboxes[to].put((self.machine, words))

    def receive(self, timeout_s):
        try:
            return self.wires.inboxes[self.machine].get(timeout=max(timeout_s, 1e-4))
        except queue.Empty:
            return None

    def is_up(self, machine):
        return not {machine, self.machine} & self.wires.down


class Slow(Filesystem):
    """Waits before each file until it is let go."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def create(self, path):
        self.reached.set()
        assert self.go.wait(20)
        return super().create(path)


class Full(Filesystem):
    """Takes so many files."""

    def __init__(self, files):
        self.files = files

    def create(self, path):
        if self.files == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.files -= 1
        return super().create(path)


class Lossy(Filesystem):
    """Loses the end of what it says it has written."""

    def close(self, descriptor):
        os.ftruncate(descriptor, 100)
        super().close(descriptor)


class Counting(Filesystem):
    def __init__(self):
        self.created = []

    def create(self, path):
        self.created.append(path.name)
        return super().create(path)


class Machines:
    """The writers of all machines, on one folder."""

    def __init__(self, folder, count, *, patience_s=20.0, filesystems=None, hung_s=20.0):
        self.folder, self.wires = folder, Wires(count)
        self.filesystems = filesystems or [Counting() for _ in range(count)]
        self.first = BackgroundWriter(folder, P, TENSORS, keep=9, filesystem=self.filesystems[0])
        self.first.helpers = Helpers(self.wires.of(0), lambda: folder, patience_s)
        self.others = [
            PartWriter(
                self.wires.of(machine),
                machine,
                P,
                TENSORS,
                filesystem=self.filesystems[machine],
                hung_s=hung_s,
            )
            for machine in range(1, count)
        ]

    def save(self, fields, arrays, others=None):
        """As all of them do after the same step."""
        for machine, writer in enumerate([self.first, *self.others]):
            own = arrays if others is None or machine == 0 else others
            writer.submit(fields, own, together=True)

    def close(self):
        results = self.first.close()
        for writer in self.others:
            writer.close()
        return results


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def contents_names(folder):
    """But for the pointers."""
    return sorted(path.name for path in folder.iterdir() if path.name not in ("best", "latest"))


@pytest.fixture
def alone(tmp_path, make_fields, make_arrays):
    """What one machine writes."""

    def write(step, seed=0):
        return contents(write_checkpoint(tmp_path / "alone", make_fields(step, P), make_arrays(seed, P)))

    return write


@pytest.mark.parametrize("count", [2, 3, 4])
def test_several_machines_write_the_bytes_of_one_each_its_part(
    tmp_path, make_fields, make_arrays, alone, count
):
    machines = Machines(tmp_path / "run", count)
    for step in (10, 20):
        arrays = make_arrays(step, P)
        machines.save(make_fields(step, P), arrays)
        for array in arrays.values():
            array[:] = -1  # training goes on
    results = machines.close()
    assert [(result.error, result.warnings) for result in results] == [(None, ())] * 2
    for step in (10, 20):
        assert contents(tmp_path / "run" / f"step-{step:08d}") == alone(step, step)
    assert [name for name in contents_names(tmp_path / "run") if name.startswith(".")] == []
    for machine, filesystem in enumerate(machines.filesystems):
        own = [name for name in filesystem.created if name.startswith("shard")]
        assert sorted({int(name[6:8]) for name in own}) == list(range(machine, 8, count))
        assert len(own) == 2 * len(set(own))


def test_a_save_that_the_first_makes_alone_waits_for_nobody(tmp_path, make_fields, make_arrays, alone):
    machines = Machines(tmp_path / "run", 2)
    fields, arrays = make_fields(10, P), make_arrays(0, P)
    began = time.monotonic()
    machines.first.submit(fields, arrays)
    machines.others[0].submit(fields, arrays)
    assert machines.close()[0].error is None and time.monotonic() - began < 10
    assert machines.wires.said == [] and contents(tmp_path / "run/step-00000010") == alone(10)


def test_a_save_that_the_first_forgoes_leaves_nothing_and_delays_nobody(tmp_path, make_fields, make_arrays):
    machines = Machines(tmp_path / "run", 2)
    machines.others[0].submit(make_fields(10, P), make_arrays(0, P), together=True)
    machines.first.forgo(10)
    began = time.monotonic()
    machines.save(make_fields(20, P), make_arrays(1, P))
    assert [result.step for result in machines.close()] == [20] and time.monotonic() - began < 10
    assert contents_names(tmp_path / "run") == ["step-00000020"]


def test_a_checkpoint_that_is_there_already_is_kept_and_the_others_are_let_go(
    tmp_path, make_fields, make_arrays
):
    machines = Machines(tmp_path / "run", 2)
    machines.save(make_fields(10, P), make_arrays(0, P))
    machines.first.wait()
    before = (tmp_path / "run/step-00000010").stat().st_ino
    began = time.monotonic()
    machines.save(make_fields(10, P), make_arrays(0, P))
    assert [result.error for result in machines.close()] == [None] and time.monotonic() - began < 10
    assert (tmp_path / "run/step-00000010").stat().st_ino == before


@pytest.mark.parametrize("files", [0, 1])
def test_files_that_another_cannot_write_are_written_by_the_first_and_told_once(
    tmp_path, make_fields, make_arrays, alone, files
):
    machines = Machines(tmp_path / "run", 3, filesystems=[Counting(), Full(files), Counting()])
    for step in (10, 20):
        machines.save(make_fields(step, P), make_arrays(step, P))
    first, second = machines.close()
    assert first.warnings == (
        "checkpoint of step 10: node 0 wrote the files of node 1 (beta) too, which could not: "
        "No space left on device",
    )
    assert first.error is second.error is None and second.warnings == ()
    for step in (10, 20):
        assert contents(tmp_path / "run" / f"step-{step:08d}") == alone(step, step)
    assert contents_names(tmp_path / "run") == ["step-00000010", "step-00000020"]


def test_a_file_that_lost_its_end_on_the_way_is_not_taken(tmp_path, make_fields, make_arrays, alone):
    machines = Machines(tmp_path / "run", 2, filesystems=[Counting(), Lossy()])
    machines.save(make_fields(10, P), make_arrays(0, P))
    (result,) = machines.close()
    assert "another number of bytes" in result.warnings[0]
    assert contents(tmp_path / "run/step-00000010") == alone(10)


def test_a_machine_with_another_bit_ends_the_run_and_nothing_is_saved(tmp_path, make_fields, make_arrays):
    machines = Machines(tmp_path / "run", 3)
    machines.save(make_fields(10, P), make_arrays(10, P))
    machines.first.wait()
    right = make_arrays(20, P)
    wrong = {name: array.copy() for name, array in right.items()}
    wrong["v"].view(np.uint32)[P // 8 + 1] ^= 1  # of a file that machine 1 writes
    machines.save(make_fields(20, P), right, wrong)
    with pytest.raises(
        DivergedError, match=r"^node 1 \(beta\) has other weights or .* after step 20, which is not"
    ):
        machines.first.wait()
    machines.close()
    assert [path.name for path in (tmp_path / "run").glob("step-*")] == ["step-00000010"]


def test_a_machine_that_says_nothing_is_waited_for_once(tmp_path, make_fields, make_arrays, alone):
    slow = Slow()
    machines = Machines(tmp_path / "run", 3, patience_s=0.5, filesystems=[Counting(), slow, Counting()])
    machines.save(make_fields(10, P), make_arrays(10, P))
    (first,) = machines.first.wait()
    assert "node 1 (beta) too, which said nothing for" in first.warnings[0] and first.error is None
    began = time.monotonic()
    for writer in (machines.first, machines.others[1]):
        writer.submit(make_fields(20, P), make_arrays(20, P), together=True)
    (second,) = machines.first.wait()
    assert second.error is None and second.warnings == () and time.monotonic() - began < 5
    slow.go.set()  # late, into a folder that is gone
    machines.close()
    machines.others[0].submit(make_fields(30, P), make_arrays(30, P), together=True)  # takes no part any more
    for step in (10, 20):
        assert contents(tmp_path / "run" / f"step-{step:08d}") == alone(step, step)
    assert contents_names(tmp_path / "run") == ["step-00000010", "step-00000020"]


def test_a_machine_that_is_lost_in_the_midst_is_done_without_at_once(
    tmp_path, make_fields, make_arrays, alone
):
    slow = Slow()
    machines = Machines(tmp_path / "run", 2, patience_s=1000.0, filesystems=[Counting(), slow])
    machines.save(make_fields(10, P), make_arrays(0, P))
    assert slow.reached.wait(10)
    machines.wires.down.add(1)
    (result,) = machines.first.wait()
    assert result.error is None and "node 1 (beta) too, which is gone" in result.warnings[0]
    slow.go.set()
    machines.close()
    assert contents(tmp_path / "run/step-00000010") == alone(10)
    assert contents_names(tmp_path / "run") == ["step-00000010"]


def test_a_training_loop_waits_no_longer_for_a_disk_that_hangs(tmp_path, make_fields, make_arrays):
    slow = Slow()
    machines = Machines(tmp_path / "run", 2, patience_s=0.2, filesystems=[Counting(), slow], hung_s=0.5)
    began = time.monotonic()
    for step in (10, 20, 30):
        machines.save(make_fields(step, P), make_arrays(step, P))
    assert time.monotonic() - began < 10
    assert [result.error for result in machines.first.close()] == [None] * 3
    slow.go.set()


class Killed(BaseException):
    pass


class KilledAt(Filesystem):
    """The first machine's process does nothing any more before this operation, and no word of it is heard."""

    def __init__(self, at, wires):
        self.left, self.wires = at, wires
        self.killed, self.buried = threading.Event(), threading.Event()

    def __getattribute__(self, name):
        operation = object.__getattribute__(self, name)
        if name not in ("make_directory", "create", "write", "sync", "sync_directory", "rename", "remove"):
            return operation

        def counted(*arguments):
            self.left -= 1
            if self.left < 0:
                self.wires.down.add(0)
                self.killed.set()
                self.buried.wait()
                raise Killed
            return operation(*arguments)

        return counted


def test_a_first_machine_that_is_killed_anywhere_leaves_whole_checkpoints_and_leftovers(
    tmp_path, make_fields, make_arrays
):
    arrays, left = make_arrays(20, P), []
    for at in range(100):
        folder = tmp_path / f"run{at}"
        before = write_checkpoint(folder, make_fields(10, P), make_arrays(10, P), file_count=1)
        wires = Wires(2)
        filesystem = KilledAt(at, wires)
        other = PartWriter(wires.of(1), 1, P, TENSORS, file_count=3)
        other.submit(make_fields(20, P), arrays, together=True)

        def save(folder=folder, filesystem=filesystem, wires=wires):
            helpers = Helpers(wires.of(0), lambda: folder)
            with contextlib.suppress(Killed):
                write_checkpoint(
                    folder,
                    make_fields(20, P),
                    arrays,
                    file_count=3,
                    filesystem=filesystem,
                    helpers=helpers,
                )
                helpers.end(20)

        first = threading.Thread(target=save)
        first.start()
        while first.is_alive() and not filesystem.killed.wait(0.01):
            pass
        other.close()  # returns: it waits for nobody who is gone
        newest, damages = newest_whole(folder)
        assert damages == [] and newest.name in (before.name, "step-00000020")
        assert all(verify_checkpoint(path) == [] for _, path in step_directories(folder))
        left.append(len([name for name in contents_names(folder) if name.startswith(".tmp-")]))
        remove_leftovers(folder)
        assert [name for name in contents_names(folder) if not name.startswith("step-")] == []
        filesystem.buried.set()
        first.join()
        if not filesystem.killed.is_set():
            break
    assert at > 20 and set(left) == {0, 1, 2} and left[-1] == 0
    assert load_checkpoint(newest)[1]["v"].tobytes() == arrays["v"].tobytes()


def test_the_folder_is_found_where_the_run_was_moved_to_and_done_without_where_not(
    tmp_path, make_fields, make_arrays, alone, monkeypatch
):
    monkeypatch.setattr("feste_dp.checkpoint.part_writer._SEEN_LATE_S", 0.2)
    machines = Machines(tmp_path / "run", 2)
    place = [tmp_path / "nowhere"]
    machines.first.helpers = Helpers(machines.wires.of(0), lambda: place[0], 20.0)
    machines.save(make_fields(10, P), make_arrays(10, P))
    (lost,) = machines.first.wait()
    assert lost.error is None and "could not: No such file or directory" in lost.warnings[0]
    place[0] = tmp_path / "run"
    machines.save(make_fields(20, P), make_arrays(20, P))
    (found,) = machines.close()
    assert found.error is None and found.warnings == ()
    for step in (10, 20):
        assert contents(tmp_path / "run" / f"step-{step:08d}") == alone(step, step)
    assert Path(tmp_path / "nowhere").exists() is False
