"""Nodes in one process find out who sees the directory of a run, and save together over their links."""

import threading
import time
from pathlib import Path

import pytest

from feste_dp.checkpoint.background import BackgroundWriter
from feste_dp.checkpoint.part_writer import PartWriter
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.config.schema import Config
from feste_dp.train import shared_saving
from feste_dp.train.shared_saving import LinkWire, SharedSaving, helpers, share_saving
from tests.checkpoint.conftest import TENSORS, example_arrays, example_fields
from tests.nodes.wires import Wires, linked

P = 10_007
LARGE = Config.model_validate({"model": {"n_layer": 8, "n_head": 8, "n_embd": 256, "vocab_size": 512}})
SMALL = Config.model_validate({"model": {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 512}})


def found_out(folder: Path, nodes: int = 3, config: Config = LARGE) -> SharedSaving:
    """What all nodes agree on."""

    def look(link):
        link.names = [f"node {node} (host{node})" for node in range(nodes)]
        node.rank = link.rank
        return share_saving(link, config, folder if link.is_first else None)

    found = linked(Wires(nodes).ends(), look)
    assert len(set(found)) == 1
    return found[0]


node = threading.local()


def test_nodes_that_see_one_folder_write_their_parts_and_leave_nothing_else_there(tmp_path):
    assert found_out(tmp_path) == SharedSaving(True, "checkpoints: each of 3 nodes writes its part")
    assert list(tmp_path.iterdir()) == []


def test_a_small_checkpoint_is_not_worth_a_word(tmp_path):
    assert found_out(tmp_path / "nowhere", config=SMALL) == SharedSaving(False)


def test_a_node_that_does_not_see_the_folder_is_named(tmp_path, monkeypatch):
    def read(path, limit):
        if node.rank == 1:
            raise FileNotFoundError(2, "No such file or directory")
        return path.read_bytes()

    monkeypatch.setattr(shared_saving, "read_plain", read)
    monkeypatch.setattr(shared_saving, "_SEEN_LATE_S", 0.1)
    line = f"checkpoints: node 0 writes all, for node 1 (host1) does not see {tmp_path} as node 0 does"
    assert found_out(tmp_path) == SharedSaving(False, line)
    assert list(tmp_path.iterdir()) == []


def test_a_node_that_sees_another_folder_of_this_name_or_cannot_write_is_named(tmp_path, monkeypatch):
    write = shared_saving.write_whole

    def write_elsewhere(path, content):
        if node.rank == 1:
            path = path.with_name("elsewhere")
        if node.rank == 2:
            raise PermissionError(13, "Permission denied")
        write(path, content)

    monkeypatch.setattr(shared_saving, "write_whole", write_elsewhere)
    monkeypatch.setattr(shared_saving, "_SEEN_LATE_S", 0.1)
    assert found_out(tmp_path).line == (
        f"checkpoints: node 0 writes all, for node 1 (host1) does not see {tmp_path} as node 0 does, "
        f"node 2 (host2) cannot write in {tmp_path}: Permission denied"
    )


def test_a_first_node_that_cannot_write_says_so_and_goes_on(tmp_path):
    found = found_out(tmp_path / "nowhere")
    assert found == SharedSaving(
        False,
        "checkpoints: node 0 writes all, for node 0 (host0) cannot write in "
        f"{tmp_path / 'nowhere'}: No such file or directory",
    )


@pytest.mark.parametrize("lost", [False, True])
def test_checkpoints_are_written_together_over_links(tmp_path, lost):
    """In the second case a node is gone after the first save, and nobody waits for it longer than for its
    sign of life."""
    folder, wires = tmp_path / "run", Wires(3)
    names, all_saved = ["node 0", "node 1", "node 2"], threading.Barrier(3)

    def train(link):
        link.names = names
        if link.is_first:
            writer = BackgroundWriter(folder, P, TENSORS, keep=9)
            writer.helpers = helpers(link, lambda: folder)
        else:
            writer = PartWriter(LinkWire(link), link.rank, P, TENSORS)
        link.meet()
        for step in (10, 20):
            if step == 20 and lost:
                writer.wait()
                all_saved.wait(10)
                wires.cut(2)
                if link.rank == 2:
                    return [], 0.0
            writer.submit(example_fields(step, P), example_arrays(step, P), together=True)
        began = time.monotonic()
        warnings = [line for result in writer.wait() for line in result.warnings]
        writer.close()
        return warnings, time.monotonic() - began

    said = linked(wires.ends(), train, silent_after_s=2.0)
    warnings, seconds = said[0]
    assert seconds < 10
    if lost:
        (line,) = warnings
        assert line == "checkpoint of step 20: node 0 wrote the files of node 2 too, which is gone"
    else:
        assert warnings == []
    for step in (10, 20):
        alone = write_checkpoint(tmp_path / "alone", example_fields(step, P), example_arrays(step, P))
        for path in alone.iterdir():
            assert (folder / alone.name / path.name).read_bytes() == path.read_bytes()
    assert not list(folder.glob(".tmp-*"))
