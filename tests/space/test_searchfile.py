from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from evomerge.config import (
    BudgetRequest,
    ControllerRequest,
    ObjectiveRequest,
    ScoringRequest,
    load_recipe,
    load_search_file,
)
from evomerge.errors import InputError, SearchFileError
from evomerge.recipe import recipe_from_mapping
from evomerge.space import model_places
from tests.space.files import SMALL, problems

MODULES = {"attention": (".self_attn.",), "mlp": (".mlp.",)}


def test_the_example_of_the_design_means_what_it_says(write, quickstart, folder):
    path = write(quickstart)
    file = load_search_file(path)
    experts = folder.parent / "experts"
    assert (file.path, file.text, file.seed, file.route) == (str(path), quickstart, 7, None)
    assert file.objectives == (ObjectiveRequest("add"), ObjectiveRequest("sort", "exact_match", "maximize"))
    assert file.include == (str(folder.parent / "tasks"),)
    assert file.scoring == ScoringRequest(items=100, holdout=0.5, estimator="mean", lm_eval={"num_fewshot": 0})
    assert file.controller == ControllerRequest("cma-es", {"population": 12})
    assert file.budget == BudgetRequest(candidates=300, hours=1.0)
    assert file.merge["base_model"] == str(experts / "base")
    assert [entry["model"] for entry in file.merge["models"]] == [str(experts / n) for n in ("add", "sort", "spell")]
    space = file.space(layers=8, modules=MODULES)
    assert space.dimension == 24
    assert space.mask_seed == 7


def test_everything_optional_has_a_default(write):
    file = load_search_file(write(SMALL))
    assert file.scoring == ScoringRequest(items=None, holdout=0.5, estimator="mean", lm_eval={}, racing=None)
    assert file.controller == ControllerRequest("cma-es")
    assert (file.budget, file.seed, file.include) == (BudgetRequest(candidates=10), 0, ())
    assert file.merge["models"] == [{"model": "org/x"}, {"model": "org/y"}]


def test_all_mistakes_come_at_once_each_with_its_line(write, quickstart):
    text = quickstart
    for right, wrong in [
        ("density: {search", "denisty: {search"),
        ("[0.0, 1.5]", "[1.5, 0.5]"),
        ("experts/spell", "experts/spel"),
        ("items: 100", "items: ten"),
        ("seed: 7", "sead: 7"),
    ]:
        assert right in text
        text = text.replace(right, wrong)
    path = write(text)
    found = problems(path)
    missing = path.parent.parent / "experts" / "spel"
    assert len(found) == 5
    assert found[0].startswith(f"line 7, merge.models[2].model: no such folder: {missing};")
    assert found[1] == "line 9, merge.parameters.weight.search: low 1.5 is above high 0.5; write [0.5, 1.5]"
    assert found[2].startswith("line 10, merge.parameters.denisty: unknown parameter of ties. Near: density. Known:")
    assert found[3] == "line 19, scoring.items: must be a whole number of at least 1, got 'ten'"
    assert found[4].startswith("line 25, sead: unknown key. Near: seed. Known: merge, objectives, constraints, tasks,")
    with pytest.raises(SearchFileError, match="has 5 problems:\n  line 7, merge"):
        load_search_file(path)


def test_one_mistake_is_reported_once(write):
    assert len(problems(write(SMALL.replace("[0, 1]", "[1, 0], per: [model]")))) == 1
    assert len(problems(write(SMALL.replace("weight:", "wieght:")))) == 1


def test_mistakes_that_need_the_model_have_lines_too(write, quickstart):
    file = load_search_file(write(quickstart))
    with pytest.raises(SearchFileError) as caught:
        file.space(layers=3, modules=MODULES)
    assert caught.value.problems == (
        "line 9, merge.parameters.weight: 4 blocks do not fit in 3 layers; write {blocks: 3} or fewer",
        "line 10, merge.parameters.density: 4 blocks do not fit in 3 layers; write {blocks: 3} or fewer",
    )
    grouped = SMALL.replace("[0, 1]", "[0, 1], per: [{modules: [attention, other]}]")
    with pytest.raises(SearchFileError, match=r"line 6, .*no tensor .* belongs to module 'attention'"):
        load_search_file(write(grouped)).space(layers=3, modules={"mlp": (".mlp.",)})


def test_models_are_resolved_against_the_file_wherever_one_stands(write, folder, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (folder / "lora").mkdir()
    text = SMALL.replace("org/base", "../experts/base@main").replace("org/x", "../experts/add+lora")
    merge = load_search_file(write(text.replace("org/y", "org/y@4f2a+lora"))).merge
    experts = folder.parent / "experts"
    assert merge["base_model"] == f"{experts}/base@main"
    assert [m["model"] for m in merge["models"]] == [f"{experts}/add+{folder}/lora", f"org/y@4f2a+{folder}/lora"]
    space = load_search_file(write(text.replace("[0, 1]", "[0, 1], per: [model]"))).space(layers=2, modules={})
    assert space.names == ("weight.lora", "weight.y")


def test_folders_may_have_the_signs_of_references_in_their_names(write, folder):
    (folder / "c++").mkdir()
    (folder / "c++" / "x@1").mkdir()
    path = folder / "c++" / "s.yaml"
    path.write_text(SMALL.replace("org/x", "./x@1"))
    models = [model for _, model in model_places(load_search_file(path).merge)]
    assert str(folder / "c++" / "x@1") in models


def test_holdout_can_name_tasks(write):
    text = SMALL.replace("budget", "scoring: {holdout: [add_final]}\nbudget")
    assert load_search_file(write(text)).scoring.holdout == ("add_final",)
    text = SMALL.replace("budget", "scoring: {holdout: {add: add_final}}\nbudget")
    assert load_search_file(write(text)).scoring.holdout == {"add": "add_final"}


def test_anchors_merge_keys_and_unicode(write, folder):
    (folder / "modèle-é").mkdir()
    text = """\
merge:
  merge_method: ties
  base_model: org/base
  models: [{model: ./modèle-é}, {model: org/y}]
  parameters:
    weight: &range {search: [0, 1e-1], per: [model]}
    density: {<<: *range, start: 0.05}
objectives: [{task: größe}]
budget: {candidates: 1}
"""
    file = load_search_file(write(text))
    assert file.objectives[0].task == "größe"
    space = file.space(layers=2, modules={})
    assert space.names == ("weight.modèle-é", "weight.y", "density.modèle-é", "density.y")
    assert (space.genes[0].high, space.genes[2].start) == (0.1, 0.05)
    wrong = write(text.replace("[0, 1e-1]", "[1, 0]"))
    assert len(problems(wrong)) == 2  # where it is written, and where it is used
    assert all(problem.startswith("line 6, ") for problem in problems(wrong))


@pytest.mark.parametrize("load", [load_search_file, load_recipe])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- a\n- b\n", "line 1: must be a mapping"),
        (b"just words\n", "line 1: must be a mapping"),
        (b"\x80\x81\xff", "not a text file: byte 0 is not UTF-8"),
        (b"a: \x00\n", "not a text file"),
        (b"a: [1\n", "not valid YAML"),
    ],
)
def test_files_that_are_no_documents(folder, load, content, message):
    path = folder / "x.yaml"
    path.write_bytes(content)
    assert message in problems(path, load)[0]


@pytest.mark.parametrize("load", [load_search_file, load_recipe])
def test_files_that_cannot_be_read(folder, load):
    assert problems(folder / "none.yaml", load) == (f"no such file: {folder / 'none.yaml'}",)
    assert problems(folder, load) == ("cannot be read: Is a directory",)


def test_a_byte_order_mark_is_no_mistake(folder):
    path = folder / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.encode())
    assert load_search_file(path).budget.candidates == 10


# recipes ------------------------------------------------------------------------------------------------------------

RECIPE = """\
merge_method: slerp
base_model: ../experts/base
slices:
  - sources: [{model: ../experts/base, layer_range: [0, 8]}, {model: ../experts/add, layer_range: [0, 8]}]
parameters:
  t: [{filter: self_attn, value: [0, 0.5, 1]}, {filter: mlp, value: [1, 0.5, 0]}, {value: 0.5}]
dtype: bfloat16
"""


def test_a_mergekit_yaml_is_a_recipe(write, folder):
    recipe = load_recipe(write(RECIPE))
    experts = folder.parent / "experts"
    expected = yaml.safe_load(RECIPE.replace("../experts", str(experts)))
    assert recipe == recipe_from_mapping(expected)
    assert recipe.references() == (str(experts / "base"), str(experts / "add"))


def test_a_written_recipe_is_read_back(write, quickstart):
    space = load_search_file(write(quickstart)).space(layers=8, modules=MODULES)
    recipe = space.decode(space.start() if space.start() is not None else [0.3] * 24)
    models = recipe.references()
    recipe = recipe.with_revisions({model: str(index) for index, model in enumerate(models)})
    path = write(yaml.safe_dump(recipe.to_mapping()), "recipe.yaml")
    assert load_recipe(path) == recipe
    assert load_recipe(path).digest == recipe.digest


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        (
            "{value: 0.5}",
            "{value: {search: [0, 1]}}",
            "line 6, parameters.t[2].value: a `search` marker is not a value; use",
        ),
        ("t: [", "tt: [", "line 6, parameters.tt: unknown parameter of slerp. "),
        (
            "layer_range: [0, 8]}]",
            "layer_range: [0, 7]}]",
            "line 4, slices[0].sources: all sources of a slice must be equally",
        ),
        (
            "layer_range: [0, 8]}]",
            "layer_range: [8, 0]}]",
            "slices[0].sources[1].layer_range: must be whole numbers with",
        ),
        ("layer_range: [0, 8]}]", "layer_range: 8}]", "slices[0].sources[1].layer_range: must be [first, end], got 8"),
        ("base_model: ../experts/base\n", "", "line 1: slerp needs a base_model"),
        ("parameters:", "residual_weight: 1\nparameters:", "residual_weight: mergekit reads this key and ignores it"),
        (
            "parameters:",
            "revisions: [1]\nparameters:",
            "revisions: must map model names to content or commit ids, got [1]",
        ),
        ("parameters:", "mask_seed: -1\nparameters:", "mask_seed: must be a whole number of at least 0, got -1"),
    ],
)
def test_mistakes_of_recipes_have_lines(write, right, wrong, message):
    assert right in RECIPE
    found = problems(write(RECIPE.replace(right, wrong, 1)), load_recipe)
    assert any(message in problem for problem in found), found


def test_a_search_file_is_no_recipe(write):
    assert problems(write(SMALL), load_recipe) == (
        "line 1: this is a search file, not a recipe; use `evomerge search` on it",
    )


def test_reading_files_needs_none_of_the_heavy_packages():
    code = """
import sys
for name in ("torch", "transformers", "lm_eval", "ray", "cma", "optuna", "pyarrow", "safetensors"):
    sys.modules[name] = None
from evomerge.config import load_search_file\nfrom evomerge.space import build_space
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_errors_are_input_errors(folder):
    with pytest.raises(InputError):
        load_search_file(folder / "none.yaml")
