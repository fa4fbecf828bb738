"""A controller and a metric defined outside the package, each registered in one line, serve search files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evomerge
from evomerge.candidate import Response
from evomerge.config import load_search_file, search_file_schema
from evomerge.config._reference import markdown
from evomerge.controllers import CONTROLLERS, SearchProblem
from evomerge.controllers._proposals import Proposals
from evomerge.controllers._registry import ControllerInfo, register_controller
from evomerge.errors import InputError, SearchFileError
from evomerge.metric_kinds import METRICS, MetricInfo, register_metric
from evomerge.option_fields import option
from evomerge.scoring import Measure
from evomerge.scoring.metrics._metric import ModelInterface

EXPERTS = Path(__file__).parent.parent.parent / "examples" / "experts"


@dataclass(frozen=True)
class LineOptions:
    step: float = option(0.1, "distance of two points, as a fraction of each range", gt=0, le=0.5)
    backwards: bool = option(False, "begin at the far end")


class Line:
    """Proposes points of the diagonal, one after another."""

    def __init__(self, problem: SearchProblem, options: LineOptions) -> None:
        self._dimensions, self._options = problem.dimensions, options
        self._proposals = Proposals(problem.objectives)

    def ask(self) -> list[np.ndarray]:
        (index,) = self._proposals.hand_out(1)
        position = min(1.0, index * self._options.step)
        return [np.full(self._dimensions, 1.0 - position if self._options.backwards else position)]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        self._proposals.take_back(index, fitness)

    def stop(self) -> dict[str, str]:
        return {}


@dataclass(frozen=True)
class MarginOptions:
    better: str = option(help="continuation that should be the likelier one")
    worse: str = option("!", "continuation that it is compared with")
    scale: float = option(1.0, "multiplies the margin", gt=0)


def margin(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], model: ModelInterface
) -> list[Response]:
    """Return how much likelier one continuation is than another, in nats."""
    found = []
    for item, document in zip(items, documents, strict=True):
        pairs = [(document["prompt"], measure.settings[key]) for key in ("better", "worse")]
        better, worse = model.likelihoods(measure.name, pairs)
        found.append(Response(measure.name, item, "nats", measure.settings["scale"] * (better - worse)))
    return found


def sums(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"prompt": f"{number}+1="} for number in range(8)]


MARGIN = MetricInfo("margin", "nats", margin, options=MarginOptions, documents=sums, cacheable=True)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_controller(ControllerInfo("line", Line, LineOptions))
    register_metric(MARGIN)
    yield
    del CONTROLLERS["line"], METRICS["margin"]


def written(folder: Path, controller: str, objective: str = "{perplexity: {file: text.txt, chunk: 40}}") -> Path:
    (folder / "text.txt").write_text("12+30=42\n" * 40)
    file = folder / "search.yaml"
    file.write_text(f"""
merge:
  merge_method: task_arithmetic
  base_model: {EXPERTS}/base
  models: [{{model: {EXPERTS}/add}}, {{model: {EXPERTS}/sort}}]
  parameters: {{weight: {{search: [0.0, 1.0], per: [model]}}}}
  dtype: float32
objectives: [{objective}]
controller: {controller}
budget: {{candidates: 3}}
""")
    return file


def test_a_search_runs_with_the_controllers_own_options(tmp_path: Path) -> None:
    file = written(tmp_path, "{name: line, step: 0.25, backwards: true}")
    run = evomerge.search(file, out=tmp_path / "run")
    assert run.trials()["gene.weight.add"].tolist() == [1.0, 0.75, 0.5]
    resumed = evomerge.resume(tmp_path / "run", candidates=4)
    assert resumed.trials()["gene.weight.sort"].tolist() == [1.0, 0.75, 0.5, 0.25]


def test_mistakes_in_its_options_have_a_line_and_near_names(tmp_path: Path) -> None:
    with pytest.raises(SearchFileError) as caught:
        load_search_file(written(tmp_path, "{name: line, stepp: 0.25, backwards: 3}"))
    assert "controller.stepp: unknown key. Near: step." in str(caught.value)
    assert "controller.backwards: must be true or false, got 3" in str(caught.value)
    with pytest.raises(SearchFileError, match=r"controller.step: must be a number above 0 and of at most 0.5, got 0.7"):
        load_search_file(written(tmp_path, "{name: line, step: 0.7}"))


def test_the_schema_and_the_reference_show_its_options() -> None:
    properties = search_file_schema()["properties"]["controller"]["anyOf"][0]["properties"]
    assert "line" in properties["name"]["anyOf"][0]["enum"]
    assert properties["step"]["description"] == "line: distance of two points, as a fraction of each range"
    assert "| `backwards` | true or false |" in markdown()


def test_two_controllers_cannot_share_a_name() -> None:
    register_controller(ControllerInfo("line", Line, LineOptions))  # the same row again changes nothing
    with pytest.raises(InputError, match="controller 'line' is registered already"):
        register_controller(ControllerInfo("line", Line))


def test_a_search_runs_with_a_metric_and_its_options(tmp_path: Path) -> None:
    scores = []
    for scale in (1, 2):
        file = written(tmp_path, "{name: line, step: 0.5}", f'{{margin: {{better: "5", scale: {scale}}}}}')
        run = evomerge.search(file, out=tmp_path / f"run{scale}")
        scores.append(run.trials()["score.margin"].to_numpy())
    assert len(set(scores[0])) == 3
    assert np.allclose(scores[1], 2 * scores[0])


def test_mistakes_in_a_metrics_options_have_a_place(tmp_path: Path) -> None:
    with pytest.raises(SearchFileError) as caught:
        load_search_file(written(tmp_path, "{name: line}", "{margin: {betterr: a, scale: 0}}"))
    said = str(caught.value)
    assert "objectives[0].margin.betterr: unknown key. Near: better." in said
    assert "objectives[0].margin.scale: must be a number above 0, got 0" in said
    assert "objectives[0].margin: better is missing: continuation that should be the likelier one" in said
    properties = search_file_schema()["properties"]["objectives"]["items"]["properties"]
    assert "margin" in properties
    assert "### `objectives[].margin`" in markdown()


def test_a_measure_takes_its_row_along_to_a_worker() -> None:
    sent = pickle.dumps(Measure("margin", "margin", {"better": "5"}))
    del METRICS["margin"]
    assert pickle.loads(sent).objective().metric == "nats"
    assert METRICS["margin"] == MARGIN


def test_two_metrics_cannot_share_a_name() -> None:
    with pytest.raises(InputError, match="metric 'layers' is registered already"):
        register_metric(MetricInfo("layers", "layers", margin))


@dataclass(frozen=True)
class CopyOptions:
    copy: int = option(2, "hides a method of pydantic's models where a key becomes an attribute of that name", ge=1)
    model_size: int | None = option(None, "begins with a word that pydantic reserves")


def test_an_option_may_be_called_like_a_method_of_pydantic(tmp_path: Path) -> None:
    register_controller(ControllerInfo("copying", Line, CopyOptions))
    try:
        file = load_search_file(written(tmp_path, "{name: copying, copy: 3, model_size: 4}"))
        assert file.controller.options == {"copy": 3, "model_size": 4}
        with pytest.raises(SearchFileError, match=r"controller.copy: must be a whole number of at least 1, got 0"):
            load_search_file(written(tmp_path, "{name: copying, copy: 0}"))
    finally:
        del CONTROLLERS["copying"]


def test_rules_between_keys_are_checked_beside_mistakes_in_a_section(tmp_path: Path) -> None:
    with pytest.raises(SearchFileError) as caught:
        load_search_file(written(tmp_path, "{name: line, step: 9, warm_start: no/where}", "{judge: {url: ftp://x}}"))
    said = str(caught.value)
    assert "controller.step: must be a number above 0 and of at most 0.5, got 9" in said
    assert "controller.warm_start: no such run folder or recipe: " in said
    assert "controller.warm_start: line cannot start from other results; those that can: " in said
    assert "objectives[0].judge.url: must begin with http:// or https://, got 'ftp://x'" in said
    assert "objectives[0].judge: model is missing: the judge's name there" in said
    assert "task is missing" not in said
