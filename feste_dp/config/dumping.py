"""Writes a config as YAML that reads back as the same config, or as a flat table."""

import re

from feste_dp.config.schema import Config

YAML_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def dump_config(config: Config) -> str:
    """The config as YAML with every key, in the order of the schema, each below its sentence."""
    lines = []
    for name, section in config:
        lines += ["", f"{name}:"]
        for key, info in type(section).model_fields.items():
            lines += [f"  # {_sentence(info.description)}", f"  {key}: {_written(getattr(section, key))}"]
    return "\n".join(lines[1:]) + "\n"


def flat_values(config: Config) -> dict[str, object]:
    """Every value by its key as `section.key`, in the order of the schema."""
    return {
        f"{name}.{key}": getattr(section, key)
        for name, section in config
        for key in type(section).model_fields
    }


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _written(value: object) -> str:
    """The value as a YAML scalar or flow list that reads back as the same value."""
    if isinstance(value, list):
        return f"[{', '.join(_written(item) for item in value)}]"
    if not isinstance(value, str):
        return str(value).lower()
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value) and value.lower() not in YAML_WORDS:
        return value
    escaped = "".join(
        c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" if c not in ESCAPES else ESCAPES[c]
        for c in value
    )
    return f'"{escaped}"'
