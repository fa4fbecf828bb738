"""Gene importance: the fraction of each objective's variance that a gene explains, and in which direction."""

from __future__ import annotations

import math

from evomerge._markup import Html, element, joined, table
from evomerge.reports.html._drawing import scrolling
from evomerge.reports.html._findings import Findings
from evomerge.reports.html._section_slices import slices

SHOWN_GENES = 12
LEAST_CANDIDATES = 20  # for fewer candidates the fractions of variance are noise
BAR, BAR_HEIGHT = 110, 22


def genes(findings: Findings) -> Html:
    """Return the genes that mattered most, with a bar per objective."""
    if len(findings.history) < LEAST_CANDIDATES:
        text = f"With fewer than {LEAST_CANDIDATES} scored candidates gene importance is not estimated."
        return element("p", {}, text)
    frame = findings.run.tables.importance()
    # a gene's rank is its largest effect on any objective
    most = frame.groupby("gene", sort=False)["share_of_variance"].max().sort_values(ascending=False)
    top = float(most.max())  # bars are relative to the longest one
    if not math.isfinite(top) or top <= 0:  # NaN: the fitness does not vary at all
        return element("p", {}, "No single gene explains a difference between candidates.")
    cells = {(row.gene, row.objective): row for row in frame.itertuples()}
    names = [objective.name for objective in findings.objectives]
    rows = [[gene, *(_bar(cells[gene, name], top) for name in names)] for gene in most.index[:SHOWN_GENES]]
    rest = len(most) - len(rows)
    caption = (
        "Fraction of the fitness variance explained by the gene, corrected for chance. Blue: larger "
        "values are better; orange: smaller values are better. Valid within the searched region; "
        "correlation, not causation."
    ) + (f" {rest} less important genes are omitted." if rest else "")
    shown = scrolling(table(("gene", *names), rows, caption=caption), "Table of gene importance")
    return joined([shown, slices(findings, frame, [str(gene) for gene in most.index])])


def _bar(row: object, top: float) -> Html:
    fraction, direction = float(row.share_of_variance), float(row.rank_correlation)  # type: ignore[attr-defined]
    kind = "parent" if direction > 0 else "front"  # the style sheet's blue and orange
    text = f"{100 * fraction:.0f}%"
    width = 70 * fraction / top
    label = f"{text}, {'more' if direction > 0 else 'less'} was better"
    size = {"viewBox": f"0 0 {BAR} {BAR_HEIGHT}", "width": BAR, "height": BAR_HEIGHT}
    bar = element("rect", {"x": 0, "y": 4, "width": max(1.0, width), "height": 14, "class": kind})
    return element(
        "svg",
        {**size, "role": "img", "aria-label": label},
        bar,
        element("text", {"x": width + 6, "y": 15, "class": "name"}, text),
    )
