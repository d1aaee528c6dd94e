"""Runs that start from weights that are there: shapes and tokenizer checked, optimizer and schedule new."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from feste_dp.checkpoint.format import PARAMS, step_directory_name
from feste_dp.checkpoint.loading import load_checkpoint
from feste_dp.config.schema import Config
from feste_dp.data.corpus import read_shakespeare
from feste_dp.data.preparation import prepare_token_data
from feste_dp.data.text_file import text_in_memory
from feste_dp.data.tokenizer import load_tokenizer, train_tokenizer
from feste_dp.errors import UsageError
from feste_dp.model.parameters import view_params
from feste_dp.replay.replay import replay
from feste_dp.run.initial_weights import fitted, initial_weights, with_shape_of
from feste_dp.run.metrics import read_metrics
from feste_dp.run.trained_model import load_trained_model
from feste_dp.train.signals import StopSignals
from feste_dp.train.start import Surroundings
from tests.model.hugging_face import make_model, own_logits
from tests.train.conftest import Watched


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A Hugging Face directory: a small model of another shape than any default, its vocabulary padded."""
    folder = tmp_path_factory.mktemp("gpt2")
    tokenizer = train_tokenizer([read_shakespeare()[:60_000]], 400, end_of_text=True)
    (folder / "tokenizer.json").write_bytes(tokenizer.to_json())
    model = make_model(vocab_size=408, n_positions=48, n_inner=50)
    model.save_pretrained(folder)
    return SimpleNamespace(folder=folder, model=model, tokenizer=tokenizer)


def config_from(gpt2, **model) -> Config:
    return Config.model_validate({"model": {"init": str(gpt2.folder), **model}})


def without_shape(runs, init, **changes) -> Config:
    """The small config, which leaves the shape to the weights."""
    content = runs.config(**changes).model_dump()
    content["model"] = {"init": str(init), "dropout": 0.0}
    return Config.model_validate(content)


def test_a_run_learns_on_from_a_hugging_face_directory(runs, gpt2, tmp_path):
    config = without_shape(runs, gpt2.folder, train__steps=3, eval__every=3, sample__every=3, run__workers=1)
    outcome = runs.launch(config)
    assert (outcome.status, outcome.warnings) == (0, "")
    start, _ = load_checkpoint(outcome.run / "checkpoints" / step_directory_name(0))
    expected = fitted(initial_weights(config), Config.model_validate(start.config).model, 1)
    _, arrays = load_checkpoint(outcome.run / "checkpoints" / step_directory_name(0))
    np.testing.assert_array_equal(arrays[PARAMS], expected)
    assert not arrays["m"].any() and not arrays["v"].any()

    assert (outcome.run / "tokenizer.json").read_bytes() == gpt2.tokenizer.to_json()
    trained = load_trained_model(outcome.run, "latest")
    assert trained.manifest.step == 3 and trained.config.model.n_inner == 50
    assert trained.config.model.vocab_size == 408 and trained.tokenizer.end_of_text == 399

    # the weights may be gone by now, and the text is prepared again with the tokenizer of the run
    moved = gpt2.folder.with_name("elsewhere")
    gpt2.folder.rename(moved)
    try:
        resumed = runs.resume(outcome.run, overrides=["train.steps=4"])
    finally:
        moved.rename(gpt2.folder)
    assert (resumed.status, resumed.warnings) == (0, "")
    assert [row.step for row in read_metrics(outcome.run / "metrics.csv")] == [1, 2, 3, 4]

    shutil.copytree(outcome.run, tmp_path / "copy", symlinks=True)
    shutil.rmtree(tmp_path / "copy" / "checkpoints" / step_directory_name(0))  # as retention may
    progress = Watched(lambda step: None)
    replayed = replay(
        tmp_path / "copy", 1, None, 1, Surroundings(os.environ, runs.cache, progress, StopSignals())
    )
    assert replayed.from_step == 0 and replayed.matches is True

    again = without_shape(runs, outcome.run / "checkpoints" / "latest", train__steps=2, run__workers=1)
    second = runs.launch(again)
    _, last = load_checkpoint(outcome.run / "checkpoints" / step_directory_name(4))
    _, begun = load_checkpoint(second.run / "checkpoints" / step_directory_name(0))
    np.testing.assert_array_equal(last[PARAMS], begun[PARAMS])
    first_rate = read_metrics(second.run / "metrics.csv")[0].learning_rate
    assert first_rate == read_metrics(outcome.run / "metrics.csv")[0].learning_rate


def test_what_the_config_leaves_out_is_taken_from_the_weights(gpt2):
    config = with_shape_of(config_from(gpt2, dropout=0.3), initial_weights(config_from(gpt2)))
    model = config.model
    assert (model.vocab_size, model.block_size, model.n_layer, model.n_head, model.n_embd) == (
        408,
        48,
        2,
        3,
        30,
    )
    assert (model.n_inner, model.tie_embeddings, model.dropout) == (50, True, 0.3)
    flat = fitted(initial_weights(config), model, 1)
    tokens = np.arange(48, dtype=np.int32)[None]
    assert np.isfinite(own_logits(flat, model, tokens)).all()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"n_layer": 3}, "model.n_layer is 3, theirs 2: leave these keys out$"),
        ({"n_embd": 60, "n_head": 5}, "model.n_head is 5, theirs 3; model.n_embd is 60, theirs 30"),
        ({"tie_embeddings": False}, "model.tie_embeddings is False, theirs True"),
        ({"n_inner": 0}, "model.n_inner is 120, theirs 50"),
        ({"block_size": 24}, "or set model.init_resize=context, which cuts or grows"),
        ({"vocab_size": 512}, "or set model.init_resize=vocabulary, which adds rows"),
        ({"vocab_size": 400, "init_resize": ["vocabulary"]}, "model.vocab_size is 400, theirs 408"),
        ({"block_size": 24, "init_resize": ["vocabulary"]}, "model.block_size is 24, theirs 48"),
    ],
    ids=str,
)
def test_another_shape_is_refused_unless_asked_for(gpt2, model, words):
    config = config_from(gpt2, **model)
    with pytest.raises(UsageError, match=words):
        with_shape_of(config, initial_weights(config))


def test_context_and_vocabulary_are_cut_grown_and_padded_where_asked(gpt2):
    full = with_shape_of(config_from(gpt2), initial_weights(config_from(gpt2))).model
    theirs = view_params(fitted(initial_weights(config_from(gpt2)), full, 1), full)
    for block, vocabulary in ((24, 408), (64, 408), (48, 512), (64, 512)):
        asked = config_from(
            gpt2, block_size=block, vocab_size=vocabulary, init_resize=["context", "vocabulary"]
        )
        cfg = with_shape_of(asked, initial_weights(asked)).model
        assert (cfg.block_size, cfg.vocab_size, cfg.n_layer) == (block, vocabulary, 2)
        ours = view_params(fitted(initial_weights(asked), cfg, 1), cfg)
        np.testing.assert_array_equal(ours.wpe[:48], theirs.wpe[:block])
        np.testing.assert_array_equal(ours.wte[:408], theirs.wte)
        np.testing.assert_array_equal(ours.mlp_fc_w, theirs.mlp_fc_w)
        for grown in (ours.wpe[48:], ours.wte[408:]):
            assert grown.size == 0 or 0 < np.abs(grown).mean() < 0.1


def test_tokens_of_another_tokenizer_are_refused(runs, gpt2, tmp_path):
    texts = [text_in_memory("plays.txt", read_shakespeare()[:60_000])]
    data = prepare_token_data(texts, 408, 0.1, tmp_path / "tokens")
    config = without_shape(runs, gpt2.folder, data__corpus=str(data.directory))
    with pytest.raises(UsageError, match="were made by another tokenizer than that of"):
        runs.launch(config)
    assert not runs.newest_path.exists()
    assert load_tokenizer(data.tokenizer_path).vocab_size == 408


def test_what_is_no_model_is_refused_before_anything_is_made(runs, tmp_path):
    with pytest.raises(UsageError, match=r"model.init: .* is neither a run, nor a checkpoint"):
        runs.launch(without_shape(runs, tmp_path))
    assert not runs.newest_path.exists()
