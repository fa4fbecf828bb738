"""A search of routes over the shipped experts, from the file to an exported model that says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import evomerge
from evomerge.commands import check, replay, score
from evomerge.errors import SearchFileError
from evomerge.runs import Run, front_mapping, open_run
from tests.end_to_end.conftest import EXPERTS, TASKS
from tests.pico import make_model

PRUNE = f"""
merge:
  merge_method: passthrough
  models: [{{model: {EXPERTS}/add}}]
route: {{preset: select, keep_first: 1, keep_last: 1, min_layers: 6}}
objectives: [{{task: add}}, {{measure: layers}}, {{measure: parameters}}]
tasks: {{include: [{TASKS}]}}
scoring: {{items: 8, holdout: 0.02}}
controller: {{name: evolution, population: 4}}
budget: {{candidates: 8}}
seed: 3
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("routes")
    (folder / "prune.yaml").write_text(PRUNE)
    return evomerge.search(folder / "prune.yaml", out=folder / "run")


def test_a_front_of_quality_against_depth(run: Run) -> None:
    trials = run.trials()
    assert list(trials["status"]) == ["done"] * 8
    kept = trials[[f"gene.route.keep.layer{layer}" for layer in range(1, 7)]]
    assert list(trials["score.layers"]) == [2 + row.sum() for _, row in kept.iterrows()]
    assert set(trials["stderr.layers"]) == {0.0}
    sizes = {row["score.layers"]: row["score.parameters"] for _, row in trials.iterrows()}
    layer = 4 * 96 * 96 + 3 * 96 * 192 + 2 * 96  # attention, MLP and norms of one layer
    assert sizes[8.0] == 8 * layer + 78 * 96 + 96
    assert len(sizes) > 1
    assert all(sizes[depth] == sizes[8.0] - (8 - depth) * layer for depth in sizes)
    points = front_mapping(run.data)["points"]
    scores = {point["score"]["layers"]: point["score"]["add"] for point in points}
    deeper = sorted(scores)
    assert [scores[depth] for depth in deeper] == sorted(scores[depth] for depth in deeper)
    assert {final.scores["layers"].value for final in run.finals() if final.number < 0} == {8.0}
    parent, *finalists = run.finals()
    for final in finalists:  # the gain is of answers alone: so many layers more or less are no points
        assert final.gain is not None
        assert final.gain.value == pytest.approx(final.scores["add"].value - parent.scores["add"].value)
        assert final.gain.low <= final.gain.value <= final.gain.high


def test_the_start_is_the_parent_and_costs_nothing(run: Run) -> None:
    events = run.tables.events()
    same = events[events["kind"] == "duplicate"]
    assert 0 in set(same["candidate"])
    trials = run.trials()
    assert trials.loc[0, "score.layers"] == 8
    assert trials.loc[0, "score.add"] == run.tables.parents().loc[0, "score.add"]
    digests = trials["digest"]
    submitted = events[(events["kind"] == "submitted") & (events["candidate"] >= 0)]["candidate"]
    assert len(set(submitted)) == len(set(digests)) - 1
    finalists = [run.data.candidate(final.number).recipe.digest for final in run.finals() if final.number >= 0]
    assert len(finalists) == len(set(finalists)) > 1


def test_a_pruned_model_leaves_as_an_ordinary_folder(run: Run, tmp_path: Path) -> None:
    trials = run.trials()
    number = int(trials.sort_values("score.layers")["candidate"].iloc[0])
    depth = int(trials["score.layers"].min())
    run.export(tmp_path / "pruned", pick=str(number))
    found = score(tmp_path / "pruned", tasks=["add"], include=[str(TASKS)])
    again = replay(run.folder, number)
    assert again.same
    recipe = yaml.safe_load((tmp_path / "pruned" / "config.json").read_text())
    assert recipe["num_hidden_layers"] == depth
    # the same model, asked all questions and asked as a recipe
    run.export(tmp_path / "pruned.yaml", pick=str(number), form="recipe")
    routed = score(tmp_path / "pruned.yaml", tasks=["add"], include=[str(TASKS)])
    assert routed.scores["add"].value == found.scores["add"].value
    assert routed.scores["add"].items == 400


def test_check_says_what_is_searched(tmp_path: Path) -> None:
    (tmp_path / "prune.yaml").write_text(PRUNE)
    report = check(tmp_path / "prune.yaml")
    assert report.to_mapping()["route"] == "select over the layers of add (8), 8 slots; no scales"
    assert "  route      select over the layers of add (8), 8 slots; no scales" in report.text().splitlines()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"hidden_size": 32, "num_attention_heads": 4}, "width of the hidden state: 16 and 32"),
        ({"family": "qwen2"}, "architecture: LlamaForCausalLM and Qwen2ForCausalLM"),
        ({"intermediate_size": 40}, "tensor 'model.layers.0.mlp.down_proj.weight': base is (16, 24)"),
    ],
)
def test_layers_that_cannot_follow_each_other(tmp_path: Path, other: dict, message: str) -> None:
    for name, settings in (("a", {}), ("b", {"layers": 3}), ("c", other)):
        make_model(tmp_path / name, **settings)
    text = PRUNE.replace(f"{{model: {EXPERTS}/add}}", ", ".join(f"{{model: {tmp_path}/{name}}}" for name in "abc"))
    (tmp_path / "mixed.yaml").write_text(text.replace("preset: select", "preset: indicators"))
    with pytest.raises(SearchFileError) as caught:
        check(tmp_path / "mixed.yaml")
    (problem,) = [line for line in caught.value.problems if line.startswith("route")]
    assert f"layers of '{tmp_path}/c' cannot run beside those of '{tmp_path}/a': {message}" in problem
    assert problem.endswith("leave it out; these go together: a, b")


def test_a_run_of_routes_is_read_from_its_folder_alone(run: Run) -> None:
    again = open_run(run.folder)
    for candidate in again.data.candidates():
        assert again.space.decode(candidate.genotype) == candidate.recipe
        assert again.space.decode(again.space.encode(candidate.recipe)) == candidate.recipe
