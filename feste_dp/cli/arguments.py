"""The types of arguments and the options that several commands take, and what each refuses."""

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from feste_dp.config.loading import Override
from feste_dp.config.presets import preset_names
from feste_dp.config.schema import MAX_CPU, MAX_SHARDS, known_keys
from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home
from feste_dp.wording import quoted

F = TypeVar("F", bound=Callable[..., Any])

_CPU_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class PathType(click.Path):
    """A path, its `~` expanded; nothing in its place, as an unset shell variable gives, is refused, not taken
    as `.`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("is empty; give a path", param, ctx)
        if isinstance(value, str):  # --out=~/x is not expanded by every shell
            try:
                value = expand_home(value)
            except UsageError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


class FileType(PathType):
    """The path of a file to write; one that ends as a folder's does is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and (value.endswith("/") or value.rpartition("/")[2] in (".", "..")):
            self.fail(f"{value} is the name of a folder; give that of a file", param, ctx)
        return super().convert(value, param, ctx)


class ConfigType(PathType):
    """The name of a preset, or the path of a file; the shell completes both."""

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in preset_names() if name.startswith(incomplete)]
        return names + super().shell_complete(ctx, param, incomplete)


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


class CpuList(click.ParamType):  # type: ignore[type-arg]  # click before 8.3 has no argument there
    """none, auto, or CPU numbers as taskset takes them, `0,2,4-7`; gives the text of the config's run.pin."""

    name = "cpus"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value in ("none", "auto"):
            return str(value)
        cpus: list[int] = []
        for part in str(value).split(","):
            found = _CPU_RANGE.fullmatch(part)
            if not found or not int(found[1]) <= int(found[2] or found[1]) <= MAX_CPU:
                self.fail(
                    f"expected none, auto or CPU numbers from 0 to {MAX_CPU} such as 0,2,4-7, "
                    f"got {str(value)[:40]!r}",
                    param,
                    ctx,
                )
            cpus += range(int(found[1]), int(found[2] or found[1]) + 1)
        return str(cpus)


def config_option(*, required: bool = True) -> Callable[[F], F]:
    """--config, as every command takes it."""
    return click.option(
        "--config",
        "config_path",
        required=required,
        type=ConfigType(),
        metavar="NAME|FILE",
        help="The name of a config that comes with feste-dp (`feste-dp configs`), or a YAML file; the keys "
        "it lacks have defaults.",
    )


RUN = click.argument("run", type=PathType())
CHECKPOINT = click.option(
    "--checkpoint", "which", help="best, latest or a step; default: the best one, where there is one."
)
WORKERS = WholeNumber(1, MAX_SHARDS)
PIN = click.option(
    "--pin",
    type=CpuList(),
    metavar="none|auto|LIST",
    help="CPUs the workers are bound to: auto takes physical cores of their own; or CPU numbers, 0,2,4-7.",
)


def _keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(f"{key}=") for key in known_keys() if key.startswith(incomplete)]


OVERRIDES = click.option(
    "--set",
    "overrides",
    multiple=True,
    shell_complete=_keys,
    metavar="SECTION.KEY=VALUE",
    help="Override a key of the config; may be given several times.",
)


def as_overrides(
    given: Sequence[str],
    workers: int | None = None,
    pin: str | None = None,
    name: str | None = None,
    init_from: Path | None = None,
) -> list[Override]:
    """What --set gives, and the keys that have an option of their own, named in errors as they were typed."""
    overrides = [Override(text, f"--set {text}") for text in given]
    if workers is not None:
        overrides.append(Override(f"run.workers={workers}", "--workers", names_key=True))
    if pin is not None:
        overrides.append(Override(f"run.pin={pin}", "--pin", names_key=True))
    if name is not None:
        overrides.append(Override(f'run.name="{name}"', "--name", names_key=True))
    if init_from is not None:
        path = json.dumps(str(init_from), ensure_ascii=False)
        overrides.append(Override(f"model.init={path}", "--init-from", names_key=True))
    return overrides


@contextlib.contextmanager
def said_as(names: Mapping[str, str]) -> Iterator[None]:
    """An error about one of these keys of the config is one about the option that was typed for it."""
    try:
        yield
    except UsageError as error:
        if error.about not in names:
            raise
        raise UsageError(error.message, about=names[error.about], settings=error.settings) from None


def with_flags(error: UsageError) -> str:
    """The message as the command line says it: with the option that it is about, and those that would do."""
    about = error.about if "." in error.about else f"--{error.about.replace('_', '-')}"
    words = f"{about}: {error.message}" if error.about else error.message
    settings = " ".join(f"--set {quoted(f'{key}={value}')}" for key, value in error.settings.items())
    return f"{words}: {settings}" if settings else words
