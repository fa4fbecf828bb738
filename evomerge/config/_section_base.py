"""Sections of YAML files as frozen pydantic models, whose mistakes are reported all at once, in words and with places.

A model's JSON Schema is the one source of these words: messages, the reference page and editors read the same nodes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema, core_schema

from evomerge.errors import near
from evomerge.option_fields import Option
from evomerge.space import Place, Problem

Schema = dict[str, Any]
# The alternatives of a union, told apart by the type of the value: pydantic puts these tags into an error's location.
NUMBER, TEXT, LIST, MAPPING = "<number>", "<text>", "<list>", "<mapping>"
_TYPES = {NUMBER: "number", TEXT: "string", LIST: "array", MAPPING: "object"}
_Model = TypeVar("_Model", bound="Section")


@dataclass(frozen=True)
class Context:
    """What validators know of the file that they read."""

    folder: str = "."  # relative paths are relative to it
    places: Mapping[int, Place] = field(default_factory=dict)  # id() of each mapping of the document -> its place
    problems: list[Problem] = field(default_factory=list)  # grows while the document is read
    # section -> its keys as written, wrong values included, for rules about what the values name
    written: dict[type, Mapping[str, Any]] = field(default_factory=dict)


class Mistakes(ValueError):
    """Everything that is wrong with one section; places are relative to it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class Section(BaseModel):
    """A mapping with known keys; null counts as not given.

    A section of a document is always returned, without the values that are wrong, so that the rules of the sections
    around it are checked in the same pass; what is wrong is in `Context.problems`. A section that is built in Python
    raises `ValidationError`.
    """

    # strict: 'yes' is no bool and '3' no number; pydantic would reserve names that begin with model_
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), populate_by_name=True
    )

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield what is wrong between the keys; those in `wrong` were given, and have their defaults here."""
        return iter(())

    @model_validator(mode="wrap")
    @classmethod
    def _collect(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        if not isinstance(value, Mapping):
            return handler(value)
        given = {key: entry for key, entry in value.items() if entry is not None}
        context = info.context or Context()
        context.written[cls] = given
        problems, wrong = list[Problem](), set[str]()
        try:
            section = handler(given)
        except ValidationError as error:
            schema = json_schema(cls)
            problems += [found for one in error.errors(include_url=False) for found in _problems(schema, dict(one))]
            wrong = {str(one["loc"][0]) for one in error.errors(include_url=False)}
            section = handler({key: entry for key, entry in given.items() if key not in wrong})
        for name, one in cls.model_fields.items():
            key = one.alias or name
            if is_required(one.json_schema_extra) and key not in given:
                problems.append(Problem((), f"{key} is missing: {one.description}"))
        problems += section.rules(wrong, context)
        place = context.places.get(id(value))
        if problems and place is None:
            raise Mistakes(problems)
        context.problems.extend(Problem((*(place or ()), *one.place), one.message) for one in problems)
        return section


# -- values ---------------------------------------------------------------------------------------------------------


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 12.0 is a whole number


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return None  # a subclass of int
    kinds = ((int | float, NUMBER), (str, TEXT), (list | tuple, LIST), (Mapping | BaseModel, MAPPING))
    return next((tag for type, tag in kinds if isinstance(value, type)), None)


def _moment(value: str) -> str:
    if wrong := wrong_moment(value):
        raise ValueError(wrong)
    return value


def wrong_moment(value: Any) -> str:
    """Return what is wrong with a point in time, or ''."""
    example = "as in 2030-06-01T18:00:00+02:00 or 2030-06-01T16:00:00Z"
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))  # Python 3.10 does not know the Z
    except ValueError:
        return f"must be a date and time, {example}, got {value!r}"
    # a machine's own time zone is not known to the other machines of a search
    return "" if moment.tzinfo is not None else f"must say its offset from UTC, {example}, got {value!r}"


def absolute(path: str, folder: str) -> str:
    """Return a path as written in a file of `folder` as an absolute one."""
    return os.path.normpath(os.path.join(folder, os.path.expanduser(path)))


def existing(what: str, exists: Callable[[str], bool]) -> AfterValidator:
    """Return a validator that makes a path absolute and refuses one that does not exist."""

    def validate(path: str, info: ValidationInfo) -> str:
        found = absolute(path, (info.context or Context()).folder)
        if not exists(found):
            raise ValueError(f"no such {what}: {found}; relative paths are relative to this file")
        return found

    return AfterValidator(validate)


@dataclass(frozen=True)
class OneOf:
    """Annotates a text of which only some words are allowed, as a Literal made from a table."""

    words: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.literal_schema(list(self.words))


Whole = Annotated[int, BeforeValidator(_whole)]
Text = Annotated[str, Field(min_length=1)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}), BeforeValidator(str), AfterValidator(_moment)]
File = Annotated[str, Field(min_length=1, title="file"), existing("file", os.path.isfile)]
Folder = Annotated[str, Field(min_length=1, title="folder"), existing("folder", os.path.isdir)]
TaskName = Annotated[str, Field(min_length=1, title="task")]
ByType = Discriminator(_kind, custom_error_type="kind", custom_error_message="of no known type")
# YAML gives lists, which are kept as tuples
AtLeastOne = Field(min_length=1, strict=False)


def setting(default: Any, description: str, title: str | None = None, **more: Any) -> Any:
    """Return a key with its default and meaning; `title` names a text in messages, as in "unknown goal"."""
    return Field(default, description=description, title=title, **more)


def required(description: str, title: str | None = None, **more: Any) -> Any:
    """Return a key that must be given; its default stands only in a section that has mistakes."""
    return setting(None, description, title, json_schema_extra={"required": True}, **more)


def shown(**example: Any) -> ConfigDict:
    """Return the configuration of a section that has this example."""
    return ConfigDict(json_schema_extra={"examples": [example]})


def is_required(extra: Any) -> bool:
    """Return whether `json_schema_extra` is that of a required key."""
    return isinstance(extra, Mapping) and bool(extra.get("required"))


def option_type(option: Option) -> Any:
    """Return the type of an option of a controller or metric."""
    bounds = {name: getattr(option, name) for name in ("ge", "gt", "le", "lt")}
    if option.kind in (int, float):
        return Annotated[Whole if option.kind is int else float, Field(**bounds)]
    if option.kind is str:
        return Annotated[str, OneOf(option.choices)] if option.choices else Text
    return bool if option.kind is bool else Any


# -- words ----------------------------------------------------------------------------------------------------------


def json_schema(model: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a model: without references, and with null wherever a key is not required."""
    schema = model.model_json_schema(schema_generator=_InOrder)
    inlined: Schema = _inlined({"$ref": "/self"}, {**schema.pop("$defs", {}), "self": schema})
    return inlined


class _InOrder(GenerateJsonSchema):
    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value  # examples are shown with their keys as they were written


def _inlined(node: Any, definitions: Mapping[str, Schema]) -> Any:
    if isinstance(node, list):
        return [_inlined(entry, definitions) for entry in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        # title and description of a definition are the Python class's
        node = {
            key: value
            for key, value in {**target, "title": None, "description": None, **node}.items()
            if value is not None
        }
    node = {_KEYWORDS.get(key, key): value for key, value in node.items() if key not in ("discriminator", "$ref")}
    values = {key: value if key in _DATA else _inlined(value, definitions) for key, value in node.items()}
    if "properties" in node:
        needed = [name for name, entry in node["properties"].items() if entry.get("required") is True]
        values["properties"] = {name: _property(entry, name in needed) for name, entry in values["properties"].items()}
        values |= {"required": needed} if needed else {}
    return values


# pydantic leaves bounds behind a validator in its own words
_KEYWORDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "oneOf": "anyOf"}
_DATA = ("default", "examples", "enum", "const", "required")


def _property(node: Schema, needed: bool) -> Schema:
    if node.get("title", "")[:1].isupper() and node["title"] != "URL":
        node.pop("title")  # pydantic's own, made from the key
    if not isinstance(node.get("default"), bool | int | float | str):
        node.pop("default", None)
    if needed:
        node.pop("required")
    outer: Schema = {key: node.pop(key) for key in ("title", "description", "default", "examples") if key in node}
    nested = [inner for one in node.pop("anyOf", [node]) for inner in one.get("anyOf", [one])]
    choices = [one for one in nested if one != {"type": "null"}]
    if not needed and choices != [{}]:
        return {"anyOf": [*choices, {"type": "null"}], **outer}
    return {**(choices[0] if len(choices) == 1 else {"anyOf": choices}), **outer}


def bare(node: Schema) -> Schema:
    """Return a node without its null."""
    choices = [one for one in node.get("anyOf", ()) if one != {"type": "null"}]
    if not choices:
        return node
    outer = {key: value for key, value in node.items() if key != "anyOf"}
    return {**outer, **choices[0]} if len(choices) == 1 else {**outer, "anyOf": choices}


def form(node: Schema) -> str:
    """Return what a value must look like, in a few words.

    >>> form({"type": "integer", "minimum": 2})
    'whole number of at least 2'
    """
    node = bare(node)
    if "enum" in node or "const" in node:
        return "one of " + ", ".join(f"`{word}`" for word in node.get("enum", [node.get("const")]))
    if "anyOf" in node:
        return str(node["title"])
    kind = node.get("type")
    if kind in ("integer", "number"):
        low = f"of at least {node['minimum']:g}" if "minimum" in node else ""
        low = f"above {node['exclusiveMinimum']:g}" if "exclusiveMinimum" in node else low
        high = f"of at most {node['maximum']:g}" if "maximum" in node else ""
        high = f"below {node['exclusiveMaximum']:g}" if "exclusiveMaximum" in node else high
        noun = "whole number" if kind == "integer" else "number"
        return " ".join([noun, " and ".join(part for part in (low, high) if part)]).strip()
    if kind == "array":
        return f"list of {form(node['items'])}"
    if kind == "string":
        return "date and time with offset" if node.get("format") == "date-time" else node.get("title", "name")
    return {"boolean": "true or false", "object": "mapping"}.get(str(kind), "anything")


def example(node: Schema) -> str:
    """Return the example of a node as YAML in one line."""
    value = bare(node).get("examples", [{}])[0]
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000, allow_unicode=True).strip()


def _problems(schema: Schema, error: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what one error of pydantic says, in words, with places relative to the model."""
    place = tuple(step for step in error["loc"] if step not in _TYPES)
    cause = error.get("ctx", {}).get("error")
    if error["type"] == "too_short" and error["input"]:
        return  # pydantic counts the good entries alone, and the bad ones have errors of their own
    if isinstance(cause, Mistakes):
        yield from (Problem((*place, *problem.place), problem.message) for problem in cause.problems)
    elif error["type"] == "value_error":
        yield Problem(place, str(cause))
    elif error["type"] == "extra_forbidden":
        yield Problem(place, f"unknown key. {near(place[-1], list(schema['properties']))}")
    else:
        yield Problem(place, _wrong(_node(schema, error["loc"]), error["input"]))


def _node(schema: Schema, location: Place) -> Schema:
    node = schema
    for step in location:
        inner = bare(node)
        if step in _TYPES:
            named = [one for one in inner.get("anyOf", [inner]) if one.get("type") in (_TYPES[step], "integer")]
            node = {"title": inner.get("title"), **named[0]}
        elif isinstance(step, int):
            node = {"title": inner.get("title"), **inner["items"]}
        else:
            node = inner["properties"][step] if step in inner.get("properties", ()) else inner["additionalProperties"]
    return bare(node)


def _wrong(node: Schema, value: Any) -> str:
    """Return what is wrong with a value that does not fit a node."""
    what, words = node.get("title") or "name", node.get("enum", [node["const"]] if "const" in node else None)
    if words and isinstance(value, str) and value:
        return f"unknown {what} {value!r}. {near(value, words)}"
    if words or node.get("type") == "string":
        return f"must be a {what}, got {value!r}"
    if "anyOf" in node:
        return f"must be {what}, got {value!r}"
    if node.get("type") == "array":
        return f"must be a list of at least one entry, as in {example(node)}, got {value!r}"
    if node.get("type") == "object":
        return f"must be a mapping, as in {example(node)}, got {value!r}"
    return f"must be {'' if node.get('type') == 'boolean' else 'a '}{form(node)}, got {value!r}"


def places_of(node: Any, place: Place = ()) -> dict[int, Place]:
    """Return id() of every mapping in a document -> its place; the document must outlive the answer."""
    found = {id(node): place} if isinstance(node, Mapping) else {}
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for step, child in children:
        found |= places_of(child, (*place, step))
    return found


def read_section(model: type[_Model], document: Mapping[str, Any], folder: str, problems: list[Problem]) -> _Model:
    """Return the section that a document holds; what is wrong with it is appended to `problems`."""
    return model.model_validate(document, context=Context(folder, places_of(document), problems))
