"""How tasks are asked: lm-eval's own arguments, checked by name before lm-eval is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from evomerge.errors import TaskError, near

# Arguments of lm_eval.simple_evaluate that mean the same here, with lm-eval's defaults.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "num_fewshot": None,
        "system_instruction": None,
        "apply_chat_template": False,
        "fewshot_as_multiturn": True,
        "gen_kwargs": None,
        "random_seed": 0,
        "numpy_random_seed": 1234,
        "torch_random_seed": 1234,
        "fewshot_random_seed": 1234,
        "confirm_run_unsafe_code": False,
        "metadata": None,
        "batch_size": None,
        "model_args": None,
    }
)

# Arguments of simple_evaluate that something else decides here.
ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "limit": "use `items` under scoring",
        "samples": "use `items` under scoring",
        "tasks": "name tasks under objectives",
        "task_manager": "use `include` under tasks",
        "include_path": "use `include` under tasks",
        "model": "the merged model is the model",
        "device": "it follows the worker",
        "use_cache": "answers are kept in the run's archive",
        "cache_requests": "prompts are built once per worker",
        "log_samples": "every response is kept in the run's archive",
        "bootstrap_iters": "standard errors come from the responses",
        "predict_only": "a search needs scores",
    }
)

# Arguments of lm-eval's `hf` model that change how a model in memory is asked.
MODEL_ARGUMENTS = (
    "add_bos_token",
    "chat_template_args",
    "enable_thinking",
    "max_length",
    "mixed_precision_dtype",
    "prefix_token_id",
    "softmax_dtype",
    "think_end_token",
    "truncation",
)


@dataclass(frozen=True)
class TaskSettings:
    """Where task files are looked for, and how tasks are asked.

    `lm_eval` holds arguments of `lm_eval.simple_evaluate` under their own names; what it leaves out has lm-eval's
    default. Seeds are lm-eval's own too (`fewshot_random_seed` draws the examples), so that prompts are equal.
    """

    include: tuple[str, ...] = ()  # folders with task YAML, before lm-eval's own tasks
    lm_eval: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = list(_problems(self.lm_eval))
        if problems:
            raise TaskError("lm_eval settings: " + "; ".join(problems))

    def __getitem__(self, name: str) -> Any:
        """Return an argument's value, or lm-eval's default for it."""
        return self.lm_eval.get(name, DEFAULTS[name])


def _problems(arguments: Mapping[str, Any]) -> list[str]:
    problems = []
    for name in arguments:
        if name in ELSEWHERE:
            problems.append(f"{name!r} is decided elsewhere: {ELSEWHERE[name]}")
        elif name not in DEFAULTS:
            problems.append(f"unknown argument {name!r}. {near(str(name), DEFAULTS)}")
    shots = arguments.get("num_fewshot")
    if shots is not None and (isinstance(shots, bool) or not isinstance(shots, int) or shots < 0):
        problems.append(f"num_fewshot must be a whole number of at least 0, got {shots!r}")
    problems += _model_problems(arguments.get("model_args") or {})
    return problems


def _model_problems(arguments: Any) -> list[str]:
    if not isinstance(arguments, Mapping):
        return [f"model_args must be a mapping of names to values, got {arguments!r}"]
    return [
        f"unknown model argument {name!r} for a model in memory. {near(str(name), MODEL_ARGUMENTS)}"
        for name in arguments
        if name not in MODEL_ARGUMENTS
    ]
