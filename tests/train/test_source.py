"""What a step asks of its source of gradients: an exchange between blocks of shards changes no bit."""

import contextlib
import os
from dataclasses import replace

import pytest

from feste_dp.data.preparation import prepare_for_run
from feste_dp.kernels.reduction import chunk_norms
from feste_dp.model.parameters import initial_params
from feste_dp.runtime.coordinator import Coordinator
from feste_dp.runtime.slots import ShardBlock
from feste_dp.runtime.warmup import compile_kernels
from feste_dp.train.step import Stepper

STEPS = (1, 2, 3)


class WithTheOther:
    """An exchange of two machines in one process: the other computes its block at the same weights."""

    def __init__(self, own, other):
        self._own, self._other = own, other

    def all_reduce(self, step, gradient, arena):
        self._other.arena.params[:] = self._own.arena.params
        others = self._other.gradient(step)
        arena.grad += self._other.arena.grad
        chunk_norms(arena.grad, arena.norms)
        return replace(gradient, shard_losses=gradient.shard_losses + others.shard_losses)


@pytest.fixture(scope="module")
def prepared(runs):
    compile_kernels(os.environ, lambda seconds: None)
    config = runs.config(run__workers=1)
    data = config.data
    tokens = prepare_for_run(data.corpus, 300, data.val_fraction, config.model.block_size, runs.cache)
    return config, tokens


def steps_of(config, data, source, exchange=None):
    """Loss, norm and weights after each step."""
    source.arena.params[:] = initial_params(config.model, config.train.seed)
    with contextlib.closing(Stepper(config, data, source, exchange)) as stepper:
        for step in STEPS:
            result = stepper.step(step)
            arrays = [values.tobytes() for values in stepper.arrays.values()]
            yield result.train_loss, result.grad_norm, arrays


def test_two_machines_take_the_steps_of_one(prepared):
    config, data = prepared
    with contextlib.ExitStack() as stack:

        def start(block=None):
            made = Coordinator(config, 1, data.directory, os.environ, block=block)
            stack.enter_context(made).start()
            return made

        alone = list(steps_of(config, data, start()))
        own, other = start(ShardBlock(0, 4)), start(ShardBlock(4, 4))
        assert list(steps_of(config, data, own, WithTheOther(own, other))) == alone
