"""The reader of a run folder: tables, front, best, status, all from stored responses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evomerge.archive import Archive
from evomerge.errors import InputError, RunError
from evomerge.runs import Run, front_mapping, open_run
from tests.clock import BACKSTOP
from tests.commands.made import HELD, ITEMS, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=16, troubles={5: "candidate"}))


def test_trials_has_the_contract_columns_and_one_row_per_candidate(run: Run) -> None:
    table = run.trials()
    assert list(table.columns) == [
        *("candidate", "status", "failure", "seconds", "worker", "digest"),
        *("score.left", "score.right", "stderr.left", "stderr.right", "items.left", "items.right"),
        *("gene.weight.left", "gene.weight.right"),
    ]
    assert list(table["candidate"]) == list(range(16))
    assert table["digest"].str.len().eq(64).all()


def test_scores_are_the_means_of_the_stored_responses(run: Run) -> None:
    items = run.items()
    table = run.trials().set_index("candidate")
    for number in (0, 7, 15):
        for task in ("left", "right"):
            values = items[(items["candidate"] == number) & (items["task"] == task)]["value"]
            assert len(values) == len(ITEMS[task])
            assert table.loc[number, f"score.{task}"] == values.mean()
            assert table.loc[number, f"stderr.{task}"] == pytest.approx(values.std(ddof=1) / np.sqrt(len(values)))


def test_a_failed_candidate_is_a_row_with_a_message_and_no_number(run: Run) -> None:
    row = run.trials().set_index("candidate").loc[5]
    assert row["status"] == "failed"
    assert "NaN" in row["failure"]
    assert np.isnan(row["score.left"])
    assert row["items.left"] == 0
    failures = run.tables.failures()
    assert list(failures["candidate"]) == [5]
    assert list(failures["kind"]) == ["candidate"]
    assert 5 not in set(run.front()["candidate"])


def test_genes_are_in_the_users_units_and_match_the_recipe(run: Run) -> None:
    row = run.trials().set_index("candidate").loc[3]
    weights = [dict(source.parameters)["weight"] for source in run.data.candidate(3).recipe.models]
    assert [row["gene.weight.left"], row["gene.weight.right"]] == weights


def test_front_is_exactly_what_brute_force_finds(run: Run) -> None:
    table = run.trials().dropna(subset=["score.left"]).set_index("candidate")[["score.left", "score.right"]]
    expected = {
        number
        for number, row in table.iterrows()
        if not any((other >= row).all() and (other > row).any() for _, other in table.iterrows())
    }
    front = run.front()
    kept = {tuple(row) for row in table.loc[sorted(expected)].to_numpy()}
    assert {tuple(row) for row in front[["score.left", "score.right"]].to_numpy()} == kept
    assert len(front) == len(kept)  # of equal candidates one is kept
    assert front["measured"].all()
    assert set(front["candidate"]) <= expected


def test_front_mapping_has_the_contract_form_and_the_worst_parent_as_reference(run: Run) -> None:
    mapping = front_mapping(run.data)
    assert mapping["objectives"] == ["left", "right"]
    parents = run.tables.parents()
    assert mapping["reference"] == {name: parents[f"score.{name}"].min() for name in ("left", "right")}
    point = mapping["points"][0]
    assert set(point) == {"candidate", "measured", "score", "stderr"}
    gains = [np.array([p["score"][n] - mapping["reference"][n] for n in ("left", "right")]) for p in mapping["points"]]
    area, height = 0.0, 0.0
    for x, y in sorted((tuple(g) for g in gains if (g > 0).all()), reverse=True):
        area, height = area + x * max(0.0, y - height), max(height, y)
    assert mapping["hypervolume"] == pytest.approx(area)


def test_best_is_the_highest_mean_and_picks_are_on_the_front(run: Run) -> None:
    table = run.trials().dropna(subset=["score.left"])
    means = table[["score.left", "score.right"]].mean(axis=1)
    best = run.best()
    assert best is not None
    assert best.number == table.loc[means.idxmax(), "candidate"]
    front = run.front().set_index("candidate")
    assert run.pick("left=1").number == front["score.left"].idxmax()
    assert run.pick("right=1").number == front["score.right"].idxmax()
    assert run.pick("knee").number in front.index
    assert run.pick("3").number == 3


@pytest.mark.parametrize(
    ("pick", "words"),
    [
        ("99", "no such candidate"),
        ("5", "failed"),
        ("lefty=1", "unknown objective 'lefty'. Near: left"),
        ("left=much", "must be a number"),
        ("bestest", "expected best, knee"),
        ("left=0", "not all 0"),
    ],
)
def test_a_wrong_pick_says_what_would_be_right(run: Run, pick: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        run.pick(pick)


def test_finals_compare_item_by_item_with_the_best_parent(run: Run) -> None:
    finals = run.finals()
    assert [final.number >= 0 for final in finals] == [False, False, False, True, True]
    parents = [final for final in finals if final.number < 0]
    assert parents[0].score.value == max(final.score.value for final in parents)
    items = run.items("holdout")
    for final in finals[3:]:
        mine = items[items["candidate"] == final.number].set_index("item")["value"]
        best = items[items["candidate"] == parents[0].number].set_index("item")["value"]
        assert len(mine) == sum(len(ids) for ids in HELD.values())
        assert final.gain is not None
        assert final.against == parents[0].name
        assert final.gain.value == pytest.approx((mine - best).mean())
        assert final.gain.low < final.gain.value < final.gain.high
        assert final.joint is not None
        assert final.joint.value == final.gain.value
        assert final.joint.low < final.gain.low < final.gain.high < final.joint.high
    assert "simultaneous 95% intervals" in run.summary()


def test_status_counts_and_state(run: Run) -> None:
    status = run.status()
    assert {"state", "candidates", "done", "failed", "best", "front_size", "seconds"} <= set(status)
    assert status["state"] == "finished"
    assert (status["candidates"], status["done"], status["failed"]) == (16, 15, 1)
    assert status["front_size"] == len(run.front())
    assert status["last_failures"][0]["candidate"] == 5
    assert "candidate 5 (candidate)" in run.status_text()


def test_state_is_running_while_somebody_writes_and_stopped_when_he_is_gone(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "made", candidates=2)
    run = open_run(folder)
    with Archive.open(folder, read_only=False) as archive:
        archive.put_event("resumed")
        assert run.state == "running"
    assert run.state == "stopped"


def test_summary_prints_front_verdict_and_the_next_command(run: Run) -> None:
    text = run.summary()
    assert "Pareto front" in text
    assert "parent left" in text
    assert "95% interval" in text
    assert f"evomerge export {run.folder} --to" in text
    finalists = {final.number: final for final in run.finals() if final.gain is not None}
    best = run.best()
    assert best is not None
    assert (f"Best candidate by search items, candidate {best.number}" in text) == (best.number in finalists)


def test_a_folder_without_a_run_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="does not exist"):
        open_run(tmp_path / "nothing")
    with pytest.raises(RunError, match="evomerge search FILE --out"):
        open_run(tmp_path)


def test_a_run_is_read_without_torch_ray_or_lm_eval(run: Run) -> None:
    code = (
        "import sys\n"
        "HEAVY = {'torch', 'transformers', 'ray', 'lm_eval', 'cma', 'optuna', 'safetensors', 'altair'}\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in HEAVY:\n"
        "            raise ModuleNotFoundError('not installed: ' + name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import evomerge\n"
        f"run = evomerge.open_run({str(run.folder)!r})\n"
        "print(len(run.trials()), len(run.front()), run.best().number, run.status()['state'])\n"
        "print(run.summary()[:10])\n"
        "print(run.compare('best', 'left').overall.items, len(run.tables.history()))\n"
        "print(len(run.front()._repr_html_()) > 0)\n"
        "from evomerge.reports import report_html\n"
        "print('<!DOCTYPE html>' in report_html(run))\n"
        "print(sorted(HEAVY & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=BACKSTOP)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["16", str(len(run.front()))]
    assert done.stdout.splitlines()[-2:] == ["True", "[]"]
