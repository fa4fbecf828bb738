"""The JSON Schema of search files, for editors: written from the pydantic models that check them.

An editor that knows the schema completes keys, shows their meaning, and marks most mistakes while one types; what
depends on two keys at once, on files or on models is left to `evomerge check`.
"""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.config._section_base import Schema, json_schema
from evomerge.config._sections import search_file_model
from evomerge.merge import CATALOGUE
from evomerge.space import DTYPES, MARKER_KEYS, MERGE_KEYS, MODULES

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def search_file_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a search file; plain data, ready for `json.dumps`."""
    schema = json_schema(search_file_model())
    schema["properties"]["merge"] = {**_merge(), "description": schema["properties"]["merge"]["description"]}
    return {
        "$schema": DIALECT,
        "title": "evomerge search file",
        **schema,
        "$defs": {"marker": _marker(), "value": _value()},
    }


def _merge() -> Schema:
    # a model is a name, or mergekit's mapping of a model and a LoRA
    name: Schema = {"anyOf": [{"type": "string", "minLength": 1}, {"type": "object", "required": ["model"]}]}
    parameters: Schema = {"type": "object", "additionalProperties": {"$ref": "#/$defs/value"}}
    model: Schema = {
        "type": "object",
        "properties": {"model": name, "parameters": parameters},
        "required": ["model"],
        "additionalProperties": False,
    }
    properties: Mapping[str, Schema] = {
        "merge_method": {"anyOf": [{"enum": list(CATALOGUE)}, {"$ref": "#/$defs/marker"}]},
        "models": {"type": "array", "minItems": 1, "items": model},
        "slices": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["sources"]}},
        "parameters": parameters,
        "dtype": {"anyOf": [{"enum": list(DTYPES)}, {"$ref": "#/$defs/marker"}]},
        "out_dtype": {"enum": list(DTYPES)},
        "mask_seed": {"type": "integer", "minimum": 0},
        "tokenizer": {"type": "object"},
        "base_model": name,
    }
    return {
        "type": "object",
        "properties": {
            key: {**properties.get(key, {"type": "string"}), "description": about} for key, about in MERGE_KEYS.items()
        },
        "required": ["merge_method"],
        "oneOf": [{"required": ["models"]}, {"required": ["slices"]}],
        "additionalProperties": False,
    }


def _marker() -> Schema:
    axis: Schema = {
        "anyOf": [
            {"enum": ["model", "layer"]},
            *(
                {
                    "type": "object",
                    "properties": {name: {"type": "integer", "minimum": 1}},
                    "required": [name],
                    "additionalProperties": False,
                }
                for name in ("blocks", "knots")
            ),
            *(
                {
                    "type": "object",
                    "properties": {name: {"type": "array", "minItems": 1, "items": items}},
                    "required": [name],
                    "additionalProperties": False,
                }
                for name, items in (("modules", {"enum": list(MODULES)}), ("filters", {"type": "string"}))
            ),
        ]
    }
    scalar: Schema = {"type": ["number", "string", "boolean"]}
    forms: Mapping[str, Schema] = {
        "search": {
            "anyOf": [
                {"type": "array", "minItems": 1, "items": scalar},
                {
                    "type": "object",
                    "properties": {"choices": {"type": "array", "minItems": 1}},
                    "required": ["choices"],
                },
            ]
        },
        "per": {"anyOf": [axis, {"type": "array", "minItems": 1, "items": axis}]},
        "scale": {"enum": ["log", "linear"]},
        "integer": {"type": "boolean"},
        "start": scalar,
    }
    return {
        "type": "object",
        "properties": {name: {**forms[name], "description": about} for name, about in MARKER_KEYS.items()},
        "required": ["search"],
        "additionalProperties": False,
    }


def _value() -> Schema:
    """Return the schema of a parameter's value: a scalar, a marker, or a list over depth or with filters."""
    scalar: Schema = {"type": ["number", "string", "boolean"]}
    marker: Schema = {"$ref": "#/$defs/marker"}
    filtered: Schema = {
        "type": "object",
        "properties": {"filter": {"type": ["string", "null"]}, "value": {"$ref": "#/$defs/value"}},
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"anyOf": [scalar, marker, {"type": "array", "minItems": 1, "items": {"anyOf": [scalar, marker, filtered]}}]}
