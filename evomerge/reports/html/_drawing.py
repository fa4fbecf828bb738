"""Small drawings as SVG, themed by the page's style sheet: scales, axes, and a frame around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge._markup import Html, element, number


@dataclass(frozen=True)
class Scale:
    """A straight line from values to pixels."""

    low: float
    high: float
    start: float  # pixel of `low`
    end: float  # pixel of `high`

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        span = self.high - self.low
        fraction = (value - self.low) / span if span else 0.5  # equal values: the middle, without dividing by zero
        return self.start + fraction * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return about `count` round values inside the scale, ascending."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        rough = span / count
        power = 10 ** math.floor(math.log10(rough))
        # 0.999: rounding must not skip a fitting step
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)  # an end that is a tick itself keeps its tick
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def scale_of(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Scale:
    """Return the scale that holds all finite `values` with a margin (a fraction of their range)."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]  # an empty plot still has axes
    low, high = min(finite), max(finite)
    room = (high - low) * margin or max(abs(high), 1.0) * margin  # a single value still gets a range around it
    return Scale(low - room, high + room, start, end)


@dataclass(frozen=True)
class Plot:
    """A drawing with two axes: where things are, and what stands around them."""

    width: int
    height: int
    x: Scale
    y: Scale

    def drawn(
        self, label: str, x_title: str, y_title: str, *marks: Html, percent: bool = False, both: bool = False
    ) -> Html:
        """Return the drawing with its axes.

        Args:
            label: description for screen readers.
            x_title: below the horizontal axis.
            y_title: above the vertical axis.
            marks: what is drawn, in order.
            percent: label the vertical axis in points of 100.
            both: the horizontal axis likewise.
        """
        size = {"viewBox": f"0 0 {self.width} {self.height}", "role": "img", "aria-label": label, "class": "plot"}
        return element("svg", size, *self._grid(percent, both), *marks, *self._titles(x_title, y_title))

    def _grid(self, percent: bool, both: bool) -> list[Html]:
        left, right = self.x.start, self.x.end
        bottom = self.y.start  # SVG's y axis points down: the lowest value has the largest pixel
        parts = []
        for value in self.y.ticks():
            y = self.y(value)
            parts.append(element("line", {"x1": left, "x2": right, "y1": y, "y2": y, "class": "grid"}))
            shown = number(100 * value if percent else value, 3)
            parts.append(element("text", {"x": left - 8, "y": y + 4, "class": "tick", "text-anchor": "end"}, shown))
        for value in self.x.ticks(6):
            attributes = {"x": self.x(value), "y": bottom + 18, "class": "tick", "text-anchor": "middle"}
            parts.append(element("text", attributes, number(100 * value if percent and both else value, 3)))
        return parts

    def _titles(self, x_title: str, y_title: str) -> list[Html]:
        return [
            element("text", {"x": self.x.end, "y": self.height - 4, "class": "title", "text-anchor": "end"}, x_title),
            element("text", {"x": 4, "y": 13, "class": "title"}, y_title),
        ]


def steps(points: Sequence[tuple[float, float]], end: float) -> str:
    """Return the path of a line that stays at each value until the next point, and runs on to `end`."""
    parts = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for x, y in points[1:]:
        parts.append(f"H{number(x)}V{number(y)}")
    return "".join(parts) + f"H{number(end)}"  # the last value holds until the end


def band(points: Sequence[tuple[float, float, float]], end: float) -> str:
    """Return the closed path between two step lines (x, lower y, upper y)."""
    above = steps([(x, high) for x, _, high in points], end)
    back = [f"V{number(points[-1][1])}"]  # the lower edge, drawn from right to left
    for (x, _, _), (_, low, _) in zip(reversed(points), [*reversed(points[:-1]), points[0]], strict=True):
        back.append(f"H{number(x)}V{number(low)}")
    return above + "".join(back) + "Z"


def diamond(x: float, y: float, reach: float = 6.5) -> str:
    """Return the path of a diamond around a point."""
    side = number(reach)
    return f"M{number(x)} {number(y - reach)}l{side} {side}l-{side} {side}l-{side} -{side}z"


def spread(heights: Sequence[float], apart: float) -> list[float]:
    """Return heights moved down by the least that keeps labels `apart`; in the given order.

    >>> spread([10.0, 11.0, 50.0], 8)
    [10.0, 18.0, 50.0]
    """
    placed = dict[int, float]()  # label -> height
    last = -math.inf
    # from the top down, so that each label moves once
    for index in sorted(range(len(heights)), key=lambda i: heights[i]):
        last = max(heights[index], last + apart)
        placed[index] = last
    return [placed[index] for index in range(len(heights))]


def figure(title: str, drawn: Html, note: str, label: str) -> Html:
    """Return a drawing under its title and above its note; `label` names it for screen readers."""
    heading = element("h3", {}, title) if title else None
    return element("figure", {}, heading, scrolling(drawn, label), element("figcaption", {}, note))


def scrolling(content: Html, label: str) -> Html:
    """Return content that scrolls sideways on narrow screens, with the keyboard too."""
    # tabindex: keyboards scroll only what has the focus
    return element("div", {"class": "scroll", "tabindex": 0, "role": "region", "aria-label": label}, content)
