"""Figures of item response theory: a bank's items and abilities, and score estimates against full scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.errors import InputError
from evomerge.reports.figures._style import BLUE, GREY, INK, ORANGE, altair, styled

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from evomerge.irt import Bank


def item_map(bank: Bank) -> alt.Chart:
    """Return a bank's items by difficulty and discrimination, over the abilities of the models that calibrated it.

    `item_map_frame` and `ability_frame` are the frames behind it. Items are most informative about models whose
    ability is near their difficulty; without items at that ability, few items cannot rank models.

    Args:
        bank: of one task, as `evomerge calibrate` writes it; read with `irt.bank`.
    """
    library, items, models = altair(), item_map_frame(bank), ability_frame(bank)
    ends = [items["difficulty"], models["ability"]]  # both panels share one axis
    # extreme items would squeeze all others
    low, high = min(float(e.quantile(0.005)) for e in ends) - 0.2, max(float(e.quantile(0.995)) for e in ends) + 0.2
    scale = library.Scale(domain=[low, high], nice=False, clamp=True)
    x = library.X("difficulty:Q", scale=scale, title="difficulty (ability at which half the models solve it)")
    dots = (
        library.Chart(items)
        .mark_circle(size=34, opacity=0.55, color=BLUE, clip=True)
        .encode(
            x=x,
            y=library.Y("discrimination:Q", title="discrimination"),
            tooltip=[
                "item",
                *(library.Tooltip(f"{c}:Q", format=".3f") for c in ("difficulty", "discrimination", "solved")),
            ],
        )
        .properties(width=560, height=260)
    )
    bins = library.Bin(step=max(0.05, (high - low) / 40))
    below = (
        library.Chart(models)
        .mark_bar(color=ORANGE, clip=True)
        .encode(
            x=library.X("ability:Q", bin=bins, scale=scale, title="ability of the calibration models"),
            y=library.Y("count()", title="models"),
        )
        .properties(width=560, height=90)
    )
    subtitle = f"{len(items)} items above, {len(models)} models below, on one scale"
    return styled(library.vconcat(dots, below).properties(title={"text": "Item map", "subtitle": subtitle}))


def item_map_frame(bank: Bank) -> pd.DataFrame:
    """Return one row per item: item, difficulty, discrimination, solved (fraction), weight (in the score, sum 1).

    Difficulty is on the scale of abilities: where P(correct) is one half. With several dimensions it is the distance
    from the origin to that point along the direction in which the item discriminates, and discrimination is the
    steepness there (MDIFF and MDISC: Reckase 2009, Multidimensional Item Response Theory, ch. 5). An item that
    discriminates negatively is solved less often by better models; it deserves a look.
    """
    import pandas as pd

    a, b = bank.parameters.a, bank.parameters.b  # (n, D), (n,)
    # (n,) MDISC; with one dimension the sign stays
    slope = a[:, 0] if bank.parameters.d == 1 else np.sqrt((a**2).sum(axis=1))
    # (n,) NaN for items that do not discriminate
    difficulty = np.divide(b, slope, out=np.full_like(b, np.nan), where=slope != 0)
    responses = bank.table.responses
    # (n,) over the models that answered
    solved = np.nansum(responses, axis=0) / np.maximum(1, (~np.isnan(responses)).sum(axis=0))
    return pd.DataFrame(
        {
            "item": bank.items,
            "difficulty": difficulty,
            "discrimination": slope,
            "solved": solved,
            "weight": bank.weights,
        }
    )


def ability_frame(bank: Bank) -> pd.DataFrame:
    """Return one row per calibration model: model, ability, stderr (standard-normal scale).

    With several dimensions, ability along the direction in which the items discriminate on average.
    """
    import pandas as pd

    parameters = bank.parameters
    mean = bank.weights @ parameters.a  # (D,)
    length = float(np.linalg.norm(mean))
    direction = mean / length if length > 0 and parameters.d > 1 else np.eye(parameters.d)[0]
    # (n_models,) along the direction
    variance = np.einsum("i,nij,j->n", direction, parameters.theta_covariance, direction)
    models = bank.table.models[: len(parameters.theta)]  # abilities are fitted for the first models of the table
    return pd.DataFrame({"model": models, "ability": parameters.theta @ direction, "stderr": np.sqrt(variance)})


def estimates(frame: pd.DataFrame, title: str = "Estimates from few items") -> alt.Chart:
    """Return estimates from few items against full answers; of `run.tables.estimates()`.

    Args:
        frame: candidate, objective, estimate, low, high (95%, metric's units), full (missing: not drawn), items.
        title: above it.

    Raises:
        InputError: no candidate has both an estimate and full answers.
    """
    library = altair()
    both = frame.dropna(subset=["full"])  # only finalists answer everything
    if not len(both):
        raise InputError("no candidate has both an estimate and full answers, so there is nothing to compare")
    error = (both["estimate"] - both["full"]).abs().mean()
    # observed coverage of the 95% intervals
    inside = ((both["low"] <= both["full"]) & (both["full"] <= both["high"])).mean()
    panels = [_panel(library, part, str(name)) for name, part in both.groupby("objective", sort=False)]
    subtitle = (
        f"mean absolute error {error:.3g}; the interval holds the full score of {100 * inside:.0f}% of {len(both)}"
    )
    return styled(library.concat(*panels, columns=3).properties(title={"text": title, "subtitle": subtitle}))


def _panel(library: Any, part: pd.DataFrame, name: str) -> Any:
    import pandas as pd

    # one range on both axes: the diagonal means agreement
    ends = [float(part[["low", "full"]].min().min()), float(part[["high", "full"]].max().max())]
    scale = library.Scale(domain=ends, nice=False)
    chart = library.Chart(part)
    x, y = (
        library.X("full:Q", scale=scale, title="full answers"),
        library.Y("estimate:Q", scale=scale, title="estimate"),
    )
    line = library.Chart(pd.DataFrame({"v": ends})).mark_line(color=INK, strokeDash=[4, 4], opacity=0.5)
    return library.layer(
        line.encode(x=library.X("v:Q", scale=scale), y=library.Y("v:Q", scale=scale)),
        chart.mark_rule(color=GREY).encode(x=x, y=library.Y("low:Q", scale=scale), y2="high:Q"),
        chart.mark_point(filled=True, color=BLUE, size=45, opacity=0.9).encode(
            x=x, y=y, tooltip=["candidate", "estimate", "full", "items"]
        ),
    ).properties(width=230, height=230, title=name)
