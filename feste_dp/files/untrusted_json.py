"""JSON that may be damaged or hostile: limits before parsing, and one line for what is wrong with it.

Knows no format. What a document must hold is a model of pydantic, elsewhere.
"""

import collections
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from feste_dp.errors import UsageError, on_one_line
from feste_dp.files.marks import JSON_MARKS, too_many_marks
from feste_dp.files.reading import read_plain

ITEM_LIMIT = 50_000  # a manifest has some 700; a source of tokens four, and 140 bytes
_REASONS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "model_type": "is not an object",
    "dict_type": "is not an object",
}


def read_object(path: Path, most_bytes: int, most_items: int = ITEM_LIMIT) -> dict[str, Any]:
    """The object in the file. UsageError also when it is missing, unreadable or too large."""
    try:
        data = read_plain(path, most_bytes, follow_links=True)
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    return parse_object(data, str(path), most_items)


def parse_object(data: bytes, source: str, most_items: int = ITEM_LIMIT) -> dict[str, Any]:
    """The object in the bytes. UsageError that names `source` when they are not UTF-8 JSON, hold another kind
    of value or too many values, or repeat a key."""
    if too_many_marks(data, JSON_MARKS, most_items):
        raise UsageError(f"{source}: has more than {most_items} values")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise UsageError(f"{source}: is not valid JSON: nested too deep") from None
    except ValueError as error:
        raise UsageError(f"{source}: is not valid JSON: {on_one_line(error)}") from None
    if not isinstance(document, dict):
        raise UsageError(f"{source}: is not a JSON object")
    return document


def first_problem(error: ValidationError) -> str:
    """`field[0].name: reason` of the first violation: printable, short, without the value."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return on_one_line(f"{field[1:101]}: {reason}".removeprefix(": "))


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r} is repeated")
    return result
