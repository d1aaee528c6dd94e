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
        "train": TrainState(4.25, min(step, 50), 3, 4.5, 12.75, 0),
        "layout": (
            TensorRange("wte", (half, 1), 0, half),
            TensorRange("ln_f_b", (parameter_count - half,), half, parameter_count),
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
