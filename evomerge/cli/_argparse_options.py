"""Options of the command line, derived from the fields of the option dataclasses of `evomerge.commands`."""

from __future__ import annotations

import argparse
import dataclasses
import types
from collections.abc import Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints


def add_options(parser: argparse.ArgumentParser, options: type) -> None:
    """Add one `--kebab-case` option for each field of a dataclass that has a help text.

    The field's type says how the value is read: bool is a flag, a sequence may be given several times.
    """
    types_of = get_type_hints(options)
    groups: dict[str, Any] = {}
    for part in _with_help(options):
        about = part.metadata
        target: Any = parser
        if about["group"] is not None:
            target = groups.setdefault(about["group"], None) or parser.add_argument_group(about["group"])
            groups[about["group"]] = target
        kind = _value_type(types_of[part.name])
        settings: dict[str, Any] = {"help": about["help"]}
        if kind is bool:
            settings |= {"action": "store_true"}
        elif get_origin(kind) is Sequence:
            settings |= {"action": "append", "metavar": about["metavar"]}
        else:
            settings |= {"type": kind, "metavar": about["metavar"]}
        target.add_argument(f"--{part.name.replace('_', '-')}", **settings)


def given(arguments: argparse.Namespace, options: type) -> dict[str, Any]:
    """Return the options of a dataclass that were given, by field name; the others keep the field's default."""
    values = {part.name: getattr(arguments, part.name) for part in _with_help(options)}
    return {name: value for name, value in values.items() if value is not None}


def _with_help(options: type) -> list[dataclasses.Field[Any]]:
    return [part for part in dataclasses.fields(options) if "help" in part.metadata]


def _value_type(annotation: Any) -> Any:
    """Return the type of a value that may be None: `int` of `int | None`, `str` of `str | PathLike | None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation
