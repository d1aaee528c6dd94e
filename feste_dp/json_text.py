"""JSON that every reader takes: what it has no number for, a NaN or infinity, is null."""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any


def json_text(
    content: object,
    *,
    indent: int | None = None,
    nonfinite: Callable[[float], object] = lambda number: None,
    default: Callable[[Any], object] | None = None,
) -> str:
    """On one line without spaces unless `indent` is given. `nonfinite` says what stands for a NaN or an
    infinity, `default` for what is none of JSON's kinds."""
    separators = (",", ":") if indent is None else None

    def encode(value: object) -> str:
        return json.dumps(value, indent=indent, separators=separators, allow_nan=False, default=default)

    try:
        return encode(content)
    except ValueError:
        return encode(_replaced(content, nonfinite))


def _replaced(value: object, nonfinite: Callable[[float], object]) -> object:
    if isinstance(value, Mapping):
        return {key: _replaced(each, nonfinite) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(each, nonfinite) for each in value]
    return nonfinite(value) if isinstance(value, float) and not math.isfinite(value) else value
