"""Models from disk, and new ones."""

from collections.abc import Mapping
from pathlib import Path

from feste_dp.api.configs import Given, config_of
from feste_dp.api.model import Model
from feste_dp.files.home import expand_home
from feste_dp.model.parameters import initial_params
from feste_dp.run.initial_weights import weights_at


def load(path: str | Path, checkpoint: str | int | None = None) -> Model:
    """The model in a run's directory, in one of its checkpoints, or in an export or another GPT-2 in Hugging
    Face's form.

    checkpoint says which of a run: "best", "latest" or the number of a step; None is the best one, where
    there is one. Raises UsageError.
    """
    which = None if checkpoint is None else str(checkpoint)
    found = weights_at(Path(expand_home(str(path))), which)
    return Model(found.model, found.take(), found.tokenizer)


def new(config: Given, overrides: Mapping[str, object] | None = None) -> Model:
    """A model before its first step, with the weights that a run of this config begins with. It has no
    tokenizer. Raises UsageError."""
    settings = config_of(config, overrides)
    return Model(settings.model, initial_params(settings.model, settings.train.seed), None)
