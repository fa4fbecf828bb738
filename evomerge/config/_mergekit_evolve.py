"""mergekit-evolve configurations (`genome:` and `tasks:`) turned into search files.

What the two tools mean by the same words was read off mergekit 0.1.5 (`mergekit/evo/genome.py`, `config.py`) and is
compared with it in the tests. Where they differ, `differences` says so, and the written file repeats it at its top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge._yaml_text import yaml_text
from evomerge.errors import InputError, near

PARAMETERS = {
    "linear": ("weight",),
    "task_arithmetic": ("weight",),
    "ties": ("weight", "density"),
    "dare_ties": ("weight", "density"),
    "slerp": ("t",),
}
WEIGHT_REACH = 1.5  # mergekit-evolve bounds no weight; this is where we stop looking
CANDIDATES = 100  # mergekit-evolve's default for --max-fevals
_GENOME_KEYS = (
    "models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
    "allow_negative_weights", "filters", "smooth",
)  # fmt: skip
_TOP_KEYS = (
    "genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template", "fewshot_as_multiturn",
)  # fmt: skip
_TASK_KEYS = ("name", "weight", "metric")


def convert(document: Mapping[str, Any], *, layers: int | None = None) -> dict[str, Any]:
    """Return the search file, as plain data, that searches what a mergekit-evolve configuration searches.

    Args:
        document: the configuration as plain data.
        layers: hidden layers of the models; needed where `layer_granularity` is above 0, and not otherwise.

    Raises:
        InputError: the configuration is wrong, cannot be expressed, or needs `layers`; all reasons are listed.
    """
    _check(document, layers)
    scoring: dict[str, Any] = {"estimator": "mean", "lm_eval": _lm_eval(document)}
    if document.get("limit") is not None:
        scoring = {"items": document["limit"], **scoring}
    return {
        "merge": _merge(document["genome"], layers, start=not document.get("random_init", False)),
        "objectives": [objective for task in document["tasks"] if (objective := _objective(task))["weight"]],
        "scoring": scoring,
        "controller": {"name": "cma-es"},
        "budget": {"candidates": CANDIDATES},
        "seed": 0,
    }


def differences(document: Mapping[str, Any]) -> list[str]:
    """Return, one sentence each, how the search of the converted file differs from mergekit-evolve's."""
    genome = document["genome"]
    method = genome["merge_method"]
    low = -WEIGHT_REACH if genome.get("allow_negative_weights") else 0.0
    found = [
        "A fraction of each task's documents is held out for the final report; mergekit-evolve uses all.",
        ("All candidates answer the same pinned documents; a limit takes the first ones, or with shuffle random ones."),
        ("Objectives stay separate, with a Pareto front and standard errors; cma-es maximises their weighted sum."),
        "Paths are relative to this file; in mergekit-evolve they are relative to the working directory.",
    ]
    if method == "slerp":
        found.append(
            "t ranges from the first model (0) to the second (1); in mergekit-evolve it is a softmax of two genes."
        )
    else:
        found.append(
            f"Weights are searched in [{low:g}, {WEIGHT_REACH:g}]; in mergekit-evolve they are unbounded "
            "and lose their sign."
        )
    if "density" in PARAMETERS[method]:
        found.append("Densities are searched in [0, 1]; mergekit-evolve folds and clips them into it.")
    if genome.get("base_model") in genome["models"] and method not in ("linear", "slerp"):
        found.append("The base model has no genes; in mergekit-evolve it has genes without effect.")
    if method in ("linear", "slerp") and genome.get("base_model") not in (None, *genome["models"]):
        found.append(f"base_model is omitted: {method} has no base, and mergekit refuses it.")
    if any(_weight(task) == 0 for task in document["tasks"]):
        found.append("Tasks with weight 0 are omitted.")
    return found


def search_file_text(document: Mapping[str, Any], *, layers: int | None = None, name: str = "this file") -> str:
    """Return the text of the converted search file, with comments on what it is and how to use it.

    Args:
        document: the mergekit-evolve configuration as plain data.
        layers: as in `convert`.
        name: what the comments call the file, its path.

    Raises:
        InputError: as in `convert`.
    """
    converted = convert(document, layers=layers)
    head = [
        "Converted from a mergekit-evolve configuration.",
        f"Check it:  evomerge check  {name}",
        f"Try it:    evomerge search {name} --candidates 20",
        "",
        "Differences from mergekit-evolve:",
        *(f"- {sentence}" for sentence in differences(document)),
    ]
    about = {
        "merge": "a mergekit configuration; {search: [low, high]} replaces a number",
        "objectives": "metric as in lm-eval; direction from its metadata; goal overrides it",
        "scoring": "items: documents per task; lm_eval: arguments for lm-eval",
        "budget": "never exceeded; mergekit-evolve's default for --max-fevals",
    }
    lines = [f"# {line}".rstrip() for line in head]
    for key, value in converted.items():
        body = yaml_text({key: value}, flow_mappings=True, width=110)
        first, *rest = body.splitlines() if isinstance(value, (dict, list)) else [f"{key}: {value}"]
        lines += [f"{first}  # {about[key]}" if key in about else first, *rest]
    return "\n".join(lines) + "\n"


def _merge(genome: Mapping[str, Any], layers: int | None, *, start: bool) -> dict[str, Any]:
    method, models = genome["merge_method"], genome["models"]
    base = models[0] if method == "slerp" else genome.get("base_model")
    if method == "linear" and base not in models:  # mergekit refuses a base beside linear's models
        base = None
    granularity = genome.get("layer_granularity") or 0
    groups = (layers or 0) // granularity if granularity > 0 else 1  # `_genome_problems` ensures that it divides
    knots = groups if genome.get("smooth") and groups > 1 else 0  # smooth: interpolated between groups
    markers = {name: _marker(name, genome, knots, start) for name in PARAMETERS[method]}
    merge: dict[str, Any] = {"merge_method": method, **({"base_model": base} if base else {})}
    shared: dict[str, Any] = {}
    if method != "slerp":
        normalize = genome.get("normalize")
        shared["normalize"] = method in ("ties", "dare_ties", "linear") if normalize is None else normalize
    if groups > 1 and not knots:
        sources = [*models, *([base] if base and base not in models else [])]
        # without smooth, coefficients jump between groups
        merge["slices"] = [_slice(sources, granularity, index, markers) for index in range(groups)]
    else:
        merge["models"] = [{"model": model} for model in models]
        shared = {**markers, **shared}
    if shared:
        merge["parameters"] = shared
    if genome.get("tokenizer_source"):
        merge["tokenizer_source"] = genome["tokenizer_source"]
    return {**merge, "dtype": "bfloat16"}  # mergekit-evolve's own choice


def _slice(sources: Sequence[str], granularity: int, index: int, markers: Mapping[str, Any]) -> dict[str, Any]:
    # slices, not blocks: mergekit gives final norm and head the parameters of the last slice
    bounds = [index * granularity, (index + 1) * granularity]
    return {
        "sources": [{"model": model, "layer_range": list(bounds)} for model in sources],
        "parameters": dict(markers),
    }


def _marker(name: str, genome: Mapping[str, Any], knots: int, start: bool) -> dict[str, Any]:
    models = len(genome["models"])
    if name == "t":
        return {"search": [0.0, 1.0], **({"start": 0.5} if start else {})}
    if name == "density":
        search, first = [0.0, 1.0], 1.0
    else:
        low = -WEIGHT_REACH if genome.get("allow_negative_weights") else 0.0
        search, first = [low, WEIGHT_REACH], round(1 / models, 6)
    per: list[Any] = ["model"]
    if knots:
        per.append({"knots": knots})
    if genome.get("filters"):
        per.append({"filters": list(genome["filters"])})
    return {"search": search, "per": per, **({"start": first} if start else {})}


def _objective(task: Any) -> dict[str, Any]:
    metric, _, filter_name = (task.get("metric", "acc,none") if isinstance(task, Mapping) else "acc,none").partition(
        ","
    )
    weight = _weight(task)
    objective: dict[str, Any] = {"task": task["name"] if isinstance(task, Mapping) else task, "metric": metric}
    if filter_name not in ("", "none"):
        objective["filter"] = filter_name
    if weight < 0:  # mergekit-evolve minimises by a negative weight only
        objective["goal"] = "minimize"
    return {**objective, "weight": abs(weight)}


def _weight(task: Any) -> float:
    return float(task.get("weight", 1.0)) if isinstance(task, Mapping) else 1.0


def _lm_eval(document: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: document.get(key, True) for key in ("apply_chat_template", "fewshot_as_multiturn")}
    shots = document.get("num_fewshot")
    return options if shots is None else {"num_fewshot": shots, **options}


def _check(document: Mapping[str, Any], layers: int | None) -> None:
    """Raise one InputError that lists what is wrong with a configuration."""
    if not isinstance(document, Mapping) or not isinstance(document.get("genome"), Mapping):
        raise InputError("a mergekit-evolve configuration is a mapping with genome and tasks; this one has no genome")
    genome = document["genome"]
    problems = [f"{key}: unknown key. {near(str(key), _TOP_KEYS)}" for key in document if key not in _TOP_KEYS]
    problems += [
        f"genome.{key}: unknown key. {near(str(key), _GENOME_KEYS)}" for key in genome if key not in _GENOME_KEYS
    ]
    problems += [*_genome_problems(genome, layers), *_task_problems(document.get("tasks"))]
    if problems:
        raise InputError("the mergekit-evolve configuration cannot be converted:\n  " + "\n  ".join(problems))


def _genome_problems(genome: Mapping[str, Any], layers: int | None) -> list[str]:
    method, models, problems = genome.get("merge_method"), genome.get("models"), []
    granularity = genome.get("layer_granularity") or 0
    if method not in PARAMETERS:
        problems.append(f"genome.merge_method: unknown method {method!r}. {near(str(method), PARAMETERS)}")
    if not isinstance(models, list) or len(models) < 2 or not all(isinstance(model, str) for model in models):
        problems.append(f"genome.models: must be a list of at least two models, got {models!r}")
    elif method == "slerp" and len(models) > 2:
        problems.append(
            f"genome.models: slerp over {len(models)} models took the two with the largest genes in each group of "
            "layers, which no single merge describes; name two models, or search task_arithmetic"
        )
    if method in ("ties", "dare_ties", "task_arithmetic") and not genome.get("base_model"):
        problems.append(f"genome.base_model: {method} needs the models' common ancestor")
    if method == "slerp" and (genome.get("smooth") or genome.get("filters")):
        problems.append("genome: slerp goes without smooth and filters in mergekit-evolve; remove them")
    if not isinstance(granularity, int) or granularity < 0:
        problems.append(f"genome.layer_granularity: must be a whole number of layers, got {granularity!r}")
    elif granularity and layers is None:
        problems.append("genome.layer_granularity: requires the number of layers of the models; pass it as `layers`")
    elif granularity and layers is not None and layers % granularity:
        problems.append(f"genome.layer_granularity: {granularity} must divide the {layers} layers of the models")
    return problems


def _task_problems(tasks: Any) -> list[str]:
    if not isinstance(tasks, list) or not tasks:
        return [f"tasks: must be a list of at least one task, got {tasks!r}"]
    problems = []
    for index, task in enumerate(tasks):
        if isinstance(task, str):
            continue
        if not isinstance(task, Mapping) or not isinstance(task.get("name"), str):
            text = "must be a task's name, or {name: ..., weight: ..., metric: ...}"
            problems.append(f"tasks[{index}]: {text}, got {task!r}")
            continue
        problems += [
            f"tasks[{index}].{key}: unknown key. {near(str(key), _TASK_KEYS)}" for key in task if key not in _TASK_KEYS
        ]
        if isinstance(task.get("weight", 1.0), bool) or not isinstance(task.get("weight", 1.0), (int, float)):
            problems.append(f"tasks[{index}].weight: must be a number, got {task['weight']!r}")
    return problems
