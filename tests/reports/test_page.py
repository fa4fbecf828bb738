"""The report as a file: what it says, what it never loads, and hostile names that stay text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import html5lib
import pytest

from evomerge.archive import Archive
from evomerge.candidate import Answers, Outcome, Response, Score
from evomerge.cli import main
from evomerge.errors import InputError
from evomerge.reports import report_html, write_report
from evomerge.reports.html._drawing import Plot, Scale, band, spread, steps
from evomerge.reports.html._findings import points, with_error
from evomerge.runs import FrontRequest, Run, front_mapping, open_run
from tests.reports.worlds import HOSTILE, make_world

NAMES = ["two", "four", "one", "hostile", "predicted", "estimated"]
LARGEST = 5_000_000  # bytes


def parsed(path: Path) -> Any:
    document = html5lib.HTMLParser(strict=True).parse(path.read_text(encoding="utf-8"))
    for node in document.iter():
        if isinstance(node.tag, str):
            node.tag = node.tag.rpartition("}")[2]
    return document


def data_of(path: Path) -> dict[str, Any]:
    block = next(node for node in parsed(path).iter("script") if node.get("id") == "front-data")
    return json.loads(block.text)


@pytest.mark.parametrize("name", NAMES)
def test_one_small_file_that_loads_nothing(reports: dict[str, Path], name: str) -> None:
    text = reports[name].read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    document = parsed(reports[name])
    assert [node.get("type") for node in document.iter("script")] == ["application/json", None]
    assert not list(document.iter("link")) + list(document.iter("img")) + list(document.iter("iframe"))
    assert not [node.get("src") for node in document.iter() if node.get("src")]
    assert all(node.get("href").startswith("#") for node in document.iter("a"))
    style = next(document.iter("style")).text
    assert "url(" not in style
    assert "@import" not in style


def test_the_browser_may_run_this_script_and_no_other(reports: dict[str, Path]) -> None:
    document = parsed(reports["hostile"])
    script = [node.text for node in document.iter("script")][-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(n.get("content") for n in document.iter("meta") if n.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


def test_hostile_names_stay_text(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    document = parsed(reports["hostile"])
    assert not [n for n in document.iter() if any(str(key).startswith("on") for key in n.attrib)]
    texts = [node.text for node in document.iter("th")]
    assert HOSTILE in texts  # as a task's name, whole
    assert data_of(reports["hostile"])["objectives"][0]["name"] == HOSTILE


@pytest.mark.parametrize("name", NAMES)
def test_the_data_are_the_runs_own(reports: dict[str, Path], runs: dict[str, Run], name: str) -> None:
    data, run = data_of(reports[name]), runs[name]
    front = run.front().set_index("candidate")
    assert {point["n"] for point in data["front"]} == set(front.index)
    for point in data["front"]:
        scores = [front.loc[point["n"], f"score.{o.name}"] for o in run.objectives]
        assert point["s"] == pytest.approx(scores, rel=1e-7)
    best = run.best()
    assert best is not None
    assert data["first"] == best.number
    assert len(data["dots"]) + data["hidden"] + len(data["front"]) == run.status()["done"]
    detail = data["details"][str(best.number)]
    assert detail["digest"] == best.recipe.digest
    if name == "predicted":  # its genes are the same at every layer
        return
    weights = next(one for one in detail["map"]["maps"] if one["name"] == "weight")
    table = run.tables.coefficients("best")
    cells = table[(table["parameter"] == "weight") & (table["layer"] == 2)]["value"]
    assert [row["values"][2] for row in weights["rows"]] == pytest.approx(list(cells), rel=1e-3)


def test_what_was_found_is_said_with_its_interval(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    text = " ".join(parsed(reports["two"]).itertext())
    run = runs["two"]
    best = run.best()
    assert best is not None
    final = next(final for final in run.finals() if final.number == best.number)
    assert final.gain is not None
    assert f"Candidate {best.number} is better than the best parent" in text
    assert f"95% interval [{100 * final.gain.low:.1f}, {100 * final.gain.high:.1f}]" in text
    assert f"{final.score.items} held-out items" in text
    assert "2 evaluations failed" in text
    assert "candidate 17 has NaN logits (synthetic)" in text
    assert best.recipe.digest in text
    assert run.data.fingerprint(best.number) in text
    for word in ("evomerge", "numpy", "seed", "org/math", "world.yaml"):
        assert word in text


def test_genes_that_mattered_are_told_with_their_share(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    frame = runs["two"].tables.importance()
    first = frame.loc[frame["share_of_variance"].idxmax()]
    better = "more" if first["rank_correlation"] > 0 else "less"
    section = next(n for n in parsed(reports["two"]).iter("section") if n.get("id") == "genes")
    assert first["gene"] in "".join(section.itertext())
    labels = [node.get("aria-label") for node in section.iter("svg")]
    assert f"{100 * first['share_of_variance']:.0f}%, {better} was better" in labels


def test_predicted_points_stand_apart_from_measured_ones(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    run, data = runs["predicted"], data_of(reports["predicted"])
    expected = [
        point for point in front_mapping(run.data, FrontRequest(predicted=8))["points"] if not point["measured"]
    ]
    assert len(data["predicted"]) == len(expected) > 0
    for point, wanted in zip(data["predicted"], expected, strict=True):
        assert "n" not in point  # nothing that could be chosen or exported
        assert point["s"] == pytest.approx(list(wanted["score"].values()), rel=1e-7)
        assert list(zip(point["low"], point["high"], strict=True)) == [
            pytest.approx(ends, rel=1e-7) for ends in wanted["interval"].values()
        ]
    assert not {point["n"] for point in data["front"]} & {None}
    section = next(n for n in parsed(reports["predicted"]).iter("section") if n.get("id") == "predicted")
    text = " ".join(section.itertext())
    assert f"evomerge front {run.folder} --predicted 8 --remeasure" in text
    value = 100 * expected[0]["score"]["add"]
    low, high = (100 * end for end in expected[0]["interval"]["add"])
    assert f"{value:.1f} ({low:.1f} to {high:.1f})" in text
    errors = run.front_answer(FrontRequest(predicted=8)).errors
    assert errors is not None
    assert f"add {errors['left_out_r2'].iloc[0]:.2f}" in text


def test_surrogates_that_nobody_asked_for_and_nobody_should_believe_are_not_shown(
    reports: dict[str, Path], runs: dict[str, Run]
) -> None:
    errors = runs["four"].front_answer(FrontRequest(predicted=8)).errors
    assert errors is not None
    assert errors["left_out_r2"].min() < 0.5
    assert data_of(reports["four"])["predicted"] == []
    assert "Predicted, not measured" not in reports["four"].read_text(encoding="utf-8")
    assert data_of(reports["one"])["predicted"] == []


def test_what_is_only_estimated_looks_estimated(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    run, data = runs["estimated"], data_of(reports["estimated"])
    full = set(run.data.full_candidates())
    points = [*data["front"], *data["dots"]]
    assert {point["n"] for point in points if "estimated" not in point} == full
    assert 0 < len(full) < len(points)
    rows = {
        int(row.get("data-candidate")): " ".join(row.itertext())
        for row in parsed(reports["estimated"]).iter("tr")
        if row.get("data-candidate")
    }
    assert all(("~ " in text) == ("estimated" in text) == (number not in full) for number, text in rows.items())
    assert not any("estimated" in point for point in data_of(reports["two"])["front"])


def test_finalists_are_told_by_the_interval_that_holds(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    run = runs["two"]
    best = run.best()
    assert best is not None
    section = next(n for n in parsed(reports["two"]).iter("section") if n.get("id") == "finalists")
    rows = {
        "".join(row.find("th").itertext()): " ".join(row.itertext())
        for row in section.iter("tr")
        if row.find("td") is not None
    }
    compared = [final for final in run.finals() if final.gain is not None and final.joint is not None]
    assert len(compared) > 2
    for final in compared:
        row = next(text for name, text in rows.items() if name.startswith(final.name))
        told = final.gain if final.number == best.number else final.joint
        assert f"95% interval [{100 * told.low:.1f}, {100 * told.high:.1f}]" in row
        assert final.joint.high - final.joint.low > final.gain.high - final.gain.low


def test_who_solves_what_is_drawn_from_the_answers(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    run = runs["two"]
    best = run.best()
    assert best is not None
    section = next(n for n in parsed(reports["two"]).iter("section") if n.get("id") == "items")
    figure = next(iter(section.iter("figure")))
    answers = {
        n: {r.item: r.value for r in run.data.responses(n, "holdout") if r.task == "add"}
        for n in (best.number, -1, -2, -3)
    }
    parents = [answers[n] for n in (-1, -2, -3)]
    gained = sum(value == 1 and not any(p[item] for p in parents) for item, value in answers[best.number].items())
    lost = sum(value == 0 and any(p[item] for p in parents) for item, value in answers[best.number].items())
    text = " ".join(figure.itertext())
    assert f"solves {gained} that no parent solves, and misses {lost} that at least one parent solves" in text
    titles = [node.text for node in figure.iter("title")]
    assert f"candidate {best.number}: {int(sum(answers[best.number].values()))} of 80 right" in titles
    step = (1100 - 150 - 60) / 80  # pixels of an item
    path = next(node.get("d") for node in figure.iter("path") if node.get("class") == "front")
    drawn = sum(float(width) for width in re.findall(r"h([\d.]+)v", path)) / step
    assert drawn == pytest.approx(sum(answers[best.number].values()), abs=0.01)


def test_slices_pass_through_the_landscape(reports: dict[str, Path], runs: dict[str, Run]) -> None:
    run = runs["two"]
    importance = run.tables.importance()
    trusted = importance[importance["left_out_r2"] >= 0.5]["objective"].unique()
    assert len(trusted) > 0
    block = next(n for n in parsed(reports["two"]).iter("div") if n.get("id") == "slices")
    labels = [node.get("aria-label") for node in block.iter("svg")]
    first = importance.groupby("gene", sort=False)["share_of_variance"].max().idxmax()
    frame = run.tables.landscape("best")
    for name in trusted:
        part = frame[(frame["line"] == first) & (frame["objective"] == name)]
        top = part.loc[part["score"].idxmax()]
        assert any(
            label.startswith(f"{name} along {first}: best predicted at ") and f", {100 * top['score']:.1f} (" in label
            for label in labels
        )
    assert len(labels) == 3 * len(trusted)


def test_a_number_is_rounded_as_the_script_rounds_it() -> None:
    assert points(0.7325, True) == "73.3"  # half a unit goes up, as in toFixed
    assert points(-0.7325, True) == "-73.3"
    assert with_error(Score(24.0, 0.0, 1), False) == "24"


def test_the_same_run_gives_the_same_report(runs: dict[str, Run]) -> None:
    assert report_html(runs["two"]) == report_html(open_run(runs["two"].folder))


def test_a_run_without_held_out_items_says_so(tmp_path: Path) -> None:
    run = open_run(make_world(tmp_path / "run", candidates=6, held=0))
    text = report_html(run)
    assert "search scores are biased upward" in text
    assert "No held-out scores" in text


def test_a_run_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    world = open_run(make_world(tmp_path / "world", candidates=2))
    folder = tmp_path / "fresh"
    with Archive.create(folder, world.data.config.to_json()) as archive:
        archive.put_parents(world.data.candidates("parent"))
        assert "No candidate could be scored" in report_html(open_run(folder))
        archive.put_asked([world.data.candidate(0)], 1)
        archive.put_submitted(0, "search")
        for task, items in world.config.items.search.items():
            archive.put_answers(Answers(0, "search", task, tuple(Response(task, i, "acc", 1.0) for i in items)))
        archive.put_outcome(Outcome(0, "search", None, "w", 1.0, {}, "f"))
        text = report_html(open_run(folder))
    assert "Candidate 0 is the incumbent" in text
    assert "<dd>running</dd>" in text


def test_many_candidates_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.reports.html._explorer.DETAIL_BYTES", 3000)
    monkeypatch.setattr("evomerge.reports.html._explorer.SHOWN_DOTS", 5)
    run = open_run(make_world(tmp_path / "run", candidates=40))
    data = data_of(write_report(run, tmp_path / "r.html"))
    assert len(data["dots"]) == 5
    assert data["hidden"] == 40 - 5 - len(data["front"])
    assert 0 < len(data["details"]) < len(data["choices"])
    assert "Of the dominated candidates, 5 of" in (tmp_path / "r.html").read_text()


def test_the_verb_writes_the_file_and_says_where(
    runs: dict[str, Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.html"
    assert main(["report", str(runs["one"].folder), "--to", str(target)]) == 0
    assert f"wrote {target}" in capsys.readouterr().err
    assert target.read_text().startswith("<!DOCTYPE html>")
    assert not list(tmp_path.glob("*.partial"))


def test_a_wrong_target_says_what_would_be_right(runs: dict[str, Run], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder; name a file, such as .*report\.html"):
        write_report(runs["one"], tmp_path)
    with pytest.raises(InputError, match="does not exist; create it first"):
        write_report(runs["one"], tmp_path / "no" / "r.html")


def test_drawing_arithmetic() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert scale(2.5) == 125.0
    assert scale.ticks(5) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert Scale(3.0, 3.0, 0.0, 10.0)(3.0) == 5.0
    assert steps([(0.0, 1.0), (5.0, 3.0)], 9.0) == "M0 1H5V3H9"
    # up along the upper ends, back along the lower ones
    assert band([(0.0, 1.0, 2.0), (5.0, 3.0, 4.0)], 9.0) == "M0 2H5V4H9V3H5V1H0V1Z"
    assert spread([5.0, 1.0, 2.0], 3.0) == [7.0, 1.0, 4.0]
    drawn = Plot(100, 50, Scale(0, 1, 10, 90), Scale(0, 1, 40, 5)).drawn("a <b>", "x", "y", percent=True)
    assert "a &lt;b&gt;" in drawn
    assert re.search(r">100</text>", drawn)
