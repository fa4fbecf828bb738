"""A controller defined outside the package, registered in one line, serves search files with its own options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import evomerge
from evomerge.controllers.proposals import Proposals
from evomerge.controllers.protocol import Setup
from evomerge.controllers.registry import CONTROLLERS, ControllerInfo, register_controller
from evomerge.errors import InputError, SearchFileError
from evomerge.options import option
from evomerge.searchfile import load_search_file
from evomerge.searchfile.reference import markdown
from evomerge.searchfile.schema import search_file_schema

EXPERTS = Path(__file__).parent.parent.parent / "examples" / "experts"


@dataclass(frozen=True)
class LineOptions:
    step: float = option(0.1, "distance of two points, as a fraction of each range", gt=0, le=0.5)
    backwards: bool = option(False, "begin at the far end")


class Line:
    """Proposes points of the diagonal, one after another."""

    def __init__(self, setup: Setup, options: LineOptions) -> None:
        self._dimensions, self._options = setup.dimensions, options
        self._proposals = Proposals(setup.objectives)

    def ask(self) -> list[np.ndarray]:
        (index,) = self._proposals.hand_out(1)
        place = min(1.0, index * self._options.step)
        return [np.full(self._dimensions, 1.0 - place if self._options.backwards else place)]

    def tell(self, index: int, fitness: Sequence[float] | None) -> None:
        self._proposals.take_back(index, fitness)

    def stop(self) -> dict[str, str]:
        return {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_controller(ControllerInfo("line", Line, LineOptions))
    yield
    del CONTROLLERS["line"]


def written(folder: Path, controller: str) -> Path:
    (folder / "text.txt").write_text("12+30=42\n" * 40)
    file = folder / "search.yaml"
    file.write_text(f"""
merge:
  merge_method: task_arithmetic
  base_model: {EXPERTS}/base
  models: [{{model: {EXPERTS}/add}}, {{model: {EXPERTS}/sort}}]
  parameters: {{weight: {{search: [0.0, 1.0], per: [model]}}}}
  dtype: float32
objectives: [{{perplexity: {{file: text.txt, chunk: 40}}}}]
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
