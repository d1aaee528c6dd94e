"""Strict reading of JSON that may be damaged or hostile.

Every violation is one UsageError that names the file and the field. Knows nothing of checkpoints.
"""

import collections
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from feste_dp.errors import UsageError
from feste_dp.files.marks import JSON_MARKS, too_many_marks

ITEM_LIMIT = 50_000  # a manifest has some 700
NESTING_LIMIT = 32
PLAIN_INTEGER_LIMIT = 2**64


class Fields:
    """One JSON object whose fields are taken by name and type; `finish` refuses those left over."""

    def __init__(self, value: object, source: str, where: str = "") -> None:
        self._source = source
        self._where = where
        if not isinstance(value, dict):
            refuse(source, where.rstrip(".") or "the content", f"{shown(value)} is not an object")
        self._left: dict[str, Any] = dict(value)

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Any:
        if name not in self._left:
            self.refuse(name, "is missing")
        return self._left.pop(name)

    def text(self, name: str, pattern: str, meaning: str) -> str:
        value = self.take(name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self.refuse(name, f"{shown(value)} is not {meaning}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(name, f"{shown(value)} is not an integer from {low} to {high}")
        return value

    def number(self, name: str, low: float = -math.inf) -> float:
        value = self.take(name)
        if not _is_number(value) or not math.isfinite(value) or value < low:
            least = "" if low == -math.inf else f" of at least {low:g}"
            self.refuse(name, f"{shown(value)} is not a finite number{least}")
        return float(value)

    def number_or_null(self, name: str) -> float | None:
        if self._left.get(name, 0) is None:
            del self._left[name]
            return None
        return self.number(name)

    def integer_or_null(self, name: str, low: int, high: int) -> int | None:
        if self._left.get(name, 0) is None:
            del self._left[name]
            return None
        return self.integer(name, low, high)

    def integers(self, name: str, low: int, high: int, most: int) -> tuple[int, ...]:
        value = self.take(name)
        if not isinstance(value, list) or len(value) > most:
            self.refuse(name, f"{shown(value)} is not a list of at most {most} integers")
        for item in value:
            if isinstance(item, bool) or not isinstance(item, int) or not low <= item <= high:
                self.refuse(name, f"{shown(item)} is not an integer from {low} to {high}")
        return tuple(value)

    def texts(self, name: str, pattern: str, most: int) -> tuple[str, ...]:
        """A list of different texts."""
        value = self.take(name)
        if not isinstance(value, list) or not len(value) == len(set(map(str, value))) <= most:
            self.refuse(name, f"{shown(value)} is not a list of at most {most} different names")
        for item in value:
            if not isinstance(item, str) or not re.fullmatch(pattern, item):
                self.refuse(name, f"{shown(item)} is not a name")
        return tuple(value)

    def plain(self, name: str) -> dict[str, Any]:
        """An object of any finite JSON values, nested at most NESTING_LIMIT deep."""
        value = self.take(name)
        if not isinstance(value, dict):
            self.refuse(name, f"{shown(value)} is not an object")
        _check_plain(value, self._source, self._where + name, NESTING_LIMIT)
        return value

    def object(self, name: str) -> "Fields":
        return Fields(self.take(name), self._source, f"{self._where}{name}.")

    def objects(self, name: str, most: int) -> Iterator["Fields"]:
        value = self.take(name)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            self.refuse(name, f"{shown(value)} is not a list of 1 to {most} objects")
        for i, item in enumerate(value):
            yield Fields(item, self._source, f"{self._where}{name}[{i}].")

    def finish(self) -> None:
        for name in self._left:
            self.refuse(one_line(name), "is not a known field")

    def refuse(self, name: str, reason: str) -> NoReturn:
        refuse(self._source, self._where + name, reason)


def parse_json(data: bytes, source: str) -> object:
    """The decoded document. UsageError when it is not UTF-8 JSON, repeats a key or has too many values."""
    if too_many_marks(data, JSON_MARKS, ITEM_LIMIT):
        raise UsageError(f"{source}: has more than {ITEM_LIMIT} values")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise UsageError(f"{source}: is not valid JSON: nested too deep") from None
    except ValueError as error:
        raise UsageError(f"{source}: is not valid JSON: {one_line(str(error))}") from None


def refuse(source: str, field: str, reason: str) -> NoReturn:
    raise UsageError(f"{source}: {field}: {reason}")


def shown(value: object) -> str:
    """The value as it may stand in a one-line message: printable and short."""
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'map'} of {len(value)}"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    return one_line(repr(value[:80] if isinstance(value, str) else value))


def one_line(text: str) -> str:
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:200])
    return printable if len(text) <= 200 else printable + "..."


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"the key {counts.most_common(1)[0][0]!r} is repeated")
    return result


def _is_number(value: object) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool) and abs(value) < PLAIN_INTEGER_LIMIT) or (
        isinstance(value, float)
    )


def _check_plain(value: object, source: str, field: str, depth: int) -> None:
    if depth == 0:
        refuse(source, field, "is nested too deep")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                refuse(source, field, f"the key {shown(name)} is not text")
            _check_plain(item, source, f"{field}.{one_line(name[:80])}", depth - 1)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_plain(item, source, f"{field}[{i}]", depth - 1)
    elif value is not None and not isinstance(value, bool | str):
        if not _is_number(value):
            refuse(source, field, f"{shown(value)} is not a plain JSON value")
        if isinstance(value, float) and not math.isfinite(value):
            refuse(source, field, f"{shown(value)} is not a finite number")
