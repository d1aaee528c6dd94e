"""The configs that are shipped: they load, and have the sizes and batches they are named for."""

import re
from pathlib import Path

import pytest

from feste_dp.config.dumping import dump_config
from feste_dp.config.loading import load_config
from feste_dp.config.schema import Config, ModelConfig

README = Path(__file__).parents[2] / "README.md"
CONFIGS = Path(__file__).parents[2] / "configs"

# Parameters by name; tiny and gpt2_87m are fixed figures of the design.
PARAMETERS = {"tiny": 169_728, "gpt2_87m": 87_022_080}
TOKENS_PER_STEP = {
    "quick": 16 * 128,
    "tiny": 8 * 64,
    "small": 16 * 128,
    "medium": 4 * 256,
    "gpt2_87m": 8 * 1024,
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


def test_the_five_configs_are_there():
    assert sorted(file.name for file in CONFIGS.iterdir()) == [
        "gpt2_87m.yaml",
        "medium.yaml",
        "quick.yaml",
        "small.yaml",
        "tiny.yaml",
    ]


@pytest.mark.parametrize("name", ["tiny", "small", "medium", "gpt2_87m", "quick"])
def test_a_config_is_named_like_its_file_and_opens_with_one_comment(name: str):
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert not any("#" in line for line in lines[1:])
    assert len(lines) <= 40
    assert load(name).run.name == name


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_a_model_has_the_parameters_of_the_design(name: str, parameters: int):
    assert parameter_count(load(name).model) == parameters


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("tiny", (512, 64, 2, 1, 64, False)),
        ("small", (1024, 128, 3, 1, 128, False)),
        ("medium", (1536, 256, 4, 4, 256, False)),
        ("gpt2_87m", (1536, 768, 12, 12, 1024, True)),
    ],
)
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


@pytest.mark.parametrize(("name", "tokens"), TOKENS_PER_STEP.items())
def test_a_step_has_the_tokens_that_the_readme_says(name: str, tokens: int):
    assert load(name).tokens_per_step == tokens
    assert re.search(rf"configs/{name}\.yaml` \| [^|]* \| {tokens:,} \|", README.read_text())


def test_the_largest_model_can_use_eight_workers():
    assert load_config(CONFIGS / "gpt2_87m.yaml", ["run.workers=8"]).run.workers == 8


def test_medium_trains_on_four_million_tokens():
    assert load("medium").total_tokens == 4_096_000


@pytest.mark.parametrize("name", ["tiny", "small", "medium", "gpt2_87m", "quick"])
def test_a_config_survives_being_written_and_read(name: str, tmp_path: Path):
    written = tmp_path / "config.yaml"
    written.write_text(dump_config(load(name)), encoding="utf-8")
    assert load_config(written) == load(name)
