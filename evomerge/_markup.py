"""HTML and SVG as text, escaped by construction: everything that is not `Html` is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_VOID = {"meta", "link", "input", "br", "hr", "img"}  # elements without an end tag
_LEFT = "text-align: left; vertical-align: top"
Attributes = Mapping[str, object]


class Html(str):
    """Markup that needs no escaping. Only `element`, `joined` and literals of this package make it."""

    __slots__ = ()


def element(name: str, attributes: Attributes | None = None, *children: object) -> Html:
    """Return one HTML or SVG element.

    Args:
        name: of the element.
        attributes: True gives an attribute without a value; None and False leave it out; numbers are written short.
        children: `Html` stands as it is, anything else is escaped; None is left out.

    >>> element("b", {"title": 'say "x"'}, "<script>")
    '<b title="say &quot;x&quot;">&lt;script&gt;</b>'
    """
    text = "".join(_attribute(key, value) for key, value in (attributes or {}).items())
    if name in _VOID:
        return Html(f"<{name}{text}>")
    return Html(f"<{name}{text}>{joined(children)}</{name}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Return parts as one piece of markup; those that are not `Html` are escaped, None is left out."""
    return Html(between.join(_text(part) for part in parts if part is not None))


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: object = None,
    numeric: Iterable[int] = (),
    attributes: Attributes | None = None,
) -> Html:
    """Return a table with column headers; the first cell of a row is its header, as screen readers want it.

    Args:
        head: column titles.
        rows: cells.
        caption: what the table is.
        numeric: columns that hold numbers; their cells have the class 'n'.
        attributes: of the table.
    """
    right = set(numeric)

    def kind(position: int) -> Attributes:
        return {"class": "n"} if position in right else {}

    titles = [element("th", {"scope": "col", **kind(i)}, cell) for i, cell in enumerate(head)]
    body = [
        element(
            "tr",
            {},
            *(
                element("th" if i == 0 else "td", {**({"scope": "row"} if i == 0 else {}), **kind(i)}, cell)
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    return element(
        "table",
        attributes,
        element("caption", {}, caption) if caption is not None else None,
        element("thead", {}, element("tr", {}, *titles)),
        element("tbody", {}, *body),
    )


def tree(node: Any) -> Html:
    """Return plain data (mappings, lists, scalars) as nested tables; a list of numbers as a strip of bars beside it."""
    if isinstance(node, Mapping):
        rows = [
            element(
                "tr",
                {},
                element("th", {"scope": "row", "style": _LEFT}, key),
                element("td", {"style": _LEFT}, tree(value)),
            )
            for key, value in node.items()
        ]
        return element("table", {}, *rows)
    if isinstance(node, Sequence) and not isinstance(node, str):
        if node and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in node):
            return joined([strip(node), " ", ", ".join(f"{value:.3g}" for value in node)])
        return joined([tree(value) for value in node], Html(" ")) if node else Html("")
    return joined([f"{node:.6g}" if isinstance(node, float) else node])


def strip(values: Sequence[float], width: int = 80, height: int = 16) -> Html:
    """Return numbers as a row of bars on one scale from 0 (or the lowest) to the highest, without any script."""
    low, high = min(0.0, *values), max(0.0, *values)  # 0 is on the scale, so that bars can be compared
    span, step = (high - low) or 1.0, width / len(values)  # all zeros: no bar, and no division by zero
    bars = [
        element(
            "rect",
            {
                "x": i * step,
                "y": height * (high - max(value, 0.0)) / span,
                "width": max(step - 1, 1.0),
                "height": max(height * abs(value) / span, 0.5),
                "fill": "currentColor",
                "fill-opacity": 0.55,
            },
        )
        for i, value in enumerate(values)
    ]
    label = ", ".join(f"{value:.3g}" for value in values)
    size = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    return element("svg", {**size, "role": "img", "aria-label": label}, *bars)


def number(value: float, digits: int = 2) -> str:
    """Return a coordinate as short text.

    >>> number(3.0), number(0.12345), number(-0.001)
    ('3', '0.12', '0')
    """
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"
    return "0" if text in ("-0", "") else text  # -0.001 rounds to '-0'


def _attribute(key: str, value: object) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {key}"
    return f' {key}="{escape(number(value) if isinstance(value, float) else str(value))}"'


def _text(part: object) -> str:
    return part if isinstance(part, Html) else escape(str(part), quote=False)
