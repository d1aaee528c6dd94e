"""What a user reads about what a key takes."""

from collections.abc import Sequence
from typing import Literal, get_args, get_origin

from pydantic.fields import FieldInfo


def expected_value(field: FieldInfo) -> str:
    """What the field takes, in words: `a whole number from 1 to 1024`."""
    if isinstance(field.json_schema_extra, dict) and "expected" in field.json_schema_extra:
        return str(field.json_schema_extra["expected"])
    if get_origin(field.annotation) is Literal:
        return either(get_args(field.annotation))
    if field.annotation is bool:
        return "true or false"
    if field.annotation is str:
        return f"text of {_lengths(field)} characters"
    phrases = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "to below {}"}
    limits = {name: getattr(rule, name) for rule in field.metadata for name in phrases if hasattr(rule, name)}
    if "gt" in limits:
        phrases |= {"le": "and at most {}", "lt": "and below {}"}
    words = [phrase.format(limits[name]) for name, phrase in phrases.items() if name in limits]
    return " ".join(["a whole number" if field.annotation is int else "a number", *words])


def _lengths(field: FieldInfo) -> str:
    least, most = (
        max((getattr(rule, name) for rule in field.metadata if hasattr(rule, name)), default=0)
        for name in ("min_length", "max_length")
    )
    return f"{least} to {most}" if least else f"at most {most}"


def either(choices: Sequence[object]) -> str:
    """The choices in words: `1, 2 or 4`; many are abridged."""
    words = [str(choice) for choice in choices]
    if len(words) > 12:
        words = [*words[:10], "...", words[-1]]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
