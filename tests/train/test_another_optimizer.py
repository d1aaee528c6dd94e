"""A second optimizer is a class and a choice: everything else takes its state as named flat arrays."""

import numpy as np
import pytest

from feste_dp.checkpoint.loading import load_checkpoint, read_manifest
from feste_dp.errors import UsageError
from feste_dp.optim import optimizer
from feste_dp.plan.needs import checkpoint_bytes
from feste_dp.train import open_run, step


class Momentum:
    """g' = 0.9 g' + g; params -= lr g'."""

    names = ("velocity",)
    passes = 5

    def __init__(self, parameters, decayed, config, threads):
        self.state = {"velocity": np.zeros(parameters, np.float32)}

    def update(self, params, grad, step, lr, clip):
        velocity = self.state["velocity"]
        velocity *= np.float32(0.9)
        velocity += grad * np.float32(clip)
        params -= velocity * np.float32(lr)
        return bool(np.isfinite(params).all())

    def close(self):
        pass


@pytest.fixture
def momentum(monkeypatch):
    for module in (optimizer, open_run, step):
        monkeypatch.setattr(module, "optimizer_class", lambda config: Momentum)


def test_another_optimizer_trains_is_saved_and_goes_on_with_the_same_bits(momentum, runs):
    config = runs.config()
    straight, stopped = runs.launch(config), runs.launch(config, stop_after=13)
    resumed = runs.resume(stopped.run, 1)
    assert resumed.state(40) == straight.state(40)
    newest = straight.run / "checkpoints/step-00000040"
    manifest, arrays = load_checkpoint(newest)
    assert manifest.tensors == tuple(arrays) == ("params", "velocity")
    assert manifest.size_bytes == pytest.approx(checkpoint_bytes(config), rel=0.02)
    assert arrays["velocity"].any()


def test_a_checkpoint_of_another_optimizer_is_one_line(straight):
    newest = straight.run / "checkpoints/step-00000040"
    count = read_manifest(newest).parameter_count
    buffers = {name: np.zeros(count, np.float32) for name in ("params", "velocity")}
    with pytest.raises(
        UsageError, match="holds params, m, v where the optimizer has params, velocity: it was"
    ):
        load_checkpoint(newest, out=buffers)
