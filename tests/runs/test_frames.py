"""Every frame: documented column by column, and numbers that a loop over the archive gives too."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evomerge.errors import InputError
from evomerge.pareto import hypervolume
from evomerge.recipe import recipe_from_mapping
from evomerge.runs import Run, coefficients_frame, open_run
from evomerge.runs._columns import FRAMES, describe, markdown
from evomerge.runs._fronts import front_volume, reference_of
from evomerge.runs._landscapes import LANDSCAPE_COLUMNS
from tests.commands.made import make_run
from tests.runs.documented import undocumented

# a landscape needs more candidates than there are here; its columns are a constant
OF_A_RUN = [name for name in FRAMES if not name.startswith(("comparison", "landscape"))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=16, troubles={5: "candidate"}))


@pytest.mark.parametrize("name", OF_A_RUN)
def test_every_column_is_documented_and_every_documented_column_exists(run: Run, name: str) -> None:
    columns = list(getattr(run if name == "front" else run.tables, name)().columns)
    assert not undocumented(name, columns)
    optional = (
        "truncated.",
        "unextracted.",
        "shortened.",
        "staleness",
    )
    for column in FRAMES[name]:
        start, _, pattern = column.name.partition("<")
        found = [c for c in columns if c == column.name or (pattern and c.startswith(start))]
        assert found or column.name.startswith(optional), f"{column.name} is documented and not in {name}"
        assert column.meaning


def test_the_landscape_is_documented_too() -> None:
    assert [column.name for column in FRAMES["landscape"]] == list(LANDSCAPE_COLUMNS)


def test_an_undocumented_column_is_found() -> None:
    assert undocumented("trials", ["candidate", "score.add", "colour"]) == ["colour"]
    assert list(describe("front")["column"]) == ["candidate", "measured", "score.<objective>", "stderr.<objective>"]
    assert all(f"### `{name}`" in markdown() for name in FRAMES)
    with pytest.raises(InputError, match="Near: trials"):
        describe("trial")


def test_history_is_what_a_loop_over_the_trials_gives(run: Run) -> None:
    history = run.tables.history()
    done = run.trials().dropna(subset=["score.left"])
    assert list(history["candidate"]) == list(done["candidate"])
    scores = done[["score.left", "score.right"]].to_numpy()
    means = scores.mean(axis=1)
    reference = [reference_of(run.data)[name] for name in ("left", "right")]
    for place in range(len(history)):
        row = history.iloc[place]
        assert row["best"] == means[: place + 1].max()
        assert row["incumbent"] == done["candidate"].iloc[int(np.argmax(means[: place + 1]))]
        assert row["hypervolume"] == pytest.approx(hypervolume(scores[: place + 1], reference))
        assert row["best_low"] < row["best"] < row["best_high"]
    assert history["hypervolume"].iloc[-1] == pytest.approx(front_volume(run.data))
    assert history["front_size"].iloc[-1] == len(run.front())
    assert history["seconds"].is_monotonic_increasing


def test_the_interval_of_the_best_is_that_of_a_mean_of_independent_scores(run: Run) -> None:
    row = run.tables.history().iloc[0]
    trial = run.trials().iloc[0]
    stderr = np.hypot(trial["stderr.left"], trial["stderr.right"]) / 2
    assert row["stderr"] == pytest.approx(stderr)
    assert row["best_high"] - row["best"] == pytest.approx(1.959964 * stderr)


def test_coefficients_follow_depth_filters_and_precedence() -> None:
    recipe = recipe_from_mapping(
        {
            "merge_method": "ties",
            "base_model": "org/base",
            "models": [
                {"model": "org/add", "parameters": {"weight": [0.0, 1.0]}},
                {"model": "org/sort", "parameters": {"density": [{"filter": "mlp", "value": 0.2}, {"value": 0.9}]}},
            ],
            "parameters": {"weight": 0.5, "density": 0.4, "lambda": 1.5},
        }
    )
    table = coefficients_frame(recipe, 3, {"attention": (".self_attn.",), "mlp": (".mlp.",)})
    weight = table[(table["parameter"] == "weight") & (table["model"] == "add")].set_index("layer")["value"]
    assert dict(weight) == {-1: 0.0, 0: 0.0, 1: 0.5, 2: 1.0}  # a curve over depth; outside the layers its first value
    assert set(table[(table["parameter"] == "weight") & (table["model"] == "sort")]["value"]) == {0.5}
    density = table[(table["parameter"] == "density") & (table["model"] == "sort") & (table["layer"] == 1)]
    assert dict(zip(density["module"], density["value"], strict=True)) == {"mlp": 0.2, "other": 0.9}
    whole = table[table["parameter"] == "lambda"]
    assert set(whole["model"]) == {""}
    assert set(whole["value"]) == {1.5}
    assert "base" not in set(table["model"])


def test_coefficients_of_slices_count_the_layers_of_the_merged_model() -> None:
    parts = [
        {"sources": [{"model": "org/a", "layer_range": [0, 2], "parameters": {"scale": 1.0}}]},
        {"sources": [{"model": "org/b", "layer_range": [1, 4], "parameters": {"scale": [0.0, 1.0]}}]},
    ]
    table = coefficients_frame(recipe_from_mapping({"merge_method": "passthrough", "slices": parts}), 4)
    inside = table[table["layer"] >= 0]
    assert list(inside["layer"]) == [0, 1, 2, 3, 4]
    assert list(inside["value"]) == [1.0, 1.0, 0.0, 0.5, 1.0]


def test_work_is_what_the_outcomes_took_and_ends_when_it_was_recorded(run: Run) -> None:
    work = run.tables.work()
    assert set(work[work["split"] == "search"]["candidate"]) == {-1, -2, -3, *range(16)}
    assert work["failed"].sum() == 1
    assert (work["start"] >= 0).all()
    assert (work["end"] >= work["start"]).all()


def test_generalisation_pairs_search_and_held_out_scores(run: Run) -> None:
    table = run.tables.generalisation()
    trials = run.trials().set_index("candidate")
    finals = {final.number: final for final in run.finals()}
    for number, objective in itertools.product((0, 1), ("left", "right")):
        row = table[(table["candidate"] == number) & (table["objective"] == objective)].iloc[0]
        assert row["search"] == trials.loc[number, f"score.{objective}"]
        assert row["holdout"] == finals[number].scores[objective].value
    means = table[table["objective"] == "mean"].set_index("candidate")
    assert means.loc[0, "holdout"] == finals[0].score.value
    assert means.loc[0, "search"] == trials.loc[0, ["score.left", "score.right"]].mean()
