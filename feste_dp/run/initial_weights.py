"""Weights that a run starts from: another run's, a checkpoint's, or those of a Hugging Face directory.

Says whether they fit: shapes, and the tokenizer that gives their rows a meaning. What the config leaves out
of the shape is taken from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feste_dp.checkpoint.format import MANIFEST_NAME, PARAMS, step_of
from feste_dp.config.schema import RANDOM, Config, ModelConfig
from feste_dp.data.tokenizer import ByteTokenizer, load_tokenizer
from feste_dp.data.tokenizer_folder import load_tokenizer_at
from feste_dp.data.tokens import TokenData
from feste_dp.errors import UsageError
from feste_dp.model.hugging_face import is_hugging_face, open_model, read_weights
from feste_dp.model.parameters import initial_params, layout, view_params
from feste_dp.run.directory import is_run
from feste_dp.run.trained_model import load_trained_model
from feste_dp.wording import command

SHAPE = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "tie_embeddings", "n_inner")
_KEY = "model.init"


@dataclass(frozen=True)
class InitialWeights:
    """A model that is there already."""

    place: Path
    model: ModelConfig
    tokenizer: ByteTokenizer
    take: Callable[[], NDArray[np.float32]]
    """Its weights (P,), once"""


def initial_weights(config: Config) -> InitialWeights | None:
    """What model.init names, the best checkpoint of a run; None where it is random. UsageError: there is no
    model, or none that can be read."""
    if config.model.init == RANDOM:
        return None
    return weights_at(Path(config.model.init), about=_KEY)


def weights_at(place: Path, which: str | None = None, *, about: str = "") -> InitialWeights:
    """The model in a run, a checkpoint of one or a Hugging Face directory; `which` says the checkpoint of a
    run. UsageError."""
    if is_run(place):
        return _of_run(place, which)
    if which is not None:
        raise UsageError(f"{place} is no run: there is nothing to choose from", about="checkpoint")
    step, run = step_of(place.resolve().name), place.resolve().parent.parent
    if (place / MANIFEST_NAME).is_file() and step is not None and is_run(run):
        return _of_run(run, str(step))
    if is_hugging_face(place):
        stored, tokenizer = open_model(place), load_tokenizer_at(place)
        return InitialWeights(place, stored.config, tokenizer, lambda: read_weights(stored))
    raise UsageError(
        f"{place} is neither a run, nor a checkpoint of one, nor a Hugging Face directory", about=about
    )


def _of_run(run: Path, which: str | None) -> InitialWeights:
    found = load_trained_model(run, which)
    held = [found.arrays[PARAMS]]
    return InitialWeights(run, found.config.model, found.tokenizer, held.pop)


def with_shape_of(config: Config, start: InitialWeights) -> Config:
    """The config with the shape that the weights have, where it gives none. UsageError where it gives
    another, but for what model.init_resize lets differ."""
    ours, theirs = config.model, start.model
    left_out = {key: getattr(theirs, key) for key in SHAPE if key not in ours.model_fields_set}
    model = ours.model_copy(update=left_out)
    resize, differing = model.init_resize, []
    for key in SHAPE:
        wanted, there = getattr(model, key), getattr(theirs, key)
        if key == "n_inner":
            wanted, there = model.mlp_width, theirs.mlp_width
        allowed = (key == "block_size" and "context" in resize) or (
            key == "vocab_size" and "vocabulary" in resize and wanted > there
        )
        if wanted != there and not allowed:
            differing.append((key, wanted, there))
    if differing:
        said = "; ".join(f"model.{key} is {wanted}, theirs {there}" for key, wanted, there in differing)
        raise UsageError(
            f"the weights in {start.place} have another shape: {said}: leave these keys out{_how(differing)}",
            about=_KEY,
        )
    return config.model_copy(update={"model": model})


def _how(differing: list[tuple[str, int, int]]) -> str:
    """What can be asked for instead."""
    if [key for key, _, _ in differing] == ["block_size"]:
        return ", or set model.init_resize=context, which cuts or grows the positions"
    if [(key, wanted > there) for key, wanted, there in differing] == [("vocab_size", True)]:
        return ", or set model.init_resize=vocabulary, which adds rows that no token uses yet"
    return ""


def check_tokenizer_of(data: TokenData, start: InitialWeights) -> None:
    """UsageError where the tokens are not those that the weights know."""
    if load_tokenizer(data.tokenizer_path).inner.to_str() != start.tokenizer.inner.to_str():
        again = command("prepare", "TEXT", "--tokenizer", start.place, "--out", "DATA")
        raise UsageError(
            f"the tokens in {data.directory} were made by another tokenizer than that of {start.place}: "
            f"give text as data.corpus, or prepare it anew: {again}",
            about="data.corpus",
        )


def params_at_start(config: Config, start: InitialWeights | None) -> NDArray[np.float32]:
    """The weights (P,) of step 0: of `start`, else random."""
    if start is None:
        return initial_params(config.model, config.train.seed)
    return fitted(start, config.model, config.train.seed)


def fitted(start: InitialWeights, cfg: ModelConfig, seed: int) -> NDArray[np.float32]:
    """The weights (P,) in the shape of cfg, which `with_shape_of` gave: positions beyond its context are left
    out, rows that they lack begin as those of a new model."""
    given = start.take()
    if [tensor.shape for tensor in layout(cfg)] == [tensor.shape for tensor in layout(start.model)]:
        return given
    flat = initial_params(cfg, seed)
    for into, source in zip(view_params(flat, cfg), view_params(given, start.model), strict=True):
        rows = min(len(into), len(source))
        into[:rows] = source[:rows]
    return flat
