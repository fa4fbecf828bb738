"""Figures of a recipe: coefficients by model and depth, and the order in which layers run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.errors import InputError
from evomerge.reports.figures._style import INK, SERIES, altair, styled, titled
from evomerge.runs import OUTSIDE
from evomerge.space import MERGED, short_names

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from evomerge.recipe import Recipe
    from evomerge.runs import Run


def recipe(run: Run, pick: int | str = "best") -> alt.Chart:
    """Return a candidate's coefficients: a heat map of depth and model for each parameter that varies.

    `recipe_frame` is the frame behind it. Zero is white, more is darker; negative values are orange.

    Args:
        run: whose candidate.
        pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.

    Raises:
        InputError: there is no such candidate, or nothing in its recipe differs between models or layers.

    >>> from evomerge import figures, open_run
    >>> run = open_run("runs/quickstart")
    >>> chart = figures.recipe(run, "knee")
    """
    library, frame = altair(), recipe_frame(run, pick)
    number = run.pick(str(pick)).number
    panels = []
    for name, part in frame.groupby("parameter", sort=True):
        far = float(part["value"].abs().max()) or 1.0  # symmetric around 0, so that white means no contribution
        negative = bool((part["value"] < 0).any())
        scale = library.Scale(
            domain=[-far, far] if negative else [0, far], scheme="blueorange" if negative else "blues"
        )
        if negative:  # blueorange runs from blue to orange: reversed, orange is negative
            scale.reverse = True
        base = library.Chart(part).encode(
            x=library.X("layer:O", title="layer", axis=library.Axis(labelAngle=0, labelOverlap=True)),
            # the recipe's order, not the alphabet's
            y=library.Y("source:N", title=None, sort=list(dict.fromkeys(part["source"]))),
        )
        cells = base.mark_rect(stroke="white", strokeWidth=0.6).encode(
            color=library.Color("value:Q", scale=scale, title=str(name)),
            tooltip=["source", "layer", library.Tooltip("value:Q", title=str(name), format=".4g")],
        )
        size = {"width": 560, "height": max(40, 26 * part["source"].nunique())}
        panels.append(cells.properties(title=str(name), **size))  # a panel per parameter: units differ
    method = run.pick(str(pick)).recipe.method
    title = {
        "text": f"Recipe of candidate {number} ({method})",
        "subtitle": "value of each parameter by model and layer",
    }
    return styled(library.vconcat(*panels).resolve_scale(color="independent").properties(title=title)).configure_legend(
        orient="right", gradientLength=60, labelFontSize=12, titleFontSize=12
    )


def recipe_frame(run: Run, pick: int | str = "best") -> pd.DataFrame:
    """Return `run.tables.coefficients(pick)` where it is worth a picture: layers only, numbers, parameters that vary.

    Columns: as there, and source (the model, with its module where there is one).
    """
    import pandas as pd

    table = run.tables.coefficients(pick)
    table = table[(table["layer"] != OUTSIDE) & (table["model"] != "")]  # parameters of the whole merge have no model
    # words have no colour scale
    table = table[[isinstance(v, (int, float)) and not isinstance(v, bool) for v in table["value"]]]
    table = table.assign(value=pd.to_numeric(table["value"]))
    # a constant is one number, not a picture
    varied = [name for name, part in table.groupby("parameter") if part["value"].nunique() > 1]
    table = table[table["parameter"].isin(varied)]
    if not len(table):
        raise InputError(f"nothing in the recipe of candidate {pick} differs between models or layers")
    modules = ["" if module == "all" else f" · {module}" for module in table["module"]]
    return table.assign(source=table["model"] + modules)


def route(run: Run, pick: int | str = "best") -> alt.Chart:
    """Return a candidate's route as a picture: at each step, which layer of which source runs.

    `route_frame` is the frame behind it. A plain model is a straight line up; repeats step back, and the size of a mark
    is the scale by which the hidden state is multiplied on entering the layer.

    Args:
        run: that searched a route.
        pick: best, knee, a number (negative: a parent), or a preference as in 'add=2,sort=1'.

    Raises:
        InputError: there is no such candidate, or the run searched no routes.
    """
    candidate = run.pick(str(pick))
    # a run that searched routes may still pick the plain stack
    layers = None if run.space.route is None else run.config.models.layers
    return route_chart(route_frame(candidate.recipe, layers), f"Route of candidate {candidate.number}")


def route_frame(recipe: Recipe, layers: int | None = None) -> pd.DataFrame:
    """Return one row per hop: step (from 0), source (short name), layer (of the source), scale (on entering).

    Args:
        recipe: whose route.
        layers: how many its models have; drawn in their own order where the recipe has no route. None: refused.

    Raises:
        InputError: the recipe has no route, and `layers` is not given.
    """
    import pandas as pd

    names = short_names(list(recipe.references()))
    hops = recipe.route
    if not hops and layers is not None:
        hops = tuple((MERGED, layer, 1.0) for layer in range(layers))  # the plain stack
    if not hops:
        raise InputError("this recipe has no route: its layers run in their own order, once each")
    rows = [(step, names.get(source, source), layer, scale) for step, (source, layer, scale) in enumerate(hops)]
    return pd.DataFrame(rows, columns=["step", "source", "layer", "scale"])


def route_chart(frame: pd.DataFrame, title: str) -> alt.Chart:
    """Return the picture of a `route_frame`."""
    library = altair()
    base = library.Chart(frame).encode(
        x=library.X("step:Q", title="step", axis=library.Axis(tickMinStep=1)),
        y=library.Y("layer:Q", title="layer of the source", axis=library.Axis(tickMinStep=1)),
    )
    # else sorted by x within a source
    line = base.mark_line(color=INK, opacity=0.35, strokeWidth=1.2).encode(order="step:Q")
    marks = base.mark_point(filled=True, opacity=1).encode(
        color=library.Color("source:N", scale=library.Scale(range=SERIES), title=None),
        shape=library.Shape("source:N", title=None),
        # a scale of 1 has the middle size in every figure
        size=library.Size("scale:Q", scale=library.Scale(domain=[0, 2], range=[20, 200]), legend=None),
        tooltip=["step", "source", "layer", library.Tooltip("scale:Q", format=".3g")],
    )
    hops, layers = len(frame), frame.groupby("source")["layer"].nunique().sum()
    subtitle = f"{hops} steps over {layers} different layers; mark size: input scale"
    return titled(library.layer(line, marks), title, subtitle, 560, 300)
