"""The common style of all figures: colour-blind-safe, legible in print; and saving by file ending."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import ExtraMissing, InputError

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito's palette: distinct under the common colour blindnesses, and by lightness in print.
INK, ORANGE, BLUE, GREEN, GREY = "#222222", "#D55E00", "#0072B2", "#009E73", "#A0A0A0"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"
SERIES = [BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW, INK]  # colours of categories without a fixed colour
LEVEL = 0.95  # level of the intervals in figures, unless the caption says otherwise
REACH = 1.959964  # standard errors from the mean to the ends of a 95% normal interval
ENDINGS = ("png", "svg", "pdf", "html", "json")  # forms that vl-convert and Altair write without a browser


def altair() -> Any:
    """Return the plotting library; the error names the extra that has it."""
    try:
        import altair
    except ImportError as error:
        raise ExtraMissing("altair", "figures") from error
    return altair


def titled(
    chart: alt.Chart, title: str, subtitle: str | list[str] = "", width: int = 520, height: int = 320
) -> alt.Chart:
    """Return `chart` in the common style, with a title and a line on how to read it."""
    return styled(chart.properties(title={"text": title, "subtitle": subtitle}, width=width, height=height))


def shown_name(text: str, most: int = 28) -> str:
    """Return a name that fits beside a mark.

    >>> shown_name("a-model-with-a-name-of-many-words", 12)
    'a-model-wit…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def styled(chart: alt.Chart) -> alt.Chart:
    """Return `chart` in the common style."""
    return (
        chart.configure_view(stroke=None)  # no frame: the grid is enough
        .configure_axis(
            grid=True, gridColor="#ECECEC", domainColor=INK, labelFontSize=12, titleFontSize=13, titleColor=INK
        )
        # below, so that the plot keeps its width
        .configure_legend(labelFontSize=12, titleFontSize=12, symbolSize=80, symbolOpacity=1, orient="bottom")
        .configure_title(fontSize=15, anchor="start", color=INK, subtitleColor="#555555", subtitleFontSize=12)
    )


def save(chart: alt.Chart, path: str | Path) -> None:
    """Write a chart to a file; its ending (png, svg, pdf, html, json) is the format. No browser or network is used.

    Args:
        chart: what any function here returns.
        path: file to write; one that is there is replaced.

    Raises:
        InputError: another ending, or the folder does not exist.
        ExtraMissing: vl-convert-python, which draws without a browser, is not installed.
    """
    target = Path(path)
    ending = target.suffix.lstrip(".").lower()
    if ending not in ENDINGS:
        raise InputError(
            f"figure {str(path)!r} must end in one of {', '.join('.' + e for e in ENDINGS)}, got {target.suffix!r}"
        )
    if not target.resolve().parent.is_dir():  # checked before drawing, which can take seconds
        raise InputError(f"figure {str(path)!r}: the folder {target.resolve().parent} does not exist; create it first")
    try:
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise ExtraMissing("vl-convert-python", "figures") from error
    if ending == "html":
        chart.save(str(target), inline=True)  # Vega's code goes inside: opens without network
    elif ending == "png":
        chart.save(str(target), scale_factor=2)  # twice the pixels: sharp in print
    else:
        chart.save(str(target))
