"""Extension of griffe, the reader of docstrings: doctests become a section of examples on the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^|\n\n)(>>> .*?)(?=\n\n(?!>>> )|\Z)", re.DOTALL)


def with_sections(text: str) -> str:
    """Return a docstring whose unindented doctests are `Examples:` sections of Google's layout."""

    def section(match: re.Match[str]) -> str:
        lines = [f"    {line}" if line else "" for line in match[1].splitlines()]
        return "\n\nExamples:\n" + "\n".join(lines)

    return _DOCTEST.sub(section, text)


class DoctestExamples(griffe.Extension):
    """Rewrites docstrings while they are read; the source stays as it is."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = with_sections(obj.docstring.value)
