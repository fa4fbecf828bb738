"""What values show of themselves in a notebook: readable without any script, and hostile names stay text."""

from __future__ import annotations

import html5lib
import pytest

from evomerge._markup import Html, element, joined, number, strip, table, tree
from evomerge.candidate import Candidate
from evomerge.recipe import recipe_from_mapping
from evomerge.runs import Run, open_run
from evomerge.space import build_space
from tests.commands.made import make_run

HOSTILE = "<script>alert(1)</script>\"'&é"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=8))


def elements(markup: str) -> set[str]:
    found = html5lib.HTMLParser(strict=True).parseFragment(markup)
    return {str(node.tag).rpartition("}")[2] for node in found.iter()}


def test_run_front_recipe_candidate_space_and_comparison_show_themselves(run: Run) -> None:
    best = run.best()
    assert best is not None
    shown = [
        (run, [run.folder.name, "8 candidates scored", "parent left"]),
        (run.front(), [f"Pareto front, {len(run.front())} candidates", "best overall", "<svg"]),
        (best, [f"candidate {best.number}", best.recipe.digest[:16]]),
        (best.recipe, ["task_arithmetic merge of 3 models", "org/left"]),
        (run.space, ["2 genes", "weight.left", "0 to 1"]),
        (run.compare("best", "left"), ["parent left", "better on"]),
    ]
    for value, words in shown:
        markup = value._repr_html_()
        assert all(word in markup for word in words), (type(value), words)
        assert "script" not in elements(markup)


def test_a_front_is_an_ordinary_frame(run: Run) -> None:
    front = run.front()
    assert type(front[front["measured"]]).__name__ == "DataFrame"
    marks = front.marks()
    assert marks[int(front["candidate"].iloc[0])][0] == "best overall"
    best_left = int(front.loc[front["score.left"].idxmax(), "candidate"])
    assert "best left" in marks[best_left]
    assert "no candidate" in type(front)(front.head(0))._repr_html_()


def test_hostile_names_stay_text() -> None:
    merge = {"merge_method": "linear", "models": [{"model": HOSTILE, "parameters": {"weight": 1.0}}]}
    recipe = recipe_from_mapping(merge)
    for value in (recipe, Candidate(-1, recipe, (), "parent", HOSTILE)):
        assert "script" not in elements(value._repr_html_())
        assert "&lt;script&gt;" in value._repr_html_()


def test_a_choice_of_hostile_models_stays_text() -> None:
    document = {
        "merge_method": {"search": ["linear", "ties"]},
        "base_model": "org/b",
        "models": [{"model": "org/<b>x"}, {"model": "org/y"}],
        "parameters": {"weight": {"search": [0.1, 1.0], "per": ["model"], "scale": "log"}},
    }
    markup = build_space(document, layers=2, modules={})._repr_html_()
    assert "0.1 to 1, log" in markup
    assert "linear, ties" in markup
    assert "b" not in elements(markup)


def test_elements_escape_what_is_not_markup() -> None:
    assert (
        element("p", {"title": '"><i>'}, "<i>", Html("<b></b>"))
        == '<p title="&quot;&gt;&lt;i&gt;">&lt;i&gt;<b></b></p>'
    )
    assert (
        element("input", {"disabled": True, "hidden": False, "value": None, "step": 0.5})
        == '<input disabled step="0.5">'
    )
    assert joined(["a<", None, Html("<br>")], Html("|")) == "a&lt;|<br>"
    assert [number(100.0), number(0.004), number(-0.0)] == ["100", "0", "0"]
    assert 'scope="row"' in table(("a", "b"), [("x<", 1)], numeric=[1])
    assert "x&lt;" in table(("a", "b"), [("x<", 1)], numeric=[1])
    assert tree({"weights": [0.25, 0.5], "none": []}).count("<rect") == 2
    assert strip([0.0, 0.0]).count("<rect") == 2  # no division by a range of nothing
