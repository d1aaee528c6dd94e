"""What a resumed run may change."""

import re

import pytest

from feste_dp.config.changes import EXPLICIT, FREE, FROZEN, check_changes
from feste_dp.config.loading import config_from_text
from feste_dp.config.schema import Config, known_keys
from feste_dp.errors import UsageError

# Another valid value for each key, beside the defaults.
OTHER = {
    "model.vocab_size": "2048",
    "model.block_size": "64",
    "model.n_layer": "2",
    "model.n_head": "2",
    "model.n_embd": "64",
    "model.dropout": "0",
    "model.tie_embeddings": "false",
    "model.n_inner": "100",
    "model.init": "gpt2",
    "model.init_resize": "[context]",
    "data.corpus": "plays",
    "data.val_fraction": "0.2",
    "train.steps": "60",
    "train.batch_size": "32",
    "train.shards": "4",
    "train.micro_batch": "2",
    "train.seed": "7",
    "train.precision": "bf16",
    "optim.lr": "2e-3",
    "optim.min_lr": "1e-5",
    "optim.warmup_steps": "5",
    "optim.schedule": "linear",
    "optim.beta1": "0.8",
    "optim.beta2": "0.99",
    "optim.eps": "1e-6",
    "optim.weight_decay": "0",
    "optim.clip_norm": "0",
    "eval.every": "10",
    "eval.batches": "4",
    "eval.patience": "3",
    "sample.every": "7",
    "sample.prompt": "KING",
    "sample.tokens": "5",
    "sample.temperature": "1",
    "checkpoint.every": "5",
    "checkpoint.keep": "1",
    "run.name": "other",
    "run.dir": "elsewhere",
    "run.workers": "2",
    "run.pin": "[0, 1]",
    "run.step_timeout_s": "5",
    "run.on_nonfinite": "skip",
    "run.trackers": "jsonl",
    "run.wandb_project": "plays",
    "run.wandb_tags": "[first, second]",
}


def changed(*keys: str) -> Config:
    return config_from_text("optim: {warmup_steps: 50}", "test", [f"{key}={OTHER[key]}" for key in keys])


OLD = Config()


def test_every_key_is_in_exactly_one_set():
    assert sorted([*FROZEN, *EXPLICIT, *FREE]) == sorted(known_keys())
    assert sorted(OTHER) == sorted(known_keys())


def test_an_equal_config_resumes_without_a_word():
    assert check_changes(OLD, Config(), explicit=()) == []


@pytest.mark.parametrize("key", sorted(FROZEN))
def test_a_frozen_key_is_refused_even_when_asked_for(key: str):
    with pytest.raises(
        UsageError, match=rf"^a resumed run keeps these keys: {re.escape(key)}: .+ -> .+; set"
    ):
        check_changes(OLD, changed(key), explicit={key})


@pytest.mark.parametrize("key", sorted(EXPLICIT))
def test_an_explicit_key_is_logged_when_asked_for_and_refused_when_not(key: str):
    (line,) = check_changes(OLD, changed(key), explicit={key})
    assert re.fullmatch(rf"{re.escape(key)}: \S+ -> \S+", line)
    with pytest.raises(UsageError, match=rf"{re.escape(key)}: .* overrides of these keys: {key}="):
        check_changes(OLD, changed(key), explicit=())


@pytest.mark.parametrize("key", sorted(FREE))
def test_a_free_key_changes_silently(key: str):
    assert check_changes(OLD, changed(key), explicit=()) == []
    assert check_changes(OLD, changed(key), explicit={key}) == []


def test_every_frozen_key_that_differs_is_named_with_both_values():
    new = changed("model.tie_embeddings", "train.seed", "train.steps")
    with pytest.raises(UsageError) as caught:
        check_changes(OLD, new, explicit={"train.steps"})
    assert str(caught.value) == (
        "a resumed run keeps these keys: model.tie_embeddings: true -> false; train.seed: 1 -> 7; "
        "set them back, or start a new run"
    )


def test_unasked_changes_name_the_options_that_allow_them():
    with pytest.raises(UsageError) as caught:
        check_changes(OLD, changed("train.steps", "optim.lr", "eval.every"), explicit={"eval.every"})
    assert str(caught.value) == (
        "the config differs from the run's: train.steps: 1000 -> 60; optim.lr: 0.001 -> 0.002; "
        "if that is meant, say so by overrides of these keys: train.steps=60 optim.lr=0.002"
    )


def test_log_lines_come_in_the_order_of_the_schema():
    new = changed("eval.patience", "optim.lr", "train.steps", "run.workers")
    assert check_changes(OLD, new, explicit={"train.steps", "optim.lr", "eval.patience"}) == [
        "train.steps: 1000 -> 60",
        "optim.lr: 0.001 -> 0.002",
        "eval.patience: 0 -> 3",
    ]
