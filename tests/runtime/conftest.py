"""Random token data and the config of a small model to go with it, and what a process holds."""

import gc
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from feste_dp.config.schema import Config
from feste_dp.data.tokenizer import train_tokenizer
from feste_dp.data.tokens import Source, open_token_data, write_token_files
from feste_dp.runtime.warmup import compile_kernels

VOCABULARY = 256


@pytest.fixture(scope="session")
def token_data(tmp_path_factory):
    """5,000 random training tokens and 800 to validate."""
    folder = tmp_path_factory.mktemp("tokens")
    random = np.random.default_rng(7)
    train, val = (random.integers(0, VOCABULARY, n).astype(np.uint32) for n in (5000, 800))
    tokenizer = train_tokenizer(["every byte is a token\n"], VOCABULARY)
    sources = [Source(name="random", bytes=5800, sha256="0" * 64)]
    write_token_files(folder, tokenizer, train, val, 5000, 800, sources)
    return open_token_data(folder, verify=True)


@pytest.fixture(scope="session")
def compiled():
    """Kernels compiled before any worker starts: it would compile them itself, beside all the others."""
    compile_kernels(os.environ, lambda seconds: None)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    def config(**run: object) -> Config:
        return Config.model_validate(
            {
                "model": {
                    "vocab_size": VOCABULARY,
                    "block_size": 16,
                    "n_layer": 1,
                    "n_head": 2,
                    "n_embd": 32,
                    "dropout": 0.1,
                    "tie_embeddings": False,
                },
                "train": {"batch_size": 16, "shards": 8, "micro_batch": 1, "seed": 3},
                "run": run,
            }
        )

    return config


@pytest.fixture
def open_files() -> Callable[[], Counter[str]]:
    """Counts what this process has open, by name; sockets and the like without their numbers."""

    def count() -> Counter[str]:
        gc.collect()  # what earlier tests dropped must not go away between two counts
        names: Counter[str] = Counter()
        for entry in Path("/proc/self/fd").iterdir():
            try:
                names[str(entry.readlink()).split(":[")[0]] += 1
            except FileNotFoundError:  # the descriptor of this very listing
                continue
        return names

    return count
