"""Defaults, ranges, strict types and the rules between keys."""

import pytest
from pydantic import ValidationError

from feste_dp.config.expectations import expected_value
from feste_dp.config.loading import config_from_text
from feste_dp.config.schema import (
    Config,
    ModelConfig,
    RunConfig,
    Section,
    TrainConfig,
    either,
    known_keys,
    sections,
)
from feste_dp.errors import UsageError


def problem(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(values)
    return str(caught.value.errors()[0]["msg"])


def test_every_key_has_a_default_a_sentence_and_a_stated_range():
    for name, section in sections().items():
        for key, info in section.model_fields.items():
            assert not info.is_required(), f"{name}.{key} has no default"
            assert info.description and info.description.endswith("."), f"{name}.{key} has no sentence"
            assert expected_value(info), f"{name}.{key} has no range"


def test_every_number_has_an_upper_and_a_lower_limit():
    for name, section in sections().items():
        for key, info in section.model_fields.items():
            if info.annotation in (int, float):
                limits = [
                    limit
                    for rule in info.metadata
                    for limit in ("ge", "gt", "le", "lt")
                    if hasattr(rule, limit)
                ]
                assert len(limits) == 2, f"{name}.{key} has the limits {limits}"


def test_the_sections_and_keys_are_those_of_the_design():
    assert {name: list(section.model_fields) for name, section in sections().items()} == {
        "model": [
            "vocab_size",
            "block_size",
            "n_layer",
            "n_head",
            "n_embd",
            "dropout",
            "tie_embeddings",
            "n_inner",
            "init",
            "init_resize",
        ],
        "data": ["corpus", "val_fraction"],
        "train": ["steps", "batch_size", "shards", "micro_batch", "seed", "precision"],
        "optim": [
            "lr",
            "min_lr",
            "warmup_steps",
            "schedule",
            "beta1",
            "beta2",
            "eps",
            "weight_decay",
            "clip_norm",
        ],
        "eval": ["every", "batches", "patience"],
        "sample": ["every", "prompt", "tokens", "temperature"],
        "checkpoint": ["every", "keep"],
        "run": [
            "name",
            "dir",
            "workers",
            "pin",
            "step_timeout_s",
            "on_nonfinite",
            "trackers",
            "wandb_project",
            "wandb_tags",
        ],
    }
    assert known_keys()[0] == "model.vocab_size" and known_keys()[-1] == "run.wandb_tags"


def test_derived_values_follow_from_the_keys():
    config = Config.model_validate(
        {
            "model": {"block_size": 64, "n_embd": 96, "n_head": 3},
            "train": {"steps": 10, "batch_size": 32, "shards": 4, "micro_batch": 2},
        }
    )
    assert config.train.sequences_per_shard == 8
    assert config.tokens_per_step == 32 * 64
    assert config.total_tokens == 10 * 32 * 64


def test_a_config_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        Config().train.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (TrainConfig, "steps", "3"),
        (TrainConfig, "steps", True),
        (TrainConfig, "steps", 3.0),
        (ModelConfig, "dropout", True),
        (ModelConfig, "dropout", "0.1"),
        (ModelConfig, "dropout", float("nan")),
        (ModelConfig, "tie_embeddings", 1),
        (RunConfig, "name", 3),
        (RunConfig, "step_timeout_s", float("inf")),
    ],
)
def test_a_value_of_another_type_is_refused(section: type[Section], key: str, value: object):
    with pytest.raises(ValidationError):
        section.model_validate({key: value})


def test_a_whole_number_stands_for_a_float():
    dropout = ModelConfig.model_validate({"dropout": 0}).dropout
    assert isinstance(dropout, float) and dropout == 0.0


@pytest.mark.parametrize("name", [".hidden", "-x", "a/b", "..", "", "a b", "a" * 65, "a\n", "é"])
def test_a_run_name_that_is_no_plain_file_name_is_refused(name: str):
    with pytest.raises(ValidationError):
        RunConfig(name=name)


@pytest.mark.parametrize("name", ["a", "run-1", "2026_x.y", "a" * 64])
def test_a_plain_run_name_is_taken(name: str):
    assert RunConfig(name=name).name == name


@pytest.mark.parametrize("shards", [1, 2, 4, 64, 256])
def test_powers_of_two_are_shard_counts(shards: int):
    assert Config.model_validate({"train": {"shards": shards, "batch_size": 256}}).train.shards == shards


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": {"n_embd": 130, "n_head": 4}},
            "model.n_embd: 130 is not divisible by model.n_head 4; use n_embd 128 or 132",
        ),
        (
            {"model": {"n_embd": 2, "n_head": 4}},
            "model.n_embd: 2 is not divisible by model.n_head 4; use n_embd 4",
        ),
        ({"train": {"shards": 6}}, "train.shards: 6 is not a power of two; use 4 or 8"),
        (
            {"train": {"batch_size": 12, "shards": 8}},
            "train.batch_size: 12 is not divisible by train.shards 8; "
            "use batch_size 8 or 16, or shards 1, 2 or 4",
        ),
        (
            {"train": {"batch_size": 48, "shards": 4, "micro_batch": 5}},
            "train.micro_batch: 5 does not divide train.batch_size / train.shards = 48 / 4 = 12; "
            "use 1, 2, 3, 4, 6 or 12",
        ),
        (
            {"run": {"workers": 3}, "train": {"shards": 2}},
            "run.workers: 3 is more than train.shards 2; use at most 2, or more shards",
        ),
        (
            {"optim": {"lr": 1e-4, "min_lr": 1e-3}},
            "optim.min_lr: 0.001 is above optim.lr 0.0001; lower one, raise the other",
        ),
    ],
)
def test_keys_that_do_not_fit_together_are_named_with_what_would_fit(values: dict[str, object], message: str):
    assert problem(**values) == message


def test_values_at_the_edge_of_a_rule_are_taken():
    Config.model_validate({"optim": {"warmup_steps": 8, "lr": 1e-4, "min_lr": 1e-4}, "train": {"steps": 8}})
    Config.model_validate({"run": {"workers": 8}})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_are_taken_whatever_this_machine_can_do(precision: str):
    assert Config.model_validate({"train": {"precision": precision}}).train.precision == precision
    assert Config().train.precision == "fp32"


def test_a_run_may_end_inside_its_warm_up():
    assert Config.model_validate({"optim": {"warmup_steps": 9}, "train": {"steps": 3}}).train.steps == 3


def test_many_choices_are_abridged():
    assert either(["a"]) == "a"
    assert either([1, 2]) == "1 or 2"
    assert either(range(1, 21)) == "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ... or 20"


@pytest.mark.parametrize(("steps", "expected"), [(1, 0), (19, 0), (100, 5), (1000, 50), (10**6, 2000)])
def test_a_config_that_says_nothing_of_warm_up_gets_a_twentieth_of_its_steps(
    steps: int, expected: int
) -> None:
    assert Config.model_validate({"train": {"steps": steps}}).optim.warmup_steps == expected
    given = {"train": {"steps": steps}, "optim": {"warmup_steps": 7}}
    assert Config.model_validate(given).optim.warmup_steps == 7


def test_one_tracker_or_tag_needs_no_list() -> None:
    run = Config.model_validate({"run": {"trackers": "tensorboard", "wandb_tags": "first try"}}).run
    assert (run.trackers, run.wandb_tags) == (["tensorboard"], ["first try"])


@pytest.mark.parametrize(
    ("workers", "train", "settings"),
    [
        (8, {"batch_size": 4, "shards": 4}, {"train.shards": 8, "train.batch_size": 8}),
        (5, {"batch_size": 16, "shards": 4, "micro_batch": 2}, {"train.shards": 8}),
        (
            3,
            {"batch_size": 6, "shards": 2, "micro_batch": 3},
            {"train.shards": 4, "train.batch_size": 12},
        ),
        (256, {"batch_size": 1, "shards": 1}, {"train.shards": 256, "train.batch_size": 256}),
    ],
)
def test_the_settings_that_a_refused_worker_count_names_would_do(
    workers: int, train: dict[str, int], settings: dict[str, int]
) -> None:
    given = [f"run.workers={workers}", *(f"train.{key}={value}" for key, value in train.items())]
    with pytest.raises(UsageError) as caught:
        config_from_text("train: {}", "c.yaml", given)
    assert caught.value.settings == settings
    assert str(caught.value).endswith(" ".join(f"{key}={value}" for key, value in settings.items()))
    given += [f"{key}={value}" for key, value in settings.items()]
    assert config_from_text("train: {}", "c.yaml", given).run.workers == workers
