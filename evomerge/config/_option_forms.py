"""The forms of options that registered controllers and metrics describe as dataclasses."""

from __future__ import annotations

import math

from evomerge.config._grammar import Anything, Flag, Form, Key, Number, Section, Text
from evomerge.option_fields import Option, options_of


def option_section(options: type) -> Section:
    """Return the section whose keys are the fields of an options dataclass; a field without a default is required."""
    known = options_of(options).values()
    keys = tuple(Key(one.name, option_form(one), one.help, one.default, required=one.required) for one in known)
    return Section(keys, f"{{{', '.join(f'{one.name}: ...' for one in known)}}}")


def option_form(option: Option) -> Form:
    """Return the form of an option in a file."""
    if option.kind in (int, float):
        low, high = option.ge if option.gt is None else option.gt, option.le if option.lt is None else option.lt
        return Number(
            -math.inf if low is None else low,
            math.inf if high is None else high,
            integer=option.kind is int,
            open_low=option.gt is not None,
            open_high=option.lt is not None,
        )
    if option.kind is bool:
        return Flag()
    return Text(option.choices, what="name") if option.kind is str else Anything()
