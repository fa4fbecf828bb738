from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import yaml

from evomerge.config import load_plain, load_search_file, search_file_text
from evomerge.config._mergekit_evolve import PARAMETERS, convert, differences
from evomerge.errors import InputError
from evomerge.space import build_space
from tests.space.test_mergekit_agrees import tensors

LAYERS = 6
TASKS = [
    "spell",
    {"name": "add", "weight": 2, "metric": "exact_match,strict-match"},
    {"name": "ppl", "weight": -0.5, "metric": "bits,none"},
]


def configuration(**genome) -> dict:
    return {"genome": {"models": ["o/x", "o/y"], "merge_method": "ties", "base_model": "o/b", **genome}, "tasks": TASKS}


CASES = {
    "plain": {},
    "three_models": {"models": ["o/x", "o/y", "o/z"]},
    "filters": {"filters": ["self_attn", "mlp"]},
    "groups": {"layer_granularity": 2},
    "groups_and_filters": {"layer_granularity": 3, "filters": ["mlp"]},
    "smooth": {"layer_granularity": 2, "smooth": True},
    "smooth_and_filters": {"layer_granularity": 2, "smooth": True, "filters": ["mlp"]},
    "smooth_in_one_group": {"smooth": True},
    "negative_weights": {"allow_negative_weights": True, "merge_method": "task_arithmetic"},
    "linear": {"merge_method": "linear", "base_model": None},
    "linear_in_groups": {"merge_method": "linear", "base_model": None, "layer_granularity": 2},
    "dare_without_normalize": {"merge_method": "dare_ties", "normalize": False},
    "slerp": {"merge_method": "slerp", "base_model": None},
    "slerp_in_groups": {"merge_method": "slerp", "base_model": None, "layer_granularity": 3},
}


@pytest.fixture
def genome(tmp_path):
    """mergekit's own genome for a configuration, over model folders that hold a configuration only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("mergekit.evo.genome")

    def genome(document: dict):
        folder = tmp_path / "model"
        folder.mkdir()
        small = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "vocab_size": 8}
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": LAYERS, **small}))
        names = document["genome"]["models"]
        # only the first model is opened, and only for its number of layers
        definition = module.ModelGenomeDefinition.model_validate(document["genome"])
        opened = module.ModelGenomeDefinition.model_validate(
            {**document["genome"], "models": [str(folder), *names[1:]]}
        )
        made = module.ModelGenome(opened)
        made.definition = definition
        return made

    return genome


@pytest.mark.parametrize("name", CASES)
def test_both_tools_give_every_tensor_the_same_coefficients(genome, name):
    document = configuration(**CASES[name])
    theirs_genome = genome(document)
    shape = tuple(theirs_genome.initial_genotype().shape)  # (groups, models, filters + 1, parameters)
    signed = bool(document["genome"].get("allow_negative_weights"))
    point = np.random.default_rng(1).uniform(-0.9 if signed else 0.05, 0.9, shape).round(3)
    theirs = theirs_genome.genotype_merge_config(point)

    merge = convert(document, layers=LAYERS)["merge"]
    space = build_space(merge, layers=LAYERS, modules={})
    ours = space.decode(as_our_genotype(space, document, point))
    assert ours.method == theirs.merge_method
    assert ours.dtype == theirs.dtype == "bfloat16"
    if ours.method != "slerp":
        assert dict(ours.parameters)["normalize"] == theirs.parameters["normalize"]
    for tensor, layer, t in tensors(LAYERS):
        for parameter in PARAMETERS[ours.method]:
            expected = coefficients_of(theirs, parameter, tensor, layer, t)
            found = coefficients_of(as_mergekit(ours), parameter, tensor, layer, t)
            assert found == pytest.approx(expected, abs=2e-6)


def as_our_genotype(space, document, point):
    """Our genotype with the values that mergekit-evolve reads from its own `point`."""
    genome = document["genome"]
    groups, _, _, _ = point.shape
    filters = [*(genome.get("filters") or []), "other"] if genome.get("filters") else [""]
    genotype = np.full(space.dimension, np.nan)
    for index in np.ndindex(*point.shape):
        group, model, which, parameter = index
        if genome["merge_method"] == "slerp" and model > 0:
            continue
        value = float(point[index])
        depth = f"knot{group}" if genome.get("smooth") and groups > 1 else ""
        prefix = f"slice{group}" if groups > 1 and not depth else ""
        name = PARAMETERS[genome["merge_method"]][parameter]
        model_name = genome["models"][model].split("/")[-1]
        if name == "t":  # the second model's share in the softmax of the two genes
            first, second = np.exp(point[group, :2, 0, 0])
            value, model_name = float(second / (first + second)), ""
        name = ".".join(part for part in (prefix, name, model_name, depth, filters[which]) if part)
        gene = space.names.index(name)
        genotype[gene] = space.genes[gene].coordinate(value)
    assert not np.isnan(genotype).any()  # every gene of ours is one of theirs
    return genotype


def as_mergekit(recipe):
    from mergekit.config import MergeConfiguration

    return MergeConfiguration.model_validate(yaml.safe_load(yaml.safe_dump(recipe.to_mergekit())))


def coefficients_of(config, parameter, tensor, layer, t):
    """Each model's value for one tensor, as mergekit's planner finds it; for slerp, the shares of the models."""
    from mergekit.config import ConfigReader, evaluate_setting

    reader, base = ConfigReader(config=config, t=t), config.base_model
    sources = config.models
    if config.slices:
        part, depth = slice_at(config.slices, tensor, layer)
        reader, sources = reader.for_out_slice(part).with_t(depth), part.sources
        base = part.base_model or base
    values = {}
    for source in sources:
        if str(source.model) == "o/b":
            continue
        scopes = [source.parameters, *reader.parameter_sources(None if parameter == "t" else source.model)]
        settings = [scope[parameter] for scope in scopes if scope and parameter in scope]
        found = (evaluate_setting(tensor, setting, reader.t, validate=float) for setting in settings)
        values[str(source.model)] = next(value for value in found if value is not None)
    if parameter == "t":  # the base's share is 1 - t, whichever of the two that is
        values = {model: 1 - value if model == str(base) else value for model, value in values.items()}
    return values


def slice_at(slices, tensor, layer):
    if layer < 0:  # embeddings belong to the first slice, final norm and head to the last
        return (slices[-1] if "lm_head" in tensor else slices[0]), 0.0
    for part in slices:
        first, end = part.sources[0].layer_range
        if first <= layer < end:
            return part, (layer - first) / (end - first - 1) if end - first > 1 else 1.0
    raise AssertionError(layer)


def test_the_search_begins_where_theirs_begins(genome):
    document = configuration(models=["o/x", "o/y", "o/z"])
    space = build_space(convert(document)["merge"], layers=LAYERS, modules={})
    values = space.phenotype(space.start())
    assert set(values.values()) == {0.333333, 1.0}
    theirs = genome(document).initial_genotype()
    assert theirs[..., 0].unique().tolist() == pytest.approx([1 / 3])
    assert theirs[..., 1].unique().tolist() == [1.0]
    random = build_space(convert({**document, "random_init": True})["merge"], layers=LAYERS, modules={})
    assert random.start() is None


def test_tasks_become_objectives():
    assert convert(configuration())["objectives"] == [
        {"task": "spell", "metric": "acc", "weight": 1.0},
        {"task": "add", "metric": "exact_match", "filter": "strict-match", "weight": 2.0},
        {"task": "ppl", "metric": "bits", "goal": "minimize", "weight": 0.5},
    ]


def test_evaluation_options_are_passed_on():
    options = {"limit": 100, "num_fewshot": 5, "apply_chat_template": False, "shuffle": True}
    assert convert({**configuration(), **options})["scoring"] == {
        "items": 100,
        "estimator": "mean",
        "lm_eval": {"num_fewshot": 5, "apply_chat_template": False, "fewshot_as_multiturn": True},
    }


@pytest.mark.parametrize("name", CASES)
def test_the_written_file_loads_and_says_what_differs(write, name):
    document = configuration(**CASES[name])
    text = search_file_text(document, layers=LAYERS, name="spaces/x.yaml")
    assert text.startswith(
        "# Converted from a mergekit-evolve configuration.\n# Check it:  evomerge check  spaces/x.yaml\n"
    )
    assert yaml.safe_load(text) == convert(document, layers=LAYERS)
    assert all(f"# - {sentence}" in text for sentence in differences(document))
    file = load_search_file(path := write(text))
    assert load_plain(path) == yaml.safe_load(text)
    assert file.space(layers=LAYERS, modules={}).dimension > 0
    assert max(map(len, text.splitlines())) < 125


def test_differences_that_depend_on_the_configuration_are_named():
    common = set(differences(configuration()))
    listed = set(differences(configuration(models=["o/b", "o/x"]))) - common
    assert listed == {"The base model has no genes; in mergekit-evolve it has genes without effect."}
    assert "Tasks with weight 0 are omitted." in differences({**configuration(), "tasks": [{"name": "a", "weight": 0}]})


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"merge_method": "ties"}, "this one has no genome"),
        ({**configuration(), "taks": []}, "taks: unknown key. Near: tasks."),
        (configuration(modles=[]), "genome.modles: unknown key. Near: models, base_model."),
        (configuration(merge_method="tie"), "genome.merge_method: unknown method 'tie'. Near: ties"),
        (configuration(models=["o/x"]), "genome.models: must be a list of at least two models"),
        (
            configuration(merge_method="slerp", models=["a", "b", "c"]),
            "slerp over 3 models took the two with the largest",
        ),
        (configuration(base_model=None), "genome.base_model: ties needs the models' common ancestor"),
        (configuration(layer_granularity=4), "genome.layer_granularity: 4 must divide the 6 layers"),
        ({**configuration(), "tasks": []}, "tasks: must be a list of at least one task"),
        ({**configuration(), "tasks": [{"nmae": "a"}]}, "tasks[0]: must be a task's name"),
        ({**configuration(), "tasks": [{"name": "a", "wieght": 1}]}, "tasks[0].wieght: unknown key. Near: weight."),
        ({**configuration(), "tasks": [{"name": "a", "weight": "x"}]}, "tasks[0].weight: must be a number, got 'x'"),
    ],
)
def test_what_cannot_be_converted_is_named(document, message):
    with pytest.raises(InputError) as caught:
        convert(document, layers=LAYERS)
    assert message in str(caught.value)


def test_groups_of_layers_need_the_number_of_layers():
    with pytest.raises(InputError, match="requires the number of layers"):
        convert(configuration(layer_granularity=2))


def test_all_mistakes_are_listed():
    with pytest.raises(InputError) as caught:
        convert({"genome": {"merge_method": "x", "models": 1, "y": 1}, "tasks": [1], "z": 1})
    assert str(caught.value).count("\n") == 5
