"""The configs that are shipped: they load, and have the sizes and batches they are named for."""

import re
from pathlib import Path

import pytest

from feste_dp.config.dumping import dump_config, flat_values
from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config, ModelConfig
from feste_dp.model.parameters import parameter_count as package_count

PAGE = Path(__file__).parents[2] / "docs/presets.md"
CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))

# Parameters by name; tiny and gpt2_87m are fixed figures of the design, GPT-2's own are those of its authors.
PARAMETERS = {
    "tiny": 169_728,
    "gpt2_87m": 87_022_080,
    "gpt2_124m": 124_439_808,
    "gpt2_355m": 354_823_168,
    "gpt2_774m": 774_030_080,
    "gpt2_1558m": 1_557_611_200,
}
# vocabulary, channels, layers, heads, context, tied
SIZES = {
    "tiny": (512, 64, 2, 1, 64, False),
    "small": (1024, 128, 3, 1, 128, False),
    "medium": (1536, 256, 4, 4, 256, False),
    "quick": (1024, 128, 4, 4, 128, False),
    "gpt2_87m": (1536, 768, 12, 12, 1024, True),
    "pocket-bard": (8192, 256, 6, 8, 448, False),  # 12 heads do not divide 256 channels
    "tinystories": (8192, 256, 6, 8, 448, False),
    "cyclops": (8192, 64, 2, 1, 64, False),
    "spider": (8192, 64, 2, 8, 64, False),
    "wide": (8192, 256, 4, 4, 1024, False),
    "narrow": (8192, 128, 6, 1, 1024, False),
    "short-context": (8192, 256, 4, 4, 128, False),
    "long-context": (8192, 256, 4, 4, 1024, False),
    "gpt2_124m": (50257, 768, 12, 12, 1024, True),
    "gpt2_355m": (50257, 1024, 24, 16, 1024, True),
    "gpt2_774m": (50257, 1280, 36, 20, 1024, True),
    "gpt2_1558m": (50257, 1600, 48, 25, 1024, True),
}


def parameter_count(model: ModelConfig) -> int:
    """GPT-2's parameters, counted from the sizes alone."""
    c = model.n_embd
    attention = 3 * c * c + 3 * c + c * c + c
    mlp = 4 * c * c + 4 * c + 4 * c * c + c
    block = attention + mlp + 4 * c
    embeddings = (model.vocab_size + model.block_size) * c
    head = 0 if model.tie_embeddings else model.vocab_size * c
    return embeddings + model.n_layer * block + 2 * c + head


def load(name: str) -> Config:
    return load_config(CONFIGS / f"{name}.yaml")


def test_the_configs_are_there_and_nothing_else():
    assert sorted(file.name for file in CONFIGS.iterdir()) == [f"{name}.yaml" for name in NAMES]
    assert set(NAMES) == set(SIZES)


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_named_like_its_file_and_opens_with_one_comment(name: str):
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ") and lines[0].endswith(".")
    assert not any("#" in line for line in lines[1:])
    assert len(lines) <= 40
    assert load(name).run.name == name


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_a_model_has_the_parameters_of_the_design(name: str, parameters: int):
    assert parameter_count(load(name).model) == parameters


@pytest.mark.parametrize(("name", "sizes"), SIZES.items())
def test_a_model_has_its_fixed_sizes(name: str, sizes: tuple[int, int, int, int, int, bool]):
    model = load(name).model
    assert sizes == (
        model.vocab_size,
        model.n_embd,
        model.n_layer,
        model.n_head,
        model.block_size,
        model.tie_embeddings,
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_the_configs_has_a_row_with_its_figures(name: str):
    config = load(name)
    figures = f"{parameter_count(config.model):,} | {config.tokens_per_step:,} | {config.train.steps:,}"
    assert re.search(rf"^\| `{name}` \| {re.escape(figures)} \|", PAGE.read_text(), re.MULTILINE), figures


@pytest.mark.parametrize(
    ("one", "other", "differ"),
    [
        ("cyclops", "spider", {"model.n_head"}),
        ("short-context", "long-context", {"model.block_size"}),
        ("pocket-bard", "tinystories", {"data.corpus", "eval.patience"}),
    ],
)
def test_what_is_to_be_compared_differs_in_what_it_is_named_for_alone(one: str, other: str, differ: set[str]):
    first, second = flat_values(load(one)), flat_values(load(other))
    assert {key for key in first if first[key] != second[key]} == {"run.name"} | differ


@pytest.mark.parametrize("name", NAMES)
def test_eight_workers_share_a_batch(name: str):
    config = load(name)
    assert config.train.shards == (4 if name == "medium" else 8)
    assert parameter_count(config.model) == package_count(config.model)


def test_medium_trains_on_four_million_tokens():
    assert load("medium").total_tokens == 4_096_000


@pytest.mark.parametrize("name", NAMES)
def test_a_config_survives_being_written_and_read(name: str, tmp_path: Path):
    written = tmp_path / "config.yaml"
    written.write_text(dump_config(load(name)), encoding="utf-8")
    assert load_config(written) == load(name)
