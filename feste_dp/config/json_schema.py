"""The JSON Schema of a config file, for editors. It knows what a key takes, not the rules between keys."""

from typing import Any

from feste_dp.config.dumping import sentence
from feste_dp.config.expectations import expected_value
from feste_dp.config.schema import Config, sections

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest that all editors know; nothing newer is used."""


def json_schema() -> dict[str, Any]:
    """Of a file: every section may be left out, or be empty where all its keys are commented out."""
    made = Config.model_json_schema()
    definitions = made["$defs"]
    properties: dict[str, Any] = {}
    for name, section in sections().items():
        keys = definitions[section.__name__]["properties"]
        for key, info in section.model_fields.items():
            for unwanted in ("title", "expected"):
                keys[key].pop(unwanted, None)
            keys[key]["description"] = f"{sentence(info)} Takes {expected_value(info)}."
        about = definitions[section.__name__].get("description", "")
        properties[name] = {
            "description": about,
            "anyOf": [
                {"type": "object", "properties": keys, "additionalProperties": False},
                {"type": "null"},
            ],
        }
    return {
        "$schema": DIALECT,
        "title": "Config of feste-dp",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
