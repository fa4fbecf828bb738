"""Which genes mattered: the share of each objective's variance that goes with a gene, and in which direction."""

from __future__ import annotations

import math

from evomerge.markup import Html, element, joined, table
from evomerge.reports.html._drawing import scrolling
from evomerge.reports.html._findings import Findings
from evomerge.reports.html._section_slices import slices

SHOWN_GENES = 12
LEAST_CANDIDATES = 20  # with fewer candidates the fractions of variance are noise
BAR, BAR_HEIGHT = 110, 22


def genes(findings: Findings) -> Html:
    """Return the genes that mattered most, with a bar per objective."""
    if len(findings.history) < LEAST_CANDIDATES:
        text = f"With fewer than {LEAST_CANDIDATES} scored candidates nothing can be said about single genes."
        return element("p", {}, text)
    frame = findings.run.tables.importance()
    most = frame.groupby("gene", sort=False)["share_of_variance"].max().sort_values(ascending=False)
    top = float(most.max())
    if not math.isfinite(top) or top <= 0:
        return element("p", {}, "No gene by itself explains a difference between the candidates.")
    cells = {(row.gene, row.objective): row for row in frame.itertuples()}
    names = [objective.name for objective in findings.objectives]
    rows = [[gene, *(_bar(cells[gene, name], top) for name in names)] for gene in most.index[:SHOWN_GENES]]
    rest = len(most) - len(rows)
    caption = (
        "Share of the fitness' variance between candidates with similar values of the gene, chance taken off. Blue: "
        "more of it was better; orange: less was. It describes the region that was searched, not cause and effect."
        + (f" {rest} lesser genes are left out." if rest else "")
    )
    shown = scrolling(table(("gene", *names), rows, caption=caption), "Genes that mattered")
    return joined([shown, slices(findings, frame, [str(gene) for gene in most.index])])


def _bar(row: object, top: float) -> Html:
    share, direction = float(row.share_of_variance), float(row.rank_correlation)  # type: ignore[attr-defined]
    kind = "parent" if direction > 0 else "front"
    text = f"{100 * share:.0f}%"
    width = 70 * share / top
    label = f"{text}, {'more' if direction > 0 else 'less'} was better"
    size = {"viewBox": f"0 0 {BAR} {BAR_HEIGHT}", "width": BAR, "height": BAR_HEIGHT}
    bar = element("rect", {"x": 0, "y": 4, "width": max(1.0, width), "height": 14, "class": kind})
    return element(
        "svg",
        {**size, "role": "img", "aria-label": label},
        bar,
        element("text", {"x": width + 6, "y": 15, "class": "name"}, text),
    )
