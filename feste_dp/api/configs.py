"""A config as a caller in Python gives it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feste_dp.config.dumping import dump_config
from feste_dp.config.loading import Override, config_from_text, load_config
from feste_dp.config.schema import Config
from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home

Given = str | Path | Mapping[str, Mapping[str, object]] | Config
"""The name of a preset, a path, sections of keys such as {"train": {"steps": 100}}, or a config."""


def config_of(
    given: Given, overrides: Mapping[str, object] | None = None, workers: int | None = None
) -> Config:
    """The config with `overrides`, such as {"train.steps": 100}, on top. Raises UsageError."""
    changes = overrides_of(overrides)
    if workers is not None:
        changes.append(Override(f"run.workers={workers}", "workers", names_key=True))
    if isinstance(given, str | Path):
        return load_config(expand_home(str(given)), changes)
    text = dump_config(given) if isinstance(given, Config) else _as_yaml(given, "config")
    return config_from_text(text, "config", changes)


def overrides_of(given: Mapping[str, object] | None) -> list[Override]:
    return [Override(f"{key}={_as_yaml(value, key)}", "overrides") for key, value in (given or {}).items()]


def _as_yaml(value: Any, name: str) -> str:
    """JSON, which is YAML."""
    try:
        return json.dumps(value, allow_nan=False, default=_path)
    except (TypeError, ValueError):
        raise UsageError(
            "give strings, numbers, truth values, and lists or dicts of them", about=name
        ) from None


def _path(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError
