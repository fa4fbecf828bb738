"""Figures of gene importance, and of slices of the landscape through a candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.errors import InputError
from evomerge.reports.figures._style import BLUE, GREY, ORANGE, SERIES, altair, styled

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

SHOWN_GENES = 20
SHOWN_SLICES = 9


def importance(frame: pd.DataFrame, title: str = "Gene importance") -> alt.Chart:
    """Return the importance of genes for each objective, from `run.tables.importance()`.

    Bars are the fraction of the fitness variance that the gene explains; their colour says whether larger values are
    better.

    Args:
        frame: gene, objective, share_of_variance (of 1), rank_correlation; further numbers go into the tooltips.
        title: above it.

    Raises:
        InputError: the frame is empty.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> chart = figures.importance(run.tables.importance())
    """
    library = altair()
    if not len(frame):
        raise InputError("the importance frame is empty, so there is nothing to draw")
    # the largest effect on any objective
    order = frame.groupby("gene")["share_of_variance"].max().sort_values(ascending=False).index[:SHOWN_GENES]
    shown = frame[frame["gene"].isin(order)]
    shown = shown.assign(direction=["more is better" if r > 0 else "less is better" for r in shown["rank_correlation"]])
    # blue and orange as in the report
    colours = library.Scale(domain=["more is better", "less is better"], range=[BLUE, ORANGE])
    bars = (
        library.Chart()
        .mark_bar()
        .encode(
            x=library.X("share_of_variance:Q", title="fraction of variance", scale=library.Scale(domainMin=0)),
            y=library.Y("gene:N", sort=list(order), title=None, axis=library.Axis(labelLimit=220)),
            color=library.Color("direction:N", scale=colours, title=None),
            tooltip=["gene", "objective", *(library.Tooltip(f"{c}:Q", format=".3f") for c in _numbers(shown))],
        )
        # all objectives side by side fit a page
        .properties(width=max(130, 460 // frame["objective"].nunique()), height=17 * len(order))
    )
    hidden = frame["gene"].nunique() - len(order)
    subtitle = "within the searched region; correlation, not causation" + (
        f"; {hidden} less important genes omitted" if hidden else ""
    )
    chart = library.layer(bars, data=shown).facet(column=library.Column("objective:N", title=None))
    return styled(chart.properties(title={"text": title, "subtitle": subtitle}))


def landscape(
    frame: pd.DataFrame, title: str = "Landscape through a candidate", genes: Sequence[str] = ()
) -> alt.Chart:
    """Return slices: the predicted score if one gene moved and the others stayed; of `run.tables.landscape()`.

    Bands are 90% intervals of the prediction. Where no candidate was as far out, the line is dotted with grey.

    Args:
        frame: kind (slice is drawn), line (gene), position in [0, 1], objective, score, low, high (metric's units),
            extrapolates.
        title: above it.
        genes: which; none: those along which the prediction changes most.

    Raises:
        InputError: an unknown gene, or no slice at all.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> chart = figures.landscape(run.tables.landscape("best", steps=5))
    """
    library = altair()
    slices = frame[frame["kind"] == "slice"]
    # range of the prediction along each gene
    spans = slices.groupby(["line", "objective"])["score"].agg(lambda values: values.max() - values.min())
    order = list(genes) or list(spans.groupby("line").max().sort_values(ascending=False).index[:SHOWN_SLICES])
    # a wrong name would give an empty figure
    if unknown := [gene for gene in order if gene not in set(slices["line"])]:
        raise InputError(f"the landscape has no gene {unknown[0]!r}; it has {', '.join(sorted(set(slices['line'])))}")
    shown = slices[slices["line"].isin(order)]
    # the data comes with the layer: facets need one source
    base = library.Chart().encode(x=library.X("position:Q", title="gene, low to high"))
    if not len(slices):
        raise InputError("the landscape frame has no slice, so there is nothing to draw")
    colour = library.Color("objective:N", scale=library.Scale(range=SERIES), title=None)
    around = base.mark_area(opacity=0.14).encode(
        y=library.Y("low:Q", scale=library.Scale(zero=False)), y2="high:Q", color=colour
    )
    line = base.mark_line(strokeWidth=2).encode(y=library.Y("score:Q", title="predicted score"), color=colour)
    far = (
        base.transform_filter("datum.extrapolates")
        .mark_point(size=14, color=GREY, filled=True, opacity=1)  # dots over the line where it extrapolates
        .encode(y="score:Q", detail="objective:N")
    )
    facet = library.Facet("line:N", sort=order, title=None)
    chart = library.layer(around, line, far, data=shown).properties(width=170, height=120).facet(facet, columns=3)
    subtitle = "bands: 90% intervals; grey dots: extrapolation, unreliable"
    return styled(chart.properties(title={"text": title, "subtitle": subtitle}))


def _numbers(frame: pd.DataFrame) -> list[str]:
    return [name for name in ("share_of_variance", "rank_correlation", "alone", "involved") if name in frame]
