"""The types of arguments and the options that several commands take, and what each refuses."""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from feste_dp.config.schema import MAX_SHARDS
from feste_dp.errors import UsageError


class PathType(click.Path):
    """A path; nothing in its place, as an unset shell variable gives, is refused, not taken as `.`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; give a path", param, ctx)
        return super().convert(value, param, ctx)


class WholeNumber(click.IntRange):
    """An int in a range; says which range where it is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            expected = f"a whole number from {self.min} to {self.max}"
            self.fail(f"expected {expected}, got {str(value)[:40]!r}", param, ctx)


class StepRange(click.ParamType[tuple[int, int]]):
    """FIRST:LAST, steps counted from 1, both included."""

    name = "steps"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition(":")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            self.fail(f"expected FIRST:LAST, such as 10:12, got {str(value)[:40]!r}", param, ctx)
        return int(first), int(last)


class Number(click.FloatRange):
    """A float in a range, `nan` in none; says which range where it is not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        with contextlib.suppress(click.BadParameter):
            number = super().convert(value, param, ctx)
            if not math.isnan(number):
                return number
        words = "between {} and {}" if self.min_open else "from {} to {}"
        expected = f"a number {words.format(self.min, self.max)}"
        self.fail(f"expected {expected}, got {str(value)[:40]!r}", param, ctx)


RUN = click.argument("run", type=PathType())
CHECKPOINT = click.option(
    "--checkpoint", "which", help="best, latest or a step; default: the best one, where there is one."
)
WORKERS = WholeNumber(1, MAX_SHARDS)
OVERRIDES = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a key of the config; may be given several times.",
)


@contextlib.contextmanager
def said_as_typed(workers: int | None) -> Iterator[None]:
    """--workers travels as an override of the config; an error names it as the user gave it."""
    try:
        yield
    except UsageError as error:
        message = str(error).replace(f"--set run.workers={workers}: run.workers: ", "--workers: ", 1)
        raise UsageError(message) from None
