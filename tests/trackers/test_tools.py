"""Each tool holds what the run holds: read back by the tool's own reader, after one session, several, and a crash."""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.reports.trackers._metric_stream import RunMetrics
from evomerge.reports.trackers._mlflow import MlflowLog
from evomerge.reports.trackers._tensorboard import TensorBoardLog
from evomerge.reports.trackers._values import LoggedStep
from evomerge.runs import Run, open_run
from tests.trackers.worlds import COMPARED, FAILS, Followed, agrees

N = 14


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Followed:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_PROJECT", "WANDB_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return Followed(tmp_path / "run")


def in_three_sessions(world: Followed, log: str) -> Run:
    world.session(5, [log])
    world.session(9)  # without a word, a session goes on where the last one logged to
    run = world.session(N, end=True)
    assert [text for text in world.said if "fails; the search" in text] == []
    return run


def winner(run: Run) -> Any:
    best = run.best()
    assert best is not None
    return next(final for final in run.finals() if final.number == best.number)


# -- TensorBoard --------------------------------------------------------------------------------------------------


def board(folder: Path) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder), size_guidance={reader.SCALARS: 0, reader.TENSORS: 0})
    found.Reload()
    return found


def scalars(found: Any, key: str) -> dict[int, float]:
    events = found.Scalars(key)
    assert len({event.step for event in events}) == len(events), f"{key}: a step is there twice"
    return {event.step: event.value for event in events}


def test_tensorboard_holds_every_step_once(world: Followed) -> None:
    run = in_three_sessions(world, "tensorboard")
    folder = world.folder / "tensorboard"
    found = board(folder)
    assert all(agrees(scalars(found, key), run, key) for key in COMPARED)
    failed = scalars(found, "search/failed")
    assert failed == {number: float(number >= FAILS) for number in range(N)}
    assert scalars(found, "holdout/gain_low")[N - 1] == pytest.approx(winner(run).gain.low)
    settings = found.Tensors("search/settings/text_summary")
    assert len(settings) == 1
    assert "| controller.name | sobol |" in settings[0].tensor_proto.string_val[0].decode()
    assert "Held-out items" in found.Tensors("search/finished/text_summary")[0].tensor_proto.string_val[0].decode()


def test_tensorboard_shows_genes_as_hyperparameters(world: Followed) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    run = in_three_sessions(world, "tensorboard")
    sessions = sorted((world.folder / "tensorboard" / "candidates").iterdir(), key=lambda path: int(path.name))
    assert [int(path.name) for path in sessions] == [n for n in range(N) if n != FAILS]
    table = run.trials().set_index("candidate")
    for path in (sessions[0], sessions[-1]):
        data = board(path).summary_metadata["_hparams_/session_start_info"].plugin_data.content
        genes = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
        for name in ("weight.left", "weight.right"):
            assert genes[name].number_value == pytest.approx(table.loc[int(path.name), f"gene.{name}"])


def test_tensorboard_takes_back_a_step_that_a_crash_broke_off(world: Followed) -> None:
    world.session(5, ["tensorboard"])
    folder = world.folder / "tensorboard"
    source = RunMetrics(open_run(world.folder), "x")
    tracker = TensorBoardLog()
    assert tracker.begin(source.info()).first == 5
    tracker._writer.add_scalar("score/left", 99.0, 5)  # then the process was killed, before the rest of step 5
    tracker._writer.close()
    assert scalars(board(folder), "score/left")[5] == 99.0
    run = world.session(N, end=True)
    assert agrees(scalars(board(folder), "score/left"), run, "score/left")


# -- MLflow -------------------------------------------------------------------------------------------------------


def store(world: Followed) -> tuple[Any, Any, list[Any]]:
    tracking = pytest.importorskip("mlflow.tracking")
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{world.folder.parent}/runs.db")
    experiment = client.get_experiment_by_name("evomerge").experiment_id
    everything = client.search_runs([experiment], max_results=1000)
    parents = [run for run in everything if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1, "a resumed search is the same run"
    return client, parents[0], [run for run in everything if "mlflow.parentRunId" in run.data.tags]


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")  # MLflow's own use of SQLAlchemy
def test_mlflow_holds_every_step_once_after_an_interruption_and_a_crash(world: Followed) -> None:
    pytest.importorskip("mlflow")
    world.session(5, [f"mlflow:sqlite:///{world.folder.parent}/runs.db"])
    client, parent, _ = store(world)
    assert parent.info.status == "KILLED"
    tracker = MlflowLog(f"sqlite:///{world.folder.parent}/runs.db")
    info = replace(RunMetrics(open_run(world.folder), "").info(), identity=parent.data.tags["evomerge.id"])
    assert tracker.begin(info).first == 5
    scores = {"score/left": 0.0}
    tracker._nested(
        LoggedStep(5, 1.0, scores, {"weight.left": 0.5})
    )  # then the process was killed, before step 5 itself
    assert client.get_run(parent.info.run_id).info.status == "RUNNING"
    run = world.session(N, end=True)
    assert [text for text in world.said if "fails; the search" in text] == []
    client, parent, children = store(world)
    for key in COMPARED:
        history = client.get_metric_history(parent.info.run_id, key)
        assert len({entry.step for entry in history}) == len(history), f"{key}: a step is there twice"
        assert agrees({entry.step: entry.value for entry in history}, run, key)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "run"
    assert parent.data.params["controller.name"] == "sobol"
    assert parent.data.params["merge.parameters.weight"] == "{search: [0.0, 1.0]}"
    assert parent.data.tags["evomerge.controller"] == "sobol"
    assert parent.data.metrics["holdout/gain"] == pytest.approx(winner(run).gain.value)
    table = run.trials().set_index("candidate")
    assert sorted(child.info.run_name for child in children) == sorted(f"candidate {n}" for n in range(N))
    for child in children:
        number = int(child.data.tags["evomerge.candidate"])
        assert child.info.status == ("FAILED" if number == FAILS else "FINISHED")
        if number == 5:  # the one that was there already
            continue
        assert float(child.data.params["weight.left"]) == pytest.approx(table.loc[number, "gene.weight.left"])
        assert number == FAILS or child.data.metrics["score/left"] == pytest.approx(table.loc[number, "score.left"])


# -- Weights & Biases ---------------------------------------------------------------------------------------------


def records(folder: Path) -> Iterator[tuple[str, Any]]:
    """Yield (run id, record) of everything that wandb wrote offline, which `wandb sync` would send."""
    messages = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        for data in leveldb_records(path.read_bytes()[7:], first=7):
            yield path.stem.removeprefix("run-"), messages.Record.FromString(data)


def leveldb_records(data: bytes, first: int) -> Iterator[bytes]:
    """Yield the records of a log in LevelDB's format: blocks of 32 KiB with fragments, which wandb's files are.

    Args:
        data: the file without its header.
        first: the header's bytes, which are part of the first block.
    """
    whole, place = b"", 0
    while place + 7 <= len(data):
        left = 32768 - (place + first) % 32768
        if left < 7:  # the rest of a block that is too short for a fragment's head
            place += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


def test_wandb_holds_every_step_once(world: Followed) -> None:
    import json

    run = in_three_sessions(world, "wandb:lab")
    found: dict[str, dict[int, float]] = defaultdict(dict)
    summary: dict[str, Any] = {}
    identities, projects = set(), set()
    for identity, record in records(world.folder):
        identities.add(identity)
        if record.HasField("run"):
            projects.add(record.run.project)
        for item in record.summary.update:
            summary[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
        if record.HasField("history"):
            step = record.history.step.num
            for item in record.history.item:
                key = "/".join(item.nested_key) or item.key
                assert step not in found[key], f"{key}: step {step} is there twice"
                found[key][step] = json.loads(item.value_json)
    assert len(identities) == 1
    assert projects == {"lab"}
    assert all(agrees(found[key], run, key) for key in COMPARED)
    table = run.trials().set_index("candidate")
    assert found["gene/weight.left"] == {n: table.loc[n, "gene.weight.left"] for n in range(N)}
    assert summary["holdout/gain"] == pytest.approx(winner(run).gain.value)
    assert summary["state"] == "finished"
    [file] = [p for p in world.folder.glob("wandb/offline-run-*/files/media/table/*.json")]
    trials = json.loads(file.read_text())
    assert len(trials["data"]) == N
    assert re.match("candidate|status", trials["columns"][0])
