"""Reads a config from YAML and overrides. Owns every message about a bad config.

A config is YAML 1.2 of two levels: sections, and keys with scalars or flat lists. It is read from the node
tree of yaml_tree.py. Each error is one line, `FILE:LINE:COLUMN: section.key: what to change`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from feste_dp.config.expectations import either, expected_value
from feste_dp.config.key_names import describe_unknown
from feste_dp.config.presets import find_config, is_bare_name, nearest_configs
from feste_dp.config.schema import Config, CrossFieldProblem, sections
from feste_dp.config.yaml_tree import (
    Place,
    UnreadableError,
    compose,
    kind,
    one_line,
    plain_value,
    refusal,
    shortened,
)
from feste_dp.errors import UsageError
from feste_dp.files.home import expand_home
from feste_dp.files.reading import read_plain
from feste_dp.wording import command

MAX_FILE_BYTES = 1024 * 1024  # a config is 2 KiB; the parser reads about 100 KiB a second

_PATH_KEYS = ("data.corpus", "run.dir", "model.init")


class Override(str):
    """`section.key=value`, with what names it in errors: as the user gave it."""

    said: str
    names_key: bool

    def __new__(cls, text: str, said: str, *, names_key: bool = False) -> "Override":
        """With names_key, `said` names the key already, as a parameter of its own does."""
        made = super().__new__(cls, text)
        made.said, made.names_key = said, names_key
        return made


@dataclass
class _Draft:
    """What has been read so far: values by section and key, their places, and what is wrong."""

    values: dict[str, dict[str, object]] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    problems: list[tuple[Place, str]] = field(default_factory=list)
    named: set[Place] = field(default_factory=set)
    """Places that name the key themselves."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """What would do, of a problem between keys."""

    def add(self, place: Place, path: str, message: str) -> None:
        """A problem with the key at `path`."""
        self.problems.append((place, message if place in self.named else f"{path}: {message}"))


def load_config(path: str | Path, overrides: Sequence[str] = (), *, from_run: bool = False) -> Config:
    """The config in the file, or of the preset of that name, with overrides `section.key=value` on top.
    Raises UsageError of one line.

    What the user names may be anything that can be read, such as a pipe; in a run it must be a regular file.
    """
    if from_run:
        return config_from_text(_read_text(Path(path), from_run), str(path), overrides)
    return config_from_text(*read_config(Path(path)), overrides)


class ConfigText(NamedTuple):
    """A config file as it was read: once, for it may be a pipe."""

    text: str
    source: str
    """What names it in errors."""


def read_config(path: Path) -> ConfigText:
    """Of the file, or of the preset of that name. Raises UsageError of one line."""
    found = find_config(path)
    return ConfigText(_read_text(found, from_run=False), str(found))


def config_on_top(base: Config, given: ConfigText, overrides: Sequence[str] = ()) -> Config:
    """What `base` becomes by the keys that the text and the overrides give. Raises UsageError of one line."""
    return config_from_text(*given, overrides, base.model_dump())


def config_from_text(
    text: str,
    source: str,
    overrides: Sequence[str] = (),
    base: dict[str, dict[str, object]] | None = None,
) -> Config:
    """The config in YAML text; `source` names the text in errors, `base` has the values of keys that are
    not given. Raises UsageError of one line."""
    return _config_of(_Draft(base or {}), ConfigText(text, source), overrides)


class Explained(NamedTuple):
    """A config and, by `section.key`, where its values were given; what is not there has its default."""

    config: Config
    origins: dict[str, str]


def explained_config(given: ConfigText | None, overrides: Sequence[str] = ()) -> Explained:
    """The config in the text, or else the defaults, with overrides on top. Raises UsageError of one line."""
    draft = _Draft()
    config = _config_of(draft, given, overrides)
    return Explained(config, {path: str(place) for path, place in draft.places.items()})


def _config_of(draft: _Draft, given: ConfigText | None, overrides: Sequence[str]) -> Config:
    if given is not None:
        _add_text(draft, *given)
    for rank, override in enumerate(overrides, start=1):
        _add_override(draft, override, rank)
    try:
        config = Config.model_validate(draft.values)
    except ValidationError as error:
        _add_schema_problems(draft, error, "the defaults" if given is None else given.source)
    if draft.problems:
        (place, message), *others = sorted(draft.problems)
        more = f" (and {len(others)} more)" if others else ""
        settings = draft.settings if not others else {}
        raise UsageError(one_line(f"{place}: {message}{more}"), settings=settings)
    return config


def override_keys(overrides: Sequence[str]) -> tuple[str, ...]:
    """The keys that overrides `section.key=value` set, for `check_changes`."""
    return tuple(override.partition("=")[0].strip() for override in overrides)


def _read_text(path: Path, from_run: bool) -> str:
    try:
        if from_run:
            content = read_plain(path, MAX_FILE_BYTES)
        else:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(one_line(f"{path}: no such file{_meant(path)}")) from None
    except IsADirectoryError:
        of_run = path / "config.yaml"
        such_as = f", such as {of_run}" if of_run.is_file() else ""
        raise UsageError(one_line(f"{path}: is a directory; give a YAML file{such_as}")) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UsageError(one_line(f"{path}: cannot be read: {getattr(error, 'strerror', error)}")) from None
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(one_line(f"{path}: is larger than {MAX_FILE_BYTES >> 20} MiB; this is no config"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - before.rfind(b"\n")
        where = f"{path}:{before.count(10) + 1}:{column}"
        raise UsageError(one_line(f"{where}: is not UTF-8; save the file as UTF-8 text")) from None


def _meant(path: Path) -> str:
    near = nearest_configs(path)
    if near:
        return f"; did you mean {either(near)}?"
    return f" and no config of that name; {command('configs')} lists them" * is_bare_name(path)


def _add_text(draft: _Draft, text: str, source: str) -> None:
    root = compose(text, Place(0, 1, 1, source))
    if root is None or kind(root) == "nothing":
        raise UsageError(one_line(f"{source}: is empty; give at least one section, such as `model:`"))
    if not isinstance(root, MappingNode) or refusal(root):
        place = _place(root, source)
        what = refusal(root) or f"expected sections such as `model:`, got {kind(root)}"
        raise UsageError(one_line(f"{place}: {what}"))
    for name, node, place in _entries(draft, root, source, ""):
        if name not in sections():
            draft.problems.append((place, f"{shortened(name, 80)}: {describe_unknown(name)}"))
        elif isinstance(node, MappingNode) and not refusal(node):
            for key, child, key_place in _entries(draft, node, source, f"{name}."):
                _add_value(draft, name, key, child, key_place, _place(child, source))
        elif kind(node) != "nothing":  # a section whose keys are all commented out is fine
            keys = ", ".join(sections()[name].model_fields)
            what = refusal(node) or f"expected the keys {keys} below it, got {kind(node)}"
            draft.problems.append((_place(node, source), f"{name}: {what}"))


def _place(node: Node, source: str) -> Place:
    return Place(0, node.start_mark.line + 1, node.start_mark.column + 1, source)


def _entries(draft: _Draft, node: MappingNode, source: str, prefix: str) -> list[tuple[str, Node, Place]]:
    """The keys of a map with their values and places; keys given twice become problems."""
    entries: dict[str, tuple[str, Node, Place]] = {}
    for key, value in node.value:
        place = _place(key, source)
        if not isinstance(key, ScalarNode) or refusal(key):
            draft.problems.append((place, refusal(key) or "expected a key, got a list or a map"))
        elif key.value in entries:
            first = entries[key.value][2].line
            name = f"{prefix}{shortened(key.value, 80)}"
            draft.problems.append((place, f"{name}: given twice; the first is on line {first}"))
        else:
            entries[key.value] = (key.value, value, place)
    return list(entries.values())


def _add_override(draft: _Draft, override: str, rank: int) -> None:
    said = override.said if isinstance(override, Override) else f"override {override}"
    place = Place(rank, 0, 0, shortened(said, 86))
    if isinstance(override, Override) and override.names_key:
        draft.named.add(place)
    path, equals, text = override.partition("=")
    path = path.strip()
    section, _, key = path.partition(".")
    if not equals or not path:
        draft.problems.append((place, "expected section.key=value, such as optim.lr=3e-4"))
    elif path in sections():
        keys = ", ".join(f"{path}.{name}" for name in sections()[path].model_fields)
        draft.problems.append((place, f"{path}: is a section; set one of {keys}"))
    elif section not in sections():
        draft.problems.append((place, f"{shortened(path, 80)}: {describe_unknown(path)}"))
    else:
        node = compose(text, place)
        if node is None:
            draft.problems.append((place, f"{path}: no value after ="))
        else:
            _add_value(draft, section, key, node, place, place)


def _add_value(draft: _Draft, section: str, key: str, node: Node, key_place: Place, place: Place) -> None:
    path = f"{section}.{key}"
    if key not in sections()[section].model_fields:
        draft.problems.append((key_place, f"{shortened(path, 80)}: {describe_unknown(path)}"))
        return
    try:
        value = plain_value(node)
        if path in _PATH_KEYS:
            value = _expanded(value)
    except (UnreadableError, UsageError) as error:
        draft.add(place, path, str(error))
        return
    draft.values.setdefault(section, {})[key] = value
    draft.places[path] = place


def _expanded(value: object) -> object:
    """The path or paths without a leading `~`; what is neither is left to the schema."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    return expand_home(value) if isinstance(value, str) else value


def _add_schema_problems(draft: _Draft, error: ValidationError, source: str) -> None:
    whole = Place(0, 0, 0, source)
    structural = bool(draft.problems)
    seen = set()
    for item in error.errors(include_url=False):
        if item["type"] != "cross_field":
            section, key = str(item["loc"][0]), str(item["loc"][1])
            path = f"{section}.{key}"
            if path not in seen:
                seen.add(path)
                info, value = sections()[section].model_fields[key], draft.values[section][key]
                unquoted = info.annotation is str and isinstance(value, int | float)
                message = f"expected {expected_value(info)}, got {_given(value)}"
                draft.add(draft.places[path], path, message + "; write it in quotes" * unquoted)
        elif not structural:  # an unread key may be the very one that is missing
            problems: list[CrossFieldProblem] = item["ctx"]["problems"]
            for problem in problems:
                places = [draft.places[key] for key in problem.keys if key in draft.places]
                # an override is what changed last, else the key to change first
                place = max(places, key=lambda place: place.rank, default=whole)
                draft.add(place, problem.keys[0], problem.message)
                draft.settings = problem.settings


def _given(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text '{shortened(value, 40)}'"
        case list():
            return f"the list {shortened(repr(value), 60)}"
        case dict():
            return "a map"
    return repr(value)
