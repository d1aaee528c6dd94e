from pathlib import Path

import pytest

from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config
from feste_dp.model.parameters import parameter_count
from feste_dp.model.workspace import Workspace, make_workspace
from feste_dp.plan.needs import MIB, checkpoint_count, disk_need, memory_need, needs
from feste_dp.runtime.arena import arena_sizes

CONFIGS = Path(__file__).parents[2] / "configs"


def config(**sections: dict[str, object]) -> Config:
    model = {"n_layer": 2, "n_embd": 256, "n_head": 4, "block_size": 256}
    train = {"batch_size": 16, "shards": 8, "micro_batch": 2, "steps": 1000}
    return Config.model_validate({"model": model, "train": train} | sections)


def nbytes(group: Workspace | tuple[object, ...]) -> int:
    return sum(nbytes(part) if isinstance(part, tuple) else getattr(part, "nbytes", 0) for part in group)


@pytest.mark.parametrize("name", ["tiny", "medium", "gpt2_87m"])
def test_activations_are_those_that_a_worker_really_makes(name):
    real = load_config(CONFIGS / f"{name}.yaml", [])
    made = make_workspace(real.model, real.train.micro_batch, real.model.block_size)
    assert memory_need(real, 2).activations == nbytes(made)


def test_the_kinds_add_up_and_the_arena_is_the_one_that_is_reserved():
    need = memory_need(config(), 3)
    parameters = parameter_count(config().model)
    assert need.total == sum(kind.bytes for kind in need.kinds())
    assert need.arena == arena_sizes(parameters, 8).total
    assert (need.optimizer, need.staging) == (8 * parameters, 12 * parameters)
    assert need.total - need.to_come == need.coordinator + need.libraries
    one_more = memory_need(config(), 4)
    assert one_more.total - need.total == need.activations + need.worker
    assert one_more.counted_per_process - need.counted_per_process == (
        need.activations + need.worker + need.libraries
    )


def test_what_saves_nothing_needs_no_staging_and_no_samples():
    need = memory_need(config(), 2, saves=False)
    assert (need.staging, need.sampling) == (0, 0)
    assert memory_need(config(sample={"every": 0}), 2).sampling == 0
    assert needs(config(), 2, saves=False).disk == 0


@pytest.mark.parametrize(
    ("sections", "count"),
    [
        ({"checkpoint": {"every": 100, "keep": 3}}, 3 + 1 + 2),
        ({"checkpoint": {"every": 0, "keep": 3}, "eval": {"every": 0}}, 0 + 0 + 2),
        ({"checkpoint": {"every": 600, "keep": 3}, "eval": {"every": 0}}, 1 + 0 + 2),
        ({"checkpoint": {"every": 600, "keep": 3}, "eval": {"every": 900}}, 2 + 1 + 2),
        ({"checkpoint": {"every": 10, "keep": 50}, "eval": {"every": 0}}, 50 + 0 + 2),
    ],
)
def test_checkpoints_are_those_kept_the_best_the_final_and_the_one_being_written(sections, count):
    assert checkpoint_count(config(**sections)) == count
    assert disk_need(config(**sections)) == count * 12 * parameter_count(config().model)


def test_memory_does_not_grow_with_the_shards():
    few, many = (
        memory_need(config(train={"batch_size": 256, "shards": shards, "micro_batch": 1}), 2)
        for shards in (8, 256)
    )
    parameters = 4 * parameter_count(config().model)
    # ten more buffers, five levels of the tree for each worker, and letterboxes
    assert 10 * parameters <= many.total - few.total <= 10 * parameters + 3 * MIB
