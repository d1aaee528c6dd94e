"""Models from disk, and new ones."""

from collections.abc import Mapping
from pathlib import Path

from feste_dp.api.configs import Given, config_of
from feste_dp.api.model import Model
from feste_dp.checkpoint.format import MANIFEST_NAME, PARAMS, step_of
from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home
from feste_dp.model.parameters import initial_params
from feste_dp.run.trained_model import load_trained_model


def load(path: str | Path, checkpoint: str | int | None = None) -> Model:
    """The model in a run's directory, in one of its checkpoints, or in an export.

    checkpoint says which of a run: "best", "latest" or the number of a step; None is the best one, where
    there is one. Raises UsageError.
    """
    place, which = Path(expand_home(str(path))), None if checkpoint is None else str(checkpoint)
    if (place / MANIFEST_NAME).is_file():
        if which is not None:
            raise UsageError(f"{place} is a checkpoint: name its run to choose another", about="checkpoint")
        place, which = place.resolve().parent.parent, str(step_of(place.resolve().name))
    model = load_trained_model(place, which)
    return Model(model.config.model, model.arrays[PARAMS], model.tokenizer)


def new(config: Given, overrides: Mapping[str, object] | None = None) -> Model:
    """A model before its first step, with the weights that a run of this config begins with. It has no
    tokenizer. Raises UsageError."""
    settings = config_of(config, overrides)
    return Model(settings.model, initial_params(settings.model, settings.train.seed), None)
