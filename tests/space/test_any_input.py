"""Whatever stands in a file, reading it gives a value or a SearchFileError, never another exception."""

from __future__ import annotations

import copy

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.config import SearchFile, load_recipe, load_search_file
from evomerge.errors import SearchFileError
from evomerge.recipe import Recipe
from tests.space.files import QUICKSTART, SMALL

SLICES = """\
merge_method: {search: [slerp, nuslerp]}
base_model: org/b
slices:
  - sources:
      - {model: org/b, layer_range: [0, 4]}
      - {model: org/y, layer_range: [0, 4], parameters: {weight: [{filter: a, value: [1, 2]}, {value: 1}]}}
    parameters: {t: {search: [0, 1], per: [{blocks: 2}, {modules: [mlp, other]}], start: 0.5}}
parameters: {weight: 1}
dtype: float32
"""
DOCUMENTS = [
    yaml.safe_load(QUICKSTART),
    yaml.safe_load(SMALL),
    {**yaml.safe_load(SMALL), "merge": yaml.safe_load(SLICES)},
]
JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, float("nan"), float("inf"), "", "x", "*", "a+b", "+", "@", [], {}, [None], [[]], [{}],
     [1, 2], ["a", "b"], {"search": None}, {"search": {}}, {"search": [0, 1]}, {"search": ["ties", "linear"]},
     {"search": [0, 1], "per": "layer"}, {"search": [0, 1], "per": ["model", {"knots": 2}]}, {"value": 1},
     {"filter": 1, "value": []}, {"value": {"search": [True, False]}}, {"model": "org/z"}, "union", 10**400]
)  # fmt: skip


def places(node, place=()):
    yield place
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, child in children:
        yield from places(child, (*place, step))


def assert_located(error: SearchFileError, word: str = "") -> None:
    assert error.problems
    assert all(problem.startswith("line ") and word in problem for problem in error.problems)


@st.composite
def damaged(draw, documents):
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(list(places(document))))
        if not place:
            continue
        parent = document
        for step in place[:-1]:
            parent = parent[step]
        if draw(st.booleans()) and isinstance(parent, dict):
            parent[draw(st.sampled_from([place[-1], "search", "parameters", "x"]))] = copy.deepcopy(draw(JUNK))
        elif draw(st.booleans()):
            parent[place[-1]] = copy.deepcopy(draw(JUNK))
        else:
            del parent[place[-1]]
    return document


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged(DOCUMENTS))
def test_damaged_search_files_are_read_or_refused(write, document):
    path = write(yaml.safe_dump(document))
    try:
        file = load_search_file(path)
    except SearchFileError as error:
        assert_located(error)
        return
    assert isinstance(file, SearchFile)
    try:
        space = file.space(layers=4, modules={"attention": ("attn",), "mlp": ("mlp",)})
    except SearchFileError as error:  # only what needs the model can still be wrong
        assert_located(error, "layer")
        return
    recipe = space.decode([0.3] * space.dimension)
    assert space.decode(space.encode(recipe)) == recipe


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged([document["merge"] for document in DOCUMENTS]))
def test_damaged_recipes_are_read_or_refused(write, document):
    try:
        assert isinstance(load_recipe(write(yaml.safe_dump(document))), Recipe)
    except SearchFileError as error:
        assert_located(error)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?, \n\t0é", max_size=40))
def test_any_text_is_read_or_refused(write, text):
    with pytest.raises(SearchFileError):
        load_search_file(write(text))
