"""The JSON Schema of search files, for editors: the same tables that checking walks, said in another language.

An editor that knows the schema completes keys, shows their meaning, and marks most mistakes while one types; what
depends on two keys at once, on files or on models is left to `evomerge check`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evomerge.config._grammar import Anything, Either, Flag, Form, Free, Key, Many, Moment, Number, Section, Text
from evomerge.config._objective_sections import metric_forms
from evomerge.config._sections import search_file_section
from evomerge.merge import CATALOGUE
from evomerge.space import DTYPES, MARKER_KEYS, MERGE_KEYS, MODULES

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def search_file_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a search file; plain data, ready for `json.dumps`."""
    schema = schema_of(search_file_section())
    schema["properties"]["merge"] = {**_merge(), "description": schema["properties"]["merge"]["description"]}
    _objectives(schema["properties"]["objectives"]["items"])
    return {
        "$schema": DIALECT,
        "title": "evomerge search file",
        **schema,
        "$defs": {"marker": _marker(), "value": _value()},
    }


def schema_of(form: Form) -> Schema:
    """Return the schema of one form of the grammar.

    Raises:
        TypeError: the grammar has grown a form that this module does not know.
    """
    if isinstance(form, Section):
        return _section(form)
    if isinstance(form, Text):
        return {"enum": list(form.words)} if form.words else {"type": "string", "minLength": 1}
    if isinstance(form, Number):
        return _number(form)
    if isinstance(form, Flag):
        return {"type": "boolean"}
    if isinstance(form, Moment):
        # YAML 1.1 editors read a bare date as a timestamp; what arrives here is the text
        return {"type": "string", "format": "date-time"}
    if isinstance(form, Many):
        return {"type": "array", "minItems": 1, "items": schema_of(form.entry)}
    if isinstance(form, Anything):
        return {}
    if isinstance(form, Free):
        return {"type": "object"}
    if isinstance(form, Either):
        forms = (form.number, form.text, form.many, form.mapping)
        return {"anyOf": [schema_of(entry) for entry in forms if entry is not None]}
    raise TypeError(f"form of a search file without a schema: {type(form).__name__}; add it to config/_json_schema.py")


def _section(section: Section) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {key.name: _key(key) for key in section.keys},
        "additionalProperties": False,
    }
    if required := [key.name for key in section.keys if key.required]:
        schema["required"] = required
    return schema


def _key(key: Key) -> Schema:
    schema = schema_of(key.form)
    if not key.required:
        schema = _or_null(schema)  # null counts as not given
    schema["description"] = key.about
    if isinstance(key.default, bool | int | float | str):
        schema["default"] = key.default
    return schema


def _or_null(schema: Schema) -> Schema:
    return (
        {"anyOf": [*schema["anyOf"], {"type": "null"}]} if "anyOf" in schema else {"anyOf": [schema, {"type": "null"}]}
    )


def _number(form: Number) -> Schema:
    schema: Schema = {"type": "integer" if form.integer else "number"}
    if form.low > -math.inf:
        schema["exclusiveMinimum" if form.open_low else "minimum"] = form.low
    if form.high < math.inf:
        schema["exclusiveMaximum" if form.open_high else "maximum"] = form.high
    return schema


def _objectives(entry: Schema) -> None:
    """Replace the mappings of the measures, which the grammar reads in a second step, by their own sections."""
    for kind, form in metric_forms().items():
        choices = entry["properties"][kind]["anyOf"]
        entry["properties"][kind]["anyOf"] = [
            schema_of(form) if choice.get("type") == "object" else choice for choice in choices
        ]


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
