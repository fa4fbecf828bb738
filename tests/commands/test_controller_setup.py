"""The controller of a search: `auto` resolved, other runs read, models compared, all of it in the configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from evomerge.commands._controller_setup import decide, search_problem
from evomerge.config import ControllerRequest
from evomerge.controllers import build
from evomerge.errors import InputError
from evomerge.run_config import ControllerConfig
from evomerge.runs import Run, open_run
from evomerge.scoring import ItemPlan
from evomerge.space import build_space
from tests.commands.made import HELD, ITEMS, MERGE, OBJECTIVES, make_run

EXPERTS = Path(__file__).parents[2] / "examples" / "experts"
SPACE = build_space(MERGE, layers=4, modules={}, mask_seed=8)  # another seed than the run's
PLAN = ItemPlan(ITEMS, HELD, {})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(make_run(tmp_path_factory.mktemp("runs") / "made", candidates=16, troubles={5: "candidate"}))


def decided(
    name: str, warm_start: object = None, objectives: tuple = OBJECTIVES, space: object = SPACE
) -> ControllerConfig:
    options = {} if warm_start is None else {"warm_start": str(warm_start)}
    return decide(ControllerRequest(name, options), MERGE, space, objectives, PLAN, 40, read_weights=False)  # type: ignore[arg-type]


def test_auto_is_resolved_and_the_reason_kept_in_the_configuration() -> None:
    found = decided("auto")
    assert found.name == "quadratic"
    assert found.notes[0].startswith("controller quadratic for 2 genes, 2 objectives, a budget of 40 candidates: ")


def test_another_runs_results_are_prior_points_with_their_fitness(run: Run) -> None:
    found = decided("quadratic", run.folder)
    assert found.options == {}
    assert "builds on 15 candidates" in found.notes[0]
    problem = search_problem(found, SPACE, MERGE, OBJECTIVES, PLAN, budget=40, seed=3)
    evaluations = {n: e for n, e in run.data.evaluations().items() if e.failure is None}
    assert [prior.fitness for prior in problem.prior] == [e.fitness(OBJECTIVES) for e in evaluations.values()]
    genes = {candidate.number: candidate.genotype for candidate in run.data.candidates()}
    assert np.allclose([prior.genotype for prior in problem.prior], [genes[n] for n in evaluations], atol=1e-5)
    assert problem.items == (40, 40)
    assert problem.model_weights is not None
    assert problem.model_weights.names == ("left", "right")
    assert len(build("quadratic", problem).ask()) == 4  # a round at once: the design is there


def test_the_configuration_alone_rebuilds_the_controller(run: Run, tmp_path: Path) -> None:
    found = decided("cma-es", run.folder)
    for name in ("cma-es", "quadratic", "tpe"):
        first, second = (
            build(name, search_problem(found, SPACE, MERGE, OBJECTIVES, PLAN, budget=40, seed=3)) for _ in range(2)
        )
        assert np.array_equal(first.ask(), second.ask())


def test_other_objectives_leave_only_a_place_to_begin(run: Run) -> None:
    wanted = (OBJECTIVES[0], replace(OBJECTIVES[1], name="new", task="new"))
    found = decided("cma-es", run.folder, wanted)
    assert "which has no scores for new" in found.notes[0]
    assert found.warm_start.fitness == (None,)
    best = run.best()
    assert best is not None
    assert np.allclose(found.warm_start.points, [best.genotype], atol=1e-5)


def test_a_narrower_space_leaves_out_what_lies_outside(run: Run) -> None:
    merge = {**MERGE, "parameters": {"weight": {"search": [0.0, 0.5], "per": ["model"]}}}
    found = decided("quadratic", run.folder, space=build_space(merge, layers=4, modules={}))
    inside = [c for c in run.data.candidates() if max(c.genotype) <= 0.5 and c.number != 5]
    assert len(found.warm_start.points) == len(inside)
    assert f"{15 - len(inside)} lie outside this space" in found.notes[0]


def test_a_recipe_is_a_point_to_begin_from(run: Run, tmp_path: Path) -> None:
    names = {
        f"org/{name}": str(EXPERTS / real) for name, real in {"base": "base", "left": "add", "right": "sort"}.items()
    }
    text = yaml.safe_dump(MERGE)
    for name, folder in names.items():
        text = text.replace(name, folder)
    space = build_space(yaml.safe_load(text), layers=4, modules={}, mask_seed=8)
    recipe = space.decode(np.array([0.25, 0.75]))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.to_mapping()))
    found = decided("cma-es", path, space=space)
    assert found.warm_start.points == ((0.25, 0.75),)
    assert found.warm_start.fitness == (None,)
    assert found.notes == (f"starts from the recipe {path}",)
    path.write_text(yaml.safe_dump({**recipe.to_mapping(), "merge_method": "ties"}))
    with pytest.raises(InputError, match=r"controller.warm_start: .*recipe.yaml cannot be started from"):
        decided("cma-es", path, space=space)


def test_products_of_task_vectors_are_their_correlations() -> None:
    torch = pytest.importorskip("torch")
    from evomerge.checkpoints import CheckpointReader
    from evomerge.engine import task_vector_products

    names = [str(EXPERTS / name) for name in ("add", "sort", "reverse")]
    with CheckpointReader(str(EXPERTS / "base")) as base:
        root = dict(base.tensors())
        vectors = []
        for name in names:
            with CheckpointReader(name) as reader:
                vectors.append(
                    torch.cat([(t.double() - root[key].double()).reshape(-1) for key, t in reader.tensors()])
                )
    expected = np.corrcoef(torch.stack(vectors).numpy())
    found = np.array(task_vector_products(names, str(EXPERTS / "base")))
    scale = np.sqrt(np.diag(found))
    assert np.allclose(found / np.outer(scale, scale), expected, atol=1e-5)
    assert np.diag(found).mean() == pytest.approx(1.0)
