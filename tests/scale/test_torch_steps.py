import numpy as np
import pytest
import torch

from feste_dp.config.schema import ModelConfig
from feste_dp.model.parameters import initial_params
from feste_dp.scale.baselines.torch_gpt2 import TorchGPT2, make_optimizer, set_weights
from feste_dp.scale.baselines.torch_steps import Settings, random_batches, time_steps
from tests.model.torch_gpt2 import torch_loss, torch_weights

SHAPE = {"vocab_size": 256, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 32, "dropout": 0.0}


def settings(**changes) -> Settings:
    plain = {"batch_size": 4, "precision": "fp32", "processes": 1, "threads": 1, "compiled": False}
    return Settings(model=SHAPE, **plain | {"warmup": 1, "steps": 4} | changes)


@pytest.mark.parametrize("tied", [True, False])
def test_the_peer_computes_the_loss_of_the_reference_for_the_same_weights(tied):
    cfg = ModelConfig(**SHAPE, tie_embeddings=tied)
    flat = initial_params(cfg, 3)
    model = TorchGPT2(cfg)
    set_weights(model, flat, cfg)
    tokens, targets = next(random_batches(cfg, 3, seed=1))
    expected = torch_loss(torch_weights(flat, cfg), cfg, tokens.numpy(), targets.numpy())
    assert model(tokens, targets).item() == pytest.approx(expected.item(), rel=1e-5)
    assert sum(p.numel() for p in model.parameters()) == len(flat)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_peer_learns_its_batch_by_heart(precision):
    threads = torch.get_num_threads()
    times = time_steps(settings(precision=precision, lr=1e-2, steps=15))
    torch.set_num_threads(threads)
    assert len(times.seconds) == 15 and len(times.losses) == 16
    assert times.losses[0] == pytest.approx(np.log(256), abs=0.3)
    assert times.losses[-1] < times.losses[0] - 1
    assert times.peak_memory_bytes > 1 << 20


def test_decay_reaches_matrices_only():
    groups = make_optimizer(TorchGPT2(ModelConfig(**SHAPE)), 1e-3, 0.1).param_groups
    assert {p.dim() for p in groups[0]["params"]} == {2} and groups[0]["weight_decay"] == 0.1
    assert {p.dim() for p in groups[1]["params"]} == {1} and groups[1]["weight_decay"] == 0.0


def test_two_processes_take_the_same_step_as_one_on_their_halves():
    """The first loss is that of half a batch of other random tokens: near, and falling as well."""
    times = time_steps(settings(processes=2, lr=1e-2))
    assert len(times.seconds) == 4
    assert times.losses[-1] < times.losses[0] == pytest.approx(np.log(256), abs=0.3)
