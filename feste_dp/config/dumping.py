"""Writes a config as YAML that reads back as the same config, or as a flat table."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from pydantic.fields import FieldInfo

from feste_dp.config.expectations import expected_value
from feste_dp.config.schema import Config
from feste_dp.config.yaml_tree import one_line

YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def dump_config(config: Config) -> str:
    """The config as YAML with every key, in the order of the schema, each below its sentence."""

    def lines(path: str, info: FieldInfo, setting: str) -> Iterator[str]:
        yield f"# {sentence(info)}"
        yield setting

    return _yaml(config, lines)


def explained_yaml(config: Config, origins: Mapping[str, str]) -> str:
    """The same with what each key takes and where its value came from, by `section.key`; what is not in
    `origins` is a default."""

    def lines(path: str, info: FieldInfo, setting: str) -> Iterator[str]:
        yield f"# {sentence(info)}"
        yield f"# Takes {expected_value(info)}."
        yield f"{setting}  # {one_line(origins.get(path, 'default'))}"

    return _yaml(config, lines)


def yaml_to_edit(config: Config, given: Collection[str]) -> str:
    """The same with what each key takes; those that are not `given` are commented out, so that defaults that
    follow from other keys still do."""

    def lines(path: str, info: FieldInfo, setting: str) -> Iterator[str]:
        yield f"# {sentence(info)}"
        yield f"# Takes {expected_value(info)}."
        yield setting if path in given else f"#{setting}"

    return _yaml(config, lines)


def _yaml(config: Config, lines: Callable[[str, FieldInfo, str], Iterator[str]]) -> str:
    """Each section with the lines of its keys: by `section.key`, field and `key: value`."""
    text = []
    for name, section in config:
        text += ["", f"{name}:"]
        for key, info in type(section).model_fields.items():
            setting = f"{key}: {written(getattr(section, key))}"
            text += [f"  {line}" for line in lines(f"{name}.{key}", info, setting)]
    return "\n".join(text[1:]) + "\n"


def flat_values(config: Config) -> dict[str, object]:
    """Every value by its key as `section.key`, in the order of the schema."""
    return {
        f"{name}.{key}": getattr(section, key)
        for name, section in config
        for key in type(section).model_fields
    }


def sentence(info: FieldInfo) -> str:
    """What the key is, on one line."""
    return " ".join((info.description or "").split())


def written(value: object) -> str:
    """The value as a YAML scalar or flow list that reads back as the same value."""
    if isinstance(value, list):
        return f"[{', '.join(written(item) for item in value)}]"
    if not isinstance(value, str):
        return str(value).lower()
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and value.lower() not in YAML_WORDS:
        return value
    escaped = "".join(
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" if c not in ESCAPES else ESCAPES[c]
        for c in value
    )
    return f'"{escaped}"'
