"""Fronts as people ask for them: measured and predicted, under conditions, by preference; importance and landscapes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.candidate import FIRST_REMEASURED, Objective
from evomerge.cli import main
from evomerge.errors import InputError
from evomerge.pareto import hypervolume
from evomerge.runs import FrontRequest, Run, front_mapping, open_run, read_constraints
from tests.commands.made import OBJECTIVES, OPTIMA, PARENTS, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=32, troubles={5: "candidate"}))


def fitness(run: Run) -> np.ndarray:
    return run.trials().dropna(subset=["score.left"])[["score.left", "score.right"]].to_numpy()


def test_predicted_rows_are_told_apart_and_not_dominated_by_what_was_measured(run: Run) -> None:
    front = run.front(predicted=6)
    measured, predicted = front[front["measured"]], front[~front["measured"]]
    assert list(front.columns) == ["candidate", "measured", *(f"{k}.{n}" for k in ("score", "stderr") for n in OPTIMA)]
    assert list(measured["candidate"]) == list(run.front()["candidate"])
    assert 1 <= len(predicted) <= 6
    assert predicted["candidate"].isna().all()
    known = measured[["score.left", "score.right"]].to_numpy()
    for point in predicted[["score.left", "score.right"]].to_numpy():
        assert not ((known >= point).all(axis=1) & (known > point).any(axis=1)).any()
    assert (predicted[["stderr.left", "stderr.right"]] > 0).all().all()


def test_json_tells_predicted_points_with_intervals_the_surrogates_errors_and_doubts(run: Run) -> None:
    mapping = front_mapping(run.data, FrontRequest(predicted=4))
    json.dumps(mapping, allow_nan=False)
    predicted = [point for point in mapping["points"] if not point["measured"]]
    assert predicted
    for point in predicted:
        assert point["candidate"] is None
        low, high = point["interval"]["left"]
        assert low < point["score"]["left"] < high
        assert len(point["genotype"]) == 2
    assert [row["objective"] for row in mapping["surrogates"]] == ["left", "right"]
    assert {"r2", "left_out_r2", "left_out_error", "coverage", "candidates"} <= set(mapping["surrogates"][0])
    assert mapping["hypervolume"] == front_mapping(run.data)["hypervolume"]  # of measured points only
    assert isinstance(mapping["warnings"], list)


def test_left_out_errors_are_those_of_fits_without_the_candidate(run: Run) -> None:
    """The root mean squared error of refits that each leave one out, by hand, with the shape and ridge of the fit."""
    from evomerge.runs import errors_of, surrogates_of
    from evomerge.surrogates import predict
    from evomerge.surrogates._quadratic import fit

    found = surrogates_of(run.data)
    table = errors_of(found).set_index("objective")
    assert table.loc["left", "candidates"] == 31
    one = found.fits[0]
    gaps = []
    for row in range(31):
        rest = np.arange(31) != row
        again = fit(
            *(found.points[rest], found.fitness[rest, 0]),
            link=one.link.name,
            items=found.items[rest, 0],
            shared_items=True,
            complexity=one.complexity,
            ridge=one.diagnostics.ridge,
            box=[0.0, 1.0],
        )
        gaps.append(predict(again, found.points[row : row + 1]).value[0] - found.fitness[row, 0])
    assert table.loc["left", "left_out_error"] == pytest.approx(np.sqrt(np.mean(np.square(gaps))), rel=0.1)


# -- conditions, preferences -------------------------------------------------------------------------------------


def test_a_condition_gives_the_front_of_those_that_meet_it(run: Run) -> None:
    bound = run.tables.parents().set_index("name").loc["base", "score.right"] - 0.01
    table = fitness(run)
    allowed = table[table[:, 1] >= bound]
    front = run.front(where=["right >= base - 1 point"])
    assert (front["score.right"] >= bound).all()
    assert front["score.left"].max() == allowed[:, 0].max()
    tight = run.front(where=["right >= 0.5", "left >= 0.5"])
    assert (tight[["score.left", "score.right"]] >= 0.5).all().all()


PARENT_SCORES = {"base": {"add": 0.5, "loss": 3.0}, "math": {"add": 0.8, "loss": 2.0}}
WANTED = (Objective("add", "add", "acc"), Objective("loss", "loss", "bits", "minimize", kind="perplexity"))


@pytest.mark.parametrize(
    ("text", "bound", "at_least"),
    [
        ("add >= base - 1 point", 0.49, True),
        ("add>=base-1%", 0.49, True),
        ("add >= math", 0.8, True),
        ("add >= best - 2 points", 0.78, True),
        ("add >= 0.6", 0.6, True),
        ("add >= 60%", 0.6, True),
        ("add >= base + 0.05", 0.55, True),
        ("loss <= 2.5", 2.5, False),
        ("loss <= base - 0.5", 2.5, False),
        ("loss <= best", 2.0, False),
        ("loss <= 40", 40.0, False),
    ],
)
def test_conditions_mean_what_people_write(text: str, bound: float, at_least: bool) -> None:
    (one,) = read_constraints([text], WANTED, PARENT_SCORES)
    assert (one.bound, one.at_least) == (pytest.approx(bound), at_least)
    scores = np.array([[0.0, bound], [1.0, bound]]) if "add" in text else np.array([[0.5, 0.0], [0.5, 100.0]])
    assert one.met(scores).tolist() == ([False, True] if at_least else [True, False])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("add > 0.5", "expected an objective, >= or <=, and a bound"),
        ("ad >= 0.5", "unknown objective 'ad'. Near: add"),
        ("add >= bass - 1 point", "'bass' is neither a number nor a parent. Near: base"),
        ("add >= base - 1", "add is between 0 and 1, so 1 is out of range; write 1 point, or 0.01"),
        ("add >= 60", "write 60 points, or 0.6"),
    ],
)
def test_a_wrong_condition_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_constraints([text], WANTED, PARENT_SCORES)


def test_conditions_that_nobody_meets_say_how_near_one_came(run: Run) -> None:
    best = fitness(run)[:, 0].max()
    with pytest.raises(InputError, match=rf"left >= 0.99 \(best is {best:.4g}, which none reaches\)"):
        run.front(where=["left >= 99%"])


def test_beats_parents_leaves_out_what_a_parent_dominates(run: Run) -> None:
    parents = run.tables.parents()[["score.left", "score.right"]].to_numpy()
    table = fitness(run)
    free = [row for row in table if not any((p >= row).all() and (p > row).any() for p in parents)]
    front = run.front(beats_parents=True)[["score.left", "score.right"]].to_numpy()
    assert len(front)
    assert all(any((row == other).all() for other in free) for row in front)
    assert {tuple(row) for row in front} <= {
        tuple(row) for row in run.front()[["score.left", "score.right"]].to_numpy()
    }


def test_a_preference_and_desirability_order_the_front(run: Run) -> None:
    front = run.front(prefer="left=1")
    assert front["score.left"].is_monotonic_decreasing
    assert front.iloc[0]["candidate"] == run.pick("left=1").number
    wanted = run.front(desire="left=0..1,right=0..1")
    products = wanted["score.left"] * wanted["score.right"]
    assert products.is_monotonic_decreasing
    with pytest.raises(InputError, match=r"--prefer 'lift=1': unknown objective 'lift'. Near: left"):
        run.front(prefer="lift=1")
    with pytest.raises(InputError, match=r"expected worthless..ideal per objective"):
        run.front(desire="left=0.5")


# -- history, importance, landscape ------------------------------------------------------------------------------


def test_the_hypervolume_grows_to_that_of_the_front(run: Run) -> None:
    history = run.tables.hypervolume()
    assert list(history.columns) == ["candidate", "seconds", "hypervolume"]
    assert list(history["candidate"]) == list(range(32))
    assert history["hypervolume"].is_monotonic_increasing
    assert history["hypervolume"].iloc[-1] == pytest.approx(front_mapping(run.data)["hypervolume"])
    reference = run.tables.parents()[["score.left", "score.right"]].min().to_numpy()
    assert history["hypervolume"].iloc[5] == history["hypervolume"].iloc[4]  # 5 failed
    assert history["hypervolume"].iloc[9] == pytest.approx(hypervolume(fitness(run)[:9], reference))


def test_importance_finds_each_objectives_own_gene(run: Run) -> None:
    """Both objectives depend on both genes; more of the own model's weight is better, and of the other's is worse."""
    table = run.tables.importance().set_index(["gene", "objective"])
    assert len(table) == 4
    for objective, other in (("left", "right"), ("right", "left")):
        assert table.loc[(f"weight.{objective}", objective), "rank_correlation"] > 0.3
        assert table.loc[(f"weight.{other}", objective), "rank_correlation"] < -0.3
    assert (table["involved"] >= table["alone"]).all()
    assert table.groupby("objective")["alone"].sum().le(1 + 1e-9).all()
    assert ((table["share_of_variance"] >= 0) & (table["share_of_variance"] <= 1)).all()


def test_landscape_slices_and_lines_through_the_best(run: Run) -> None:
    table = run.tables.landscape(to=["-2", "3"], steps=5)
    assert list(table.columns)[:6] == ["kind", "line", "position", "value", "objective", "score"]
    assert len(table) == (2 + 2) * 5 * 2  # two genes and two lines, five steps, two objectives
    assert set(table.loc[table["kind"] == "line", "line"]) == {"parent left", "candidate 3"}
    assert (table["low"] <= table["score"] + 1e-12).all()
    assert (table["score"] <= table["high"] + 1e-12).all()
    lines = table[(table["kind"] == "line") & (table["objective"] == "left")].set_index(["line", "position"])
    # all lines begin at the best, and the one to the left parent rises to what that parent has
    assert lines.loc[("parent left", 0.0), "score"] == lines.loc[("candidate 3", 0.0), "score"]
    measured = run.tables.parents().set_index("name").loc["left", "score.left"]
    assert lines.loc[("parent left", 1.0), "score"] == pytest.approx(measured, abs=0.15)
    slice_ = table[(table["line"] == "weight.left") & (table["objective"] == "left")]
    assert slice_["value"].tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


# -- few or no candidates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "troubles"), [(1, {}), (2, {}), (4, dict.fromkeys(range(4), "candidate"))])
def test_one_two_or_only_failed_candidates(tmp_path: Path, count: int, troubles: dict[int, str]) -> None:
    run = open_run(make_run(tmp_path / "run", candidates=count, troubles=troubles))
    answer = run.front_answer(FrontRequest(predicted=5))
    done = count - len(troubles)
    assert all(answer.measured)
    assert (len(answer.candidates) > 0) == (done > 0)
    assert f"no predicted front: {done} candidates have scores" in answer.warnings[0]
    assert len(run.tables.importance()) == 4
    assert len(run.tables.hypervolume()) == count
    with pytest.raises(InputError, match="a surrogate needs 3 or more"):
        run.tables.landscape()


# -- the command line, and re-measuring --------------------------------------------------------------------------


def test_the_screen_shows_both_fronts_and_the_surrogates_errors(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert "points predicted by surrogates (measured: False" in out
    assert "left_out_r2" in out
    assert main(["front", str(run.folder), "--json", "--where", "left >= 99%"]) == 2
    assert "no candidate meets all constraints" in capsys.readouterr().err
    assert main(["front", str(run.folder), "--predicted", "-1"]) == 2
    assert main(["front", str(run.folder), "--predicted", "0", "--prefer", "left=1,right=1"]) == 0
    assert "False" not in capsys.readouterr().out


def test_remeasured_points_join_the_archive_beside_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pool is the synthetic scorer's; everything else is what `front --remeasure` does."""
    from evomerge.commands import _remeasure as remeasure
    from evomerge.scoring._synthetic import SyntheticSpec
    from evomerge.workers import LocalPool

    folder = make_run(tmp_path / "run", candidates=32)
    before = open_run(folder)
    wanted = before.front_answer(FrontRequest(predicted=3))
    expected = [row for row, measured in zip(wanted.fitness, wanted.measured, strict=True) if not measured]
    monkeypatch.setattr(remeasure, "verify", lambda preparation: None)
    monkeypatch.setattr(remeasure.Execution, "pool", lambda *_: LocalPool(SyntheticSpec(OPTIMA, parents=PARENTS)))
    assert main(["front", str(folder), "--predicted", "3", "--remeasure"]) == 0
    shown = capsys.readouterr()
    assert f"measured {len(expected)} predicted points: candidates {FIRST_REMEASURED}" in shown.err
    assert f"{len(expected)} predicted points were re-measured" in shown.out
    after = open_run(folder)
    assert after.state == "finished"
    new = [number for number in after.data.evaluations() if number >= FIRST_REMEASURED]
    assert len(new) == len(expected)
    for number, predicted in zip(new, expected, strict=True):
        found = after.data.evaluations()[number].fitness(OBJECTIVES)
        assert found == pytest.approx(predicted, abs=0.35)
        assert after.data.candidate(number).kind == "remeasured"
    with Archive.open(folder) as archive:
        assert archive.count("search") == 32  # the search's own count, and what it was told, are as they were
        assert len(list(archive.events("observed"))) == 32
    assert len(after.trials()) == 32 + len(expected)
