"""A small config, and a run of it from start to end."""

from pathlib import Path
from typing import Any

import pytest

import feste_dp
from feste_dp.data.corpus import read_shakespeare


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    text = tmp_path_factory.mktemp("text") / "plays.txt"
    text.write_text(read_shakespeare()[:60_000])
    return {
        "model": {
            "vocab_size": 300,
            "block_size": 16,
            "n_layer": 1,
            "n_head": 2,
            "n_embd": 16,
            "dropout": 0.1,
        },
        "data": {"corpus": [str(text)]},
        "train": {"steps": 12, "batch_size": 8, "shards": 4},
        "eval": {"every": 6, "batches": 2},
        "sample": {"every": 6, "tokens": 8},
        "checkpoint": {"every": 0},
    }


@pytest.fixture(scope="session")
def whole(
    config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[feste_dp.Step]]:
    """Its directory and its steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    steps = list(feste_dp.train(config, workers=2, out=out))
    return out, steps
