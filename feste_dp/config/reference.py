"""docs/config.md, made from the schema: python -m feste_dp.config.reference >docs/config.md"""

from collections.abc import Iterator

from feste_dp.config.changes import in_a_resume
from feste_dp.config.dumping import sentence, written
from feste_dp.config.expectations import expected_value
from feste_dp.config.schema import Config, Section

HEAD = """\
# Every key of a config

Made from `feste_dp/config/schema.py` by `python -m feste_dp.config.reference >docs/config.md`. The configs
that come with feste-dp, and the commands around configs, are in [presets.md](presets.md).

A config is YAML, sections and keys; each may be left out. The last column says what a resume makes of another
value: **kept** is refused, **asked** is taken where `--set` gives it and changes what comes after, **free**
changes no weight and no figure.
"""


def reference_page() -> str:
    """Markdown: a table for each section."""
    return "\n".join([HEAD, *(line for name, section in Config() for line in _section(name, section))])


def _section(name: str, section: Section) -> Iterator[str]:
    model = type(section)
    yield f"## {name}\n"
    yield f"{model.__doc__}\n"
    yield "| key | default | takes | what it is | resume |"
    yield "|---|---|---|---|---|"
    for key, info in model.model_fields.items():
        cells = (
            f"`{name}.{key}`",
            f"`{written(getattr(section, key))}`",
            expected_value(info),
            sentence(info),
            in_a_resume(f"{name}.{key}"),
        )
        escaped = " | ".join(cell.replace("|", "\\|") for cell in cells)
        yield f"| {escaped} |"
    yield ""


if __name__ == "__main__":
    print(reference_page(), end="")
