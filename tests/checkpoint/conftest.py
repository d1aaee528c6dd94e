"""A small checkpoint to write, and the seal that lets a test forge a manifest."""

import hashlib
import json
from collections.abc import Callable

import numpy as np
import pytest

from feste_dp.checkpoint.format import Arrays, ManifestFields, TensorRange, TrainState

TENSORS = ("params", "m", "v")


def example_fields(step: int, parameter_count: int, **changes: object) -> ManifestFields:
    half = parameter_count // 2
    fields: dict[str, object] = {
        "step": step,
        "config": {
            "optim": {"lr": 3e-4},
            "data": {"corpus": ["a", "b"]},
            "run": {"name": "tiny", "pin": None},
        },
        "tokenizer_sha256": "0123456789abcdef" * 4,
        "data_sha256": "fedcba9876543210" * 4,
        "seed": 1234,
        "train": TrainState(
            best_val_loss=4.25,
            best_step=min(step, 50),
            evals_since_best=3,
            val_loss=4.5,
            elapsed_seconds=12.75,
            skipped_steps=0,
        ),
        "layout": (
            TensorRange(name="wte", shape=(half, 1), start=0, stop=half),
            TensorRange(name="ln_f_b", shape=(parameter_count - half,), start=half, stop=parameter_count),
        ),
    }
    return ManifestFields(**(fields | changes))  # type: ignore[arg-type]


def example_arrays(seed: int, parameter_count: int) -> Arrays:
    random = np.random.default_rng(seed)
    values = random.standard_normal((3, parameter_count), dtype=np.float32)
    return dict(zip(TENSORS, values, strict=True))


def seal_manifest(body: str) -> bytes:
    """The bytes of a manifest.json with a right SHA-256 over `body`, which lacks only the closing brace."""
    digest = hashlib.sha256(body.encode()).hexdigest()
    return f'{body},\n "manifest_sha256": "{digest}"\n}}\n'.encode()


@pytest.fixture(scope="session")
def make_fields() -> Callable[..., ManifestFields]:
    return example_fields


@pytest.fixture(scope="session")
def make_arrays() -> Callable[[int, int], Arrays]:
    return example_arrays


@pytest.fixture(scope="session")
def seal() -> Callable[[str], bytes]:
    return seal_manifest


@pytest.fixture(scope="session")
def forge() -> Callable[[dict[str, object]], bytes]:
    """Encodes any content as a manifest whose own hash is right."""
    return lambda content: seal_manifest(json.dumps(content, indent=1).removesuffix("\n}"))
