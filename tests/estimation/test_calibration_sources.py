"""`evomerge calibrate` on whatever holds answers: run folders, lm-eval's sample logs, imported parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evomerge.cli import main
from evomerge.commands import calibrate
from evomerge.errors import InputError
from evomerge.irt import read_bank
from evomerge.run_config import BankConfig
from evomerge.runs import open_run, response_table
from tests.estimation.worlds import HASHES, ITEMS, prepared, search


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources") / "run"
    search(folder, prepared(candidates=9, full_every=3))
    return folder


def test_a_runs_full_answers_become_a_table_named_by_the_items_texts(folder: Path) -> None:
    run = open_run(folder)
    table = response_table(run.data, run.objectives[0])
    full = run.data.full_candidates()
    assert table.models == ("parent base", "parent left", "parent right", *(f"candidate {n}" for n in full))
    assert table.items == tuple(HASHES["left"][item][0] for item in ITEMS["left"])
    for number in full:
        answers = {HASHES["left"][r.item][0]: r.value for r in run.data.responses(number) if r.task == "left"}
        answers |= {
            HASHES["left"][r.item][0]: r.value for r in run.data.responses(number, "search_rest") if r.task == "left"
        }
        assert dict(zip(table.items, table.row(f"candidate {number}"), strict=True)) == answers


def test_the_command_writes_a_bank_that_says_where_it_is_from(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "left.json"
    assert main(["calibrate", str(folder), "--task", "left", "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["metric"], told["source"], told["items"]) == ("left", "acc", "run", 60)
    assert read_bank(out).items == tuple(HASHES["left"][item][0] for item in ITEMS["left"])
    assert main(["calibrate", str(folder), "--out", str(tmp_path / "x.json")]) == 2
    assert "choose one with --task: left, right" in capsys.readouterr().err


def test_a_search_asks_the_items_that_its_bank_chose(folder: Path, tmp_path: Path) -> None:
    """The bank of an earlier, larger run chooses other anchors than the parents alone would, and serves the search."""
    search(tmp_path / "first", prepared(candidates=12, full_every=1))
    bank = tmp_path / "left.json"
    calibrate([tmp_path / "first"], bank, task="left")
    banks = {"left": BankConfig(str(bank), "unused here")}
    search(tmp_path / "second", prepared(candidates=8, full_every=0, banks=banks))
    table = open_run(tmp_path / "second").tables.estimates()
    assert set(table[table["objective"] == "left"]["method"]) <= {"mp-irt", "p-irt"}
    assert set(table[table["objective"] == "right"]["method"]) == {"parents"}
    errors = (table["estimate"] - table["full"]).abs().dropna()
    assert len(errors) >= 2
    assert errors.mean() < 0.15


def test_several_runs_make_one_table(folder: Path, tmp_path: Path) -> None:
    search(tmp_path / "other", prepared(candidates=4, full_every=1))
    bank = calibrate([folder, tmp_path / "other"], task="right")
    assert "run: parent base" in bank.table.models
    assert "other: candidate 3" in bank.table.models


def logs(folder: Path, filters: tuple[str, ...] = ("none",)) -> Path:
    rng = np.random.default_rng(0)
    for model in ("org__a", "org__b", "org__c"):
        (folder / model).mkdir(parents=True)
        for task in ("sums", "words"):
            samples = [
                {"doc_id": j, "doc": {"q": f"{task} {j}"}, "doc_hash": f"{task}-{j}", "filter": name, "acc": right}
                for name in filters
                for j, right in enumerate((rng.random(12) < 0.6).astype(float).tolist())
            ]
            path = folder / model / f"samples_{task}_2026-01-02T03-04-05.678901.jsonl"
            path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


def test_lm_evals_sample_logs(tmp_path: Path) -> None:
    bank = calibrate([logs(tmp_path)], task="sums", metric="acc")
    assert bank.table.models == ("org__a", "org__b", "org__c")
    assert bank.items == tuple(f"sums-{j}" for j in range(12))
    assert (bank.provenance["task"], bank.provenance["metric"]) == ("sums", "acc")
    with pytest.raises(InputError, match="of several tasks; choose one with --task: sums, words"):
        calibrate([tmp_path], metric="acc")
    with pytest.raises(InputError, match="choose one with --metric"):
        calibrate([tmp_path], task="sums")
    with pytest.raises(InputError, match=r"no metric 'accuracy'; it has doc_id, doc"):
        calibrate([tmp_path], task="sums", metric="accuracy")


def test_sample_logs_with_several_filters(tmp_path: Path) -> None:
    folder = logs(tmp_path, ("strict", "flexible"))
    with pytest.raises(InputError, match="occurs twice; name one filter"):
        calibrate([folder], task="sums", metric="acc")
    bank = calibrate([folder], task="sums", metric="acc", filter="strict")
    assert bank.table.responses.shape == (3, 12)
    with pytest.raises(InputError, match=r"no filter 'strickt'\. Near: strict"):
        calibrate([folder], task="sums", metric="acc", filter="strickt")


def test_parameters_of_others_are_turned_into_ours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 0.3, (1, 2, 30)), rng.normal(0.0, 0.5, (1, 1, 30))
    items = np.array([f"hash {j}" for j in range(30)])
    np.savez(tmp_path / "tiny.npz", A=a, B=b, items=items)
    bank = calibrate([tmp_path / "tiny.npz"], tmp_path / "bank.json")
    np.testing.assert_allclose(read_bank(tmp_path / "bank.json").parameters.b, 2.0 * b.reshape(-1))
    assert bank.items == tuple(items)
    assert bank.provenance["simulated"] is True
    np.savez(tmp_path / "nameless.npz", A=a, B=b)
    with pytest.raises(InputError, match="needs 'items' beside 'A' and 'B'"):
        calibrate([tmp_path / "nameless.npz"])


def test_wrong_sources_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither a run"):
        calibrate([tmp_path / "empty"])
    with pytest.raises(InputError, match="run folders only, or sample logs only"):
        calibrate([folder, logs(tmp_path / "logs")])
    with pytest.raises(InputError, match=r"no task objective 'lefty'\. Near: left"):
        calibrate([folder], task="lefty")
