"""A Hugging Face directory as a run: its only checkpoint is at step 0, weights and nothing else, no text."""

import hashlib
from pathlib import Path

from feste_dp.checkpoint.filesystem import SaveError
from feste_dp.checkpoint.format import PARAMS, Arrays, ManifestFields, TensorRange, TrainState
from feste_dp.checkpoint.pointers import LATEST, point
from feste_dp.checkpoint.saving import write_checkpoint
from feste_dp.config.dumping import dump_config
from feste_dp.config.schema import Config, RunConfig
from feste_dp.data.tokenizer import ByteTokenizer
from feste_dp.errors import UsageError
from feste_dp.files.whole_folder import check_is_new, put_folder
from feste_dp.files.writing import write_whole
from feste_dp.model.hugging_face import StoredModel, open_model, read_weights
from feste_dp.model.parameters import layout
from feste_dp.run.directory import RunDirectory
from feste_dp.run.token_data import NO_TEXT_SHA256


def import_hugging_face(folder: Path, tokenizer: ByteTokenizer, out: Path) -> Config:
    """Makes the directory `out` a run with the model in `folder`, whole or not at all; returns its config.

    UsageError: the model or the tokenizer does not do, `out` is not new, there is no room.
    """
    try:
        check_is_new(out)
        model = open_model(folder)
        check_fits(tokenizer, model)
        config = Config(model=model.config, run=RunConfig(name="imported"))
        arrays: Arrays = {PARAMS: read_weights(model)}

        def fill(inside: Path) -> None:
            run = RunDirectory(inside)
            run.checkpoints.mkdir()
            write_whole(run.tokenizer, tokenizer.to_json())
            checkpoint = write_checkpoint(run.checkpoints, _manifest(config, tokenizer), arrays)
            point(run.checkpoints, LATEST, checkpoint)
            run.write_config(dump_config(config))

        if not put_folder(out, fill):
            raise UsageError(f"output folder {out} was filled by another process: name a new one")
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error
    except SaveError as error:
        raise UsageError(f"cannot write {out}: {error}") from error
    return config


def check_fits(tokenizer: ByteTokenizer, model: StoredModel) -> None:
    """UsageError where the tokenizer has ids for which the model has no row."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UsageError(
            f"{model.folder}: the model's vocabulary has {model.config.vocab_size:,} tokens, the tokenizer's "
            f"{tokenizer.vocab_size:,}: they do not belong together"
        )


def _manifest(config: Config, tokenizer: ByteTokenizer) -> ManifestFields:
    return ManifestFields(
        step=0,
        config=config.model_dump(mode="json"),
        tokenizer_sha256=hashlib.sha256(tokenizer.to_json()).hexdigest(),
        data_sha256=NO_TEXT_SHA256,
        seed=config.train.seed,
        train=TrainState(
            best_val_loss=None,
            best_step=None,
            evals_since_best=0,
            val_loss=None,
            elapsed_seconds=0.0,
            skipped_steps=0,
        ),
        layout=tuple(TensorRange(**tensor._asdict()) for tensor in layout(config.model)),
    )
