"""A run as an Optuna study: loaded back through Optuna's own door, and drawn by its own figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.cli import main
from evomerge.errors import InputError
from evomerge.runs import open_run, write_study
from evomerge.runs._optuna_storage import _distribution, _trial
from evomerge.space import Gene
from tests.commands.made import make_run

optuna = pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "made", candidates=12, troubles={3: "candidate"})


@pytest.fixture(scope="module")
def study(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    url = f"sqlite:///{tmp_path_factory.mktemp('optuna')}/made.db"
    assert main(["trials", str(folder), "--optuna", url]) == 0
    return optuna.load_study(study_name="made", storage=url)  # another reader, from the file


def test_every_candidate_is_a_trial_with_its_numbers(folder: Path, study: optuna.Study) -> None:
    table = open_run(folder).trials().set_index("candidate")
    assert [trial.user_attrs["candidate"] for trial in study.trials] == list(table.index)
    for trial in study.trials:
        row = table.loc[trial.user_attrs["candidate"]]
        assert trial.params == {name: row[f"gene.{name}"] for name in ("weight.left", "weight.right")}
        assert trial.user_attrs["digest"] == row["digest"]
        if row["status"] == "failed":
            assert trial.state == optuna.trial.TrialState.FAIL
            assert trial.user_attrs["failure"] == row["failure"]
            continue
        assert trial.values == [row["score.left"], row["score.right"]]
        assert trial.user_attrs["stderr.left"] == row["stderr.left"]
        assert trial.user_attrs["items.right"] == 40
        assert trial.duration is not None


def test_its_pareto_front_is_ours(folder: Path, study: optuna.Study) -> None:
    ours = set(open_run(folder).front()["candidate"])
    assert {trial.user_attrs["candidate"] for trial in study.best_trials} == ours
    assert study.metric_names == ["left", "right"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MAXIMIZE"]


def test_genes_become_the_distributions_that_they_are() -> None:
    floats, whole = Gene("w", "float", 0.01, 1.0, log=True), Gene("n", "int", 1, 5)
    choice = Gene("m", "choice", choices=("ties", "linear"))
    assert _distribution(floats) == optuna.distributions.FloatDistribution(0.01, 1.0, log=True)
    assert _distribution(whole) == optuna.distributions.IntDistribution(1, 5)
    assert _distribution(choice) == optuna.distributions.CategoricalDistribution(("ties", "linear"))


def test_a_study_is_not_written_twice_and_a_wrong_address_is_named(folder: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    write_study(open_run(folder), url)
    with pytest.raises(InputError, match="'made' already"):
        write_study(open_run(folder), url)
    assert len(write_study(open_run(folder), url, name="again").trials) == 12
    with pytest.raises(InputError, match=r"sqlite:///run\.db"):
        write_study(open_run(folder), "run.db")


@pytest.mark.filterwarnings("ignore:PedAnova")  # how it ranks is Optuna's affair; that it can is ours
def test_optunas_own_figures_take_it(study: optuna.Study) -> None:
    pytest.importorskip("plotly", reason="optuna.visualization draws with plotly")
    figure = optuna.visualization.plot_pareto_front(study)
    assert sum(len(trace.x) for trace in figure.data) == 11
    importances = optuna.visualization.plot_param_importances(
        study, target=lambda trial: trial.values[0], target_name="left"
    )
    assert set(importances.data[0].y) == {"weight.left", "weight.right"}


def test_a_candidate_that_a_race_stopped_is_pruned_and_keeps_its_numbers_as_attributes(folder: Path) -> None:
    run = open_run(folder)
    candidate = run.data.candidates()[0]
    row = run.trials().iloc[0].to_dict()
    trial = _trial(run, candidate, run.data.evaluations()[candidate.number], row, None, complete=False)
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.values is None
    assert trial.user_attrs["items.left"] == 40
    study = optuna.create_study(directions=["maximize", "maximize"])
    study.add_trial(trial)
    assert study.best_trials == []
