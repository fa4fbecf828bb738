"""Every figure draws what its frame holds, is saved without a browser, and hostile names stay text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evomerge import figures
from evomerge.errors import InputError
from evomerge.irt import ResponseTable, calibrate_table
from evomerge.recipe import recipe_from_mapping
from evomerge.reports.figures._front_chart import front_frame
from evomerge.reports.figures._irt_charts import ability_frame, item_map_frame
from evomerge.reports.figures._item_matrix import item_matrix_frame
from evomerge.reports.figures._recipe_charts import recipe_frame, route_chart, route_frame
from evomerge.reports.figures._trajectory import utilisation_frame
from evomerge.runs import Run, open_run
from tests.commands.made import make_run
from tests.estimation.worlds import prepared
from tests.estimation.worlds import search as estimated_search
from tests.reports.worlds import HOSTILE, make_world


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "made"
    return open_run(make_world(folder, candidates=40, trouble={5: "candidate"}, models=("math", "code")))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_world(tmp_path_factory.mktemp("runs") / "three", (HOSTILE, "b.c", "d"), candidates=20))


def svg(chart: Any, folder: Path) -> str:
    figures.save(chart, folder / "f.svg")
    return (folder / "f.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("progress", ["Progress of made", "overall fitness", "parent"]),
        ("hypervolume", ["Hypervolume of made", "above the worst parent"]),
        ("utilisation", ["Utilisation of made", "held-out items", "failed"]),
        ("recipe", ["Recipe of candidate", "math", "code", "layer"]),
        ("item_matrix", ["Item matrix: add", "parent math"]),
        ("held_out", ["Search against held-out scores", "held-out items", "mean"]),
        ("front", ["Pareto front of made", "parent"]),
    ],
)
def test_each_figure_of_a_run_is_drawn(run: Run, tmp_path: Path, name: str, words: list[str]) -> None:
    text = svg(getattr(figures, name)(run), tmp_path)
    assert all(word in text for word in words), [word for word in words if word not in text]
    assert text.count("<path") > 5  # marks, not only axes


def test_three_objectives_are_three_planes_and_dots_in_names_do_no_harm(three: Run, tmp_path: Path) -> None:
    text = svg(figures.front(three), tmp_path)
    assert text.count(">b.c<") == 2  # an axis of two of the planes
    assert "<img" not in text
    assert "undefined" not in text
    frame = front_frame(three)
    assert len(frame) == 20 + 3


def test_estimated_members_of_the_front_are_a_kind_of_their_own(tmp_path: Path) -> None:
    estimated_search(tmp_path / "run", prepared())
    run = open_run(tmp_path / "run")
    frame = front_frame(run).set_index("name")
    full = {f"candidate {n}" for n in run.data.full_candidates()}
    on_front = {f"candidate {n}" for n in run.front()["candidate"]}
    assert set(frame[frame["kind"] == "front"].index) == on_front & full
    assert set(frame[frame["kind"] == "estimated"].index) == on_front - full != set()
    text = svg(figures.front(run), tmp_path)
    assert "estimated" in text
    assert f"{len(on_front)} candidates on the front" in text


def test_predicted_points_are_drawn_on_parallel_axes_too(tmp_path: Path) -> None:
    run = open_run(make_world(tmp_path / "run", ("a", "b", "c", "d"), candidates=24, blocks=1))
    frame = front_frame(run, predicted=3)
    assert (frame["kind"] == "predicted").sum() > 0
    with_them, without = (svg(figures.front(run, predicted=n), tmp_path) for n in (3, 0))
    assert with_them.count('stroke-dasharray="2,3"') > without.count('stroke-dasharray="2,3"') == 0


def test_predicted_points_are_a_kind_of_their_own(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path / "run", candidates=40, graded=True))
    frame = front_frame(run, predicted=4)
    assert 1 <= (frame["kind"] == "predicted").sum() <= 4
    assert (frame["kind"] == "front").sum() == len(run.front())
    assert "predicted" in svg(figures.front(run, predicted=4), tmp_path)
    assert "predicted" not in svg(figures.front(run), tmp_path)
    shown = run.front(predicted=4)
    assert ">predicted<" in shown._repr_html_()
    assert shown.marks() == run.front().marks()


def test_recipe_frame_leaves_out_what_does_not_vary(run: Run) -> None:
    frame = recipe_frame(run, 3)
    assert set(frame["parameter"]) == {"weight", "density"}
    assert set(frame["source"]) == {"math", "code"}
    assert set(frame["layer"]) == set(range(8))
    weights = frame[(frame["parameter"] == "weight") & (frame["model"] == "math")]
    genes = run.trials().set_index("candidate").loc[3]
    assert list(weights["value"]) == [genes[f"gene.weight.math.block{layer // 2}"] for layer in range(8)]


def test_route_frame_is_the_recipes_route(tmp_path: Path) -> None:
    hops = [["math", 0, 1.0], ["chat", 1, 0.5], ["math", 1, 1.5]]
    recipe = recipe_from_mapping({"merge_method": "passthrough", "models": [{"model": "math"}], "route": hops})
    frame = route_frame(recipe)
    assert frame.to_numpy().tolist() == [[0, "math", 0, 1.0], [1, "chat", 1, 0.5], [2, "math", 1, 1.5]]
    text = svg(route_chart(frame, "Route"), tmp_path)
    assert "3 steps over 3 different layers" in text
    with pytest.raises(InputError, match="has no route"):
        route_frame(recipe_from_mapping({"merge_method": "linear", "models": [{"model": "a"}]}))


def test_route_frame_names_models_by_their_folders_and_draws_the_plain_stack_where_asked() -> None:
    models = [{"model": "/home/me/experts/math"}, {"model": "/home/me/experts/chat"}]
    hops = [["/home/me/experts/chat", 2, 1.0], ["merged", 1, 0.5]]
    recipe = recipe_from_mapping(
        {"merge_method": "linear", "models": models, "parameters": {"weight": 1.0}, "route": hops}
    )
    assert list(route_frame(recipe)["source"]) == ["chat", "merged"]
    plain = recipe_from_mapping({"merge_method": "linear", "models": models, "parameters": {"weight": 1.0}})
    assert route_frame(plain, 3).to_numpy().tolist() == [[n, "merged", n, 1.0] for n in range(3)]


def test_the_course_is_drawn_by_place_and_not_by_the_numbers_of_remeasured_points(run: Run) -> None:
    scored = len(run.tables.history())
    for chart in (figures.hypervolume(run).to_dict(), figures.progress(run).to_dict()):
        rows = next(iter(chart["datasets"].values()))
        assert [row["order"] for row in rows] == list(range(1, scored + 1))
        assert '"order"' in _x_of(chart)
        assert '"candidate"' not in _x_of(chart)


def test_item_matrix_orders_models_and_items_by_who_solves_more(run: Run) -> None:
    frame = item_matrix_frame(run, "sort")
    items, answers = run.items(), frame.set_index(["model", "item"])["value"]
    own = items[(items["candidate"] == -2) & (items["task"] == "sort")].set_index("item")["value"]
    assert all(answers["parent math", item] == value for item, value in own.items())
    means = frame.groupby("model")["value"].mean()
    ranks = frame.drop_duplicates("model").set_index("model")["rank"].sort_values()
    assert list(means[ranks.index]) == sorted(means, reverse=True)
    solved = frame.groupby("item")["value"].mean()
    places = frame.drop_duplicates("item").set_index("item")["position"].sort_values()
    assert list(solved[places.index]) == sorted(solved, reverse=True)
    with pytest.raises(InputError, match="no objective 'srot'"):
        item_matrix_frame(run, "srot")


def test_utilisation_frame_says_what_each_evaluation_was(run: Run) -> None:
    frame = utilisation_frame(run)
    assert list(frame[frame["candidate"] == 5]["kind"]) == ["failed"]
    assert set(frame["kind"]) == {"search items", "held-out items", "failed"}
    assert np.allclose(frame["seconds"], frame["end"] - frame["start"])


def test_item_map_places_items_where_half_the_models_solve_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    theta, difficulty = rng.standard_normal(200), np.array([-1.5, 0.0, 1.5] * 5)
    chance = 1 / (1 + np.exp(-1.5 * (theta[:, None] - difficulty)))
    answers = (rng.random(chance.shape) < chance).astype(float)
    table = ResponseTable(answers, tuple(f"m{i}" for i in range(200)), tuple(f"q{i}" for i in range(15)))
    bank = calibrate_table(table, dims=1)
    frame = item_map_frame(bank)
    assert np.corrcoef(frame["difficulty"], difficulty)[0, 1] > 0.95
    assert np.allclose(frame["difficulty"].groupby(difficulty).median(), [-1.5, 0.0, 1.5], atol=0.4)
    assert np.allclose(frame["solved"], answers.mean(axis=0))
    assert np.corrcoef(ability_frame(bank)["ability"], theta)[0, 1] > 0.85
    assert "15 items above, 200 models below" in svg(figures.item_map(bank), tmp_path)


def test_figures_of_frames_that_other_methods_give(tmp_path: Path) -> None:
    genes = ["weight.a.block0", "weight.a.block1"]
    rows = [
        {"gene": gene, "objective": "add", "share_of_variance": share, "rank_correlation": sign}
        for gene, share, sign in zip(genes, (0.6, 0.1), (0.5, -0.2), strict=True)
    ]
    text = svg(figures.importance(pd.DataFrame(rows)), tmp_path)
    assert "more is better" in text
    assert "weight.a.block1" in text
    place = {"kind": "slice", "objective": "add", "score": 0.5, "low": 0.4, "high": 0.6, "extrapolates": False}
    slices = pd.DataFrame([{**place, "line": gene, "position": x} for gene in genes for x in (0.0, 1.0)])
    assert "weight.a.block0" in svg(figures.landscape(slices), tmp_path)
    with pytest.raises(InputError, match=r"has no gene 'weight\.b'"):
        figures.landscape(slices, genes=["weight.b"])
    told = {"candidate": [1, 2], "objective": ["add"] * 2, "estimate": [0.5, 0.6], "items": [10, 10]}
    frame = pd.DataFrame({**told, "low": [0.4, 0.5], "high": [0.6, 0.55], "full": [0.55, 0.7]})
    text = svg(figures.estimates(frame), tmp_path)
    assert "mean absolute error 0.075" in text
    assert "50% of 2" in text


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    empty = open_run(make_run(tmp_path / "run", candidates=2, troubles={0: "candidate", 1: "candidate"}))
    for draw in (figures.progress, figures.hypervolume, figures.front):
        with pytest.raises(InputError, match="no candidate has scores yet"):
            draw(empty)
    with pytest.raises(InputError, match="is empty"):
        figures.importance(pd.DataFrame({"gene": [], "share_of_variance": []}))


def _x_of(chart: dict[str, Any]) -> str:
    """Return the horizontal encodings of a chart and its layers, as text."""
    layers = [chart, *chart.get("layer", [])]
    return str([layer.get("encoding", {}).get("x") for layer in layers]).replace("'", '"')
