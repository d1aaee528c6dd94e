"""docs/config.md and the JSON Schema say what the schema says."""

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from feste_dp.config.changes import EXPLICIT, FREE, FROZEN
from feste_dp.config.dumping import dump_config, yaml_to_edit
from feste_dp.config.json_schema import json_schema
from feste_dp.config.loading import load_config
from feste_dp.config.presets import preset_names, preset_path
from feste_dp.config.reference import reference_page
from feste_dp.config.schema import Config, known_keys, sections

PAGE = Path(__file__).parents[2] / "docs/config.md"


def test_the_page_of_all_keys_is_current():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), (
        "write it anew: python -m feste_dp.config.reference >docs/config.md"
    )


def test_the_page_has_a_row_for_each_key():
    rows = {row.split("|")[1].strip(" `"): row for row in reference_page().splitlines() if "| `" in row}
    assert tuple(rows) == known_keys()
    assert all(row.replace(r"\|", "").count("|") == 6 for row in rows.values())
    for word, keys in (("kept", FROZEN), ("asked", EXPLICIT), ("free", FREE)):
        assert {key for key, row in rows.items() if row.endswith(f"| {word} |")} == keys


def test_the_json_schema_has_each_key_with_its_sentence_and_its_default():
    found = json_schema()["properties"]
    assert list(found) == list(sections()) and "$ref" not in str(found)
    for name, section in sections().items():
        keys = found[name]["anyOf"][0]["properties"]
        assert list(keys) == list(section.model_fields)
        for key, info in section.model_fields.items():
            assert keys[key]["description"].startswith(info.description), f"{name}.{key}"
            assert keys[key].get("default") == info.get_default() or "default" not in keys[key]


def plain(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


@pytest.fixture
def complaints():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return lambda text: [
        error.message for error in jsonschema.Draft7Validator(schema).iter_errors(plain(text))
    ]


def test_an_editor_has_nothing_to_say_of_a_good_config(complaints):
    for name in preset_names():
        assert complaints(preset_path(name).read_text()) == []
        assert complaints(dump_config(load_config(name))) == []
    assert complaints(yaml_to_edit(Config(), [])) == []  # all its sections are empty
    assert complaints("run: {trackers: jsonl, wandb_tags: [a, b], pin: [0, 1]}\noptim: {lr: 3e-4}") == []


@pytest.mark.parametrize(
    "text",
    [
        "trian: {}",
        "train: {step: 3}",
        "train: {steps: 0}",
        "train: {steps: many}",
        "train: {precision: fp16}",
        "model: {dropout: 1}",
        "run: {trackers: printer}",
        "run: {name: ../x}",
        "data: {corpus: []}",
        "- train",
    ],
)
def test_an_editor_marks_a_bad_config(complaints, text: str):
    assert complaints(text)
