import dataclasses

from feste_dp.machine.cgroup import UNLIMITED
from feste_dp.machine.limits import Limits
from feste_dp.plan.needs import MIB, checkpoint_bytes, memory_need, needs
from feste_dp.plan.preflight import shortages
from tests.plan.test_needs import config

ROOMY = Limits(UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED)


def test_absurd_sizes_are_counted_without_being_allocated():
    absurd = config(
        model={"n_layer": 1024, "n_embd": 65536, "n_head": 1, "block_size": 65536},
        train={"batch_size": 2**20, "shards": 1, "micro_batch": 2**20},
    )
    assert memory_need(absurd, 1).activations > 2**63
    (memory,) = shortages(absurd, 1, dataclasses.replace(ROOMY, memory=2**40))
    assert "set the model smaller" in memory.line


def test_what_fits_exactly_has_no_shortage():
    need = needs(config(), 4)
    exact = Limits(
        need.memory.to_come, need.memory.address_space, need.disk, need.descriptors, need.processes
    )
    assert shortages(config(), 4, exact) == []
    assert shortages(config(), 4, ROOMY) == []
    for name in ("memory", "address_space", "disk", "descriptors", "processes"):
        tight = dataclasses.replace(exact, **{name: getattr(exact, name) - 1})
        (shortage,) = shortages(config(), 4, tight)
        assert shortage.needed == getattr(exact, name) and shortage.available == shortage.needed - 1
        assert "\n" not in shortage.line


def lacking(**limits: int) -> str:
    (shortage,) = shortages(config(), 4, dataclasses.replace(ROOMY, **limits))
    return shortage.line


def test_fewer_workers_are_proposed_where_they_suffice():
    two = memory_need(config(), 2).to_come
    assert lacking(memory=two).endswith("are available: set run.workers to 2")
    assert "worker processes 296 MiB" in lacking(memory=two)


def test_a_smaller_micro_batch_then_fewer_shards_are_proposed_where_they_suffice():
    wide = config(train={"batch_size": 64, "shards": 8, "micro_batch": 8})
    one = memory_need(wide, 1).to_come
    small = memory_need(config(train={"batch_size": 64, "shards": 8, "micro_batch": 1}), 4).to_come
    if small < one:
        (shortage,) = shortages(wide, 4, dataclasses.replace(ROOMY, memory=small))
        assert shortage.line.endswith("set train.micro_batch to 1")
    slots = config(
        model={"n_layer": 2, "n_embd": 256, "n_head": 4, "block_size": 16},
        train={"batch_size": 256, "shards": 256, "micro_batch": 1},
    )
    fewer = slots.model_copy(update={"train": slots.train.model_copy(update={"shards": 64})})
    limit = memory_need(fewer, 1).to_come
    (shortage,) = shortages(slots, 1, dataclasses.replace(ROOMY, memory=limit))
    assert shortage.line.endswith("set train.shards to 64")


def test_everything_at_once_is_proposed_where_only_that_suffices():
    least = config(train={"batch_size": 16, "shards": 1, "micro_batch": 1})
    line = lacking(memory=memory_need(least, 1).to_come)
    assert line.endswith("set run.workers to 1 and train.micro_batch to 1 and train.shards to 1")
    assert lacking(memory=memory_need(least, 1).to_come - 1).endswith(
        "set the model smaller (model.n_layer, n_embd or block_size)"
    )


def test_fewer_checkpoints_are_proposed_where_they_suffice():
    each = checkpoint_bytes(config())
    assert lacking(disk=4 * each).endswith("set checkpoint.keep to 1, or run.dir to a larger disk")
    assert lacking(disk=3 * each).endswith("free some, or set run.dir to a larger disk")
    assert f"6 checkpoints of {each / MIB:,.0f} MiB need" in lacking(disk=3 * each)


def test_descriptors_and_processes_name_the_limit_to_raise_and_the_workers_that_fit():
    assert lacking(descriptors=46).endswith("raise it with `ulimit -n 48`, or set run.workers to 3")
    assert lacking(descriptors=12).endswith("raise it with `ulimit -n 48`")
    assert lacking(processes=26).endswith("pids.max, or set run.workers to 2")
    assert "`ulimit -v unlimited`" in lacking(address_space=MIB)
