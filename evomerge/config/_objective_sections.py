"""Entries of `objectives`: a task, or one of the other metrics; the key says which."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Tag, ValidationInfo, create_model

from evomerge.config._section_base import (
    MAPPING,
    TEXT,
    AtLeastOne,
    ByType,
    Context,
    File,
    OneOf,
    Section,
    Text,
    Whole,
    example,
    json_schema,
    option_type,
    required,
    setting,
    shown,
)
from evomerge.metric_kinds import METRICS, sizes
from evomerge.option_fields import options_of
from evomerge.scoring import RESPONSE_TOKENS, TIMINGS, Measure
from evomerge.space import Problem


@dataclass(frozen=True)
class ObjectiveRequest:
    """One wanted thing as the user wrote it; what is None is looked up in the task."""

    task: str  # or the measure's name
    metric: str | None = None
    goal: Literal["maximize", "minimize"] | None = None
    weight: float | None = None  # None: 1 in the weighted mean, and 0 for a size of the model
    filter: str | None = None
    name: str | None = None  # None: the objective is named after its task
    measure: Measure | None = None  # where it is no task


# -- the settings of each measure ---------------------------------------------------------------------------------


class Settings(Section):
    """Settings of one measure, complete and with absolute paths."""

    def measured(self, folder: str) -> dict[str, Any]:
        """Return the settings as JSON-ready data; relative names are looked up in `folder`."""
        return self.model_dump(mode="json", by_alias=True, warnings=False)


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"must begin with http:// or https://, got {value!r}")
    if "@" in parts.netloc:
        raise ValueError("must hold no user or password; name a variable with key_env")
    return value


def _scale(value: tuple[float, ...]) -> tuple[float, ...]:
    if len(value) != 2 or value[0] >= value[1]:
        raise ValueError(f"must be [lowest, highest], got {list(value)}")
    return value


def _variable(value: str) -> str:
    if not value.isidentifier():  # the key itself may have been written here, so the message does not repeat it
        raise ValueError("must be the name of an environment variable, as in JUDGE_KEY, and not the key itself")
    return value


class Phrase(Section):
    """A continuation whose likelihood is measured."""

    model_config = shown(after="The capital of France is", text=" Paris")
    after: Text | None = setting(None, "what stands before the phrase; default: nothing", "text")
    text: Text = required("the continuation", "text")


_PHRASE = "a text (yes, no and numbers need quotes), or {after: ..., text: ...}"
Phrases = Annotated[
    tuple[
        Annotated[
            Annotated[Text, Field(title="text"), Tag(TEXT)] | Annotated[Phrase, Tag(MAPPING)],
            ByType,
            Field(title=_PHRASE),
        ],
        ...,
    ],
    AtLeastOne,
]


class PerplexitySettings(Settings):
    """Of `perplexity`."""

    model_config = shown(file="wiki.txt")
    file: File = required("UTF-8 text, relative to this file", "file")
    chunk: Whole = setting(2000, "characters that are read at once, one item", ge=16)


class WritingSettings(Settings):
    """Keys that say how a model writes."""

    max_tokens: Whole = setting(64, "tokens that the model may write", ge=1)
    until: Annotated[tuple[Annotated[Text, Field(title="text")], ...], AtLeastOne] = setting(
        (), "texts that end an answer, beside the end-of-text token", examples=[["\n"]]
    )


class PythonSettings(WritingSettings):
    """Of `python`."""

    model_config = shown(function="my_fitness:score")
    function: Text = required("package.module:function", "function")
    prompts: File | None = setting(None, "the function is given the model's answers to these", "file")
    items: Whole | None = setting(None, "the function returns this many scores; default: one number", ge=1)

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield whether items are given twice."""
        if self.items and (self.prompts or "prompts" in wrong):
            text = "the prompts are the items; leave items out (scoring.items says how many of them are asked)"
            yield Problem(("items",), text)

    def measured(self, folder: str) -> dict[str, Any]:
        """Return the settings, with the folder from which the function is imported."""
        return {**super().measured(folder), "folder": folder}


class PhrasesSettings(Settings):
    """Of `phrases`."""

    model_config = shown(**{"raise": ["Certainly"], "lower": ["I cannot"]})
    raised: Phrases | None = setting(
        None, "continuations that should become more likely", alias="raise", examples=[["Hello"]]
    )
    lower: Phrases | None = setting(None, "continuations that should become less likely", examples=[["Hello"]])

    def _listed(self) -> Iterator[tuple[str, int, tuple[str, str]]]:
        for key, phrases in (("raise", self.raised), ("lower", self.lower)):
            for index, one in enumerate(phrases or ()):
                yield key, index, ("", one) if isinstance(one, str) else (one.after or "", one.text or "")

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield whether a phrase is listed twice, or none."""
        if not (self.raised or self.lower or wrong & {"raise", "lower"}):
            yield Problem((), "raise, lower or both are needed, as in {raise: [...], lower: [...]}")
        seen = set()
        for key, index, phrase in self._listed():
            if phrase in seen:
                yield Problem((key, index), f"the phrase {phrase[1]!r} is listed already; keep one")
            seen.add(phrase)

    def measured(self, folder: str) -> dict[str, Any]:
        """Return one list of phrases, each with the direction that is wanted."""
        rows = [{"after": after, "text": text, "lower": key == "lower"} for key, _, (after, text) in self._listed()]
        return {"phrases": rows}


class ResponseLengthSettings(WritingSettings):
    """Of `response_length`."""

    model_config = shown(prompts="prompts.txt")
    prompts: File = required("one prompt per line, or .jsonl", "file")


class JudgeSettings(WritingSettings):
    """Of `judge`, an LLM judge."""

    model_config = shown(url="http://localhost:8000/v1", model="org/judge", prompts="prompts.txt", rubric="Is it kind?")
    url: Annotated[Text, AfterValidator(_url)] = required(
        "of an OpenAI-compatible server, as in http://localhost:8000/v1", "URL"
    )
    model: Text = required("the judge's name there", "model")
    prompts: File = required("one prompt per line, or .jsonl", "file")
    rubric: Text = required("what is a good answer", "text")
    scale: Annotated[tuple[float, ...], AtLeastOne, AfterValidator(_scale)] = setting(
        (1.0, 10.0), "lowest and highest score", examples=[[1, 10]]
    )
    key_env: Annotated[Text, AfterValidator(_variable)] | None = setting(
        None, "environment variable that holds the key; default: no key", "name"
    )
    timeout: float = setting(60.0, "seconds per reply", gt=0)
    retries: Whole = setting(3, "further attempts where one fails", ge=0)


_BUILT_IN: Mapping[str, type[Settings]] = {
    "perplexity": PerplexitySettings,
    "python": PythonSettings,
    "phrases": PhrasesSettings,
    "response_length": ResponseLengthSettings,
    "judge": JudgeSettings,
}


def metric_models() -> dict[str, type[Settings]]:
    """Return the model of each metric's settings, by kind; sizes have none."""
    return {kind: _BUILT_IN.get(kind) or _registered(kind) for kind, info in METRICS.items() if not info.size}


def _registered(kind: str) -> type[Settings]:
    """Return a model of the options of a metric that a user registered."""
    fields: dict[str, Any] = {}
    known = options_of(METRICS[kind].options)
    for name, one in known.items():
        type = File if name in METRICS[kind].files else option_type(one)
        described: Any = (
            required(one.help, "name", alias=name)
            if one.required
            else setting(one.default, one.help, title="name", alias=name)
        )
        fields[f"{name}_"] = (type if one.required else type | None, described)
    base = create_model(f"Settings of {kind}", __base__=Settings, **fields)
    base.model_config["json_schema_extra"] = {"examples": [dict.fromkeys(known, "...")]}
    base.model_rebuild(force=True)
    return base


# -- one entry --------------------------------------------------------------------------------------------------------


def _name(name: str) -> str:
    # preferences are written as in 'add=2,sort=1', and paths end a task's file name
    if any(sign in name for sign in "=,\n/"):
        raise ValueError(f"a name cannot hold any of = , / or a line's end, got {name!r}")
    return name


class ObjectiveSection(Section):
    """One entry of `objectives`; `objective_model` adds the kinds of METRICS."""

    model_config = shown(task="add")
    task: Text | None = setting(None, "an lm-eval task", "task")
    metric: Text | None = setting(None, "as in lm-eval; default: the task's first", "metric")
    goal: Literal["maximize", "minimize"] | None = setting(None, "default: from lm-eval's metadata", "goal")
    weight: float | None = setting(None, "in the weighted mean; default: 1, and 0 for a size of the model", gt=0)
    filter: Text | None = setting(None, "lm-eval's filter name; default: the metric's first", "filter")
    name: Annotated[Text, AfterValidator(_name)] | None = setting(None, "of the objective; default: the task's", "name")
    measure: str | None = None

    def _given(self) -> dict[str, Any]:
        kinds = {one.alias: getattr(self, key) for key, one in type(self).model_fields.items() if one.alias}
        given = {"task": self.task, "measure": self.measure, **kinds}
        return {str(kind): value for kind, value in given.items() if value is not None}

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield whether it is not exactly one of a task and the other kinds."""
        kinds = ("task", "measure", *metric_models())
        given = [kind for kind in kinds if kind in self._given() or kind in wrong]
        if len(given) > 1:
            yield Problem(
                (), f"only one of {', '.join(given)} can be wanted by one objective; write one entry for each"
            )
        elif not given:
            yield Problem((), f"task is missing: an lm-eval task, or one of {', '.join(kinds[1:])} in its place")
        elif given != ["task"]:
            for key in ("metric", "filter"):
                if getattr(self, key) is not None or key in wrong:
                    yield Problem((key,), f"{key} belongs to a task; leave it out with {given[0]}")

    def request(self, folder: str) -> ObjectiveRequest | None:
        """Return the objective, or None where the entry has mistakes."""
        given = self._given()
        if len(given) != 1:
            return None
        ((kind, value),) = given.items()
        shared: dict[str, Any] = {"goal": self.goal, "weight": self.weight}
        if kind == "task":
            return ObjectiveRequest(value, self.metric, filter=self.filter, name=self.name, **shared)
        if kind == "response_length" and isinstance(value, str):
            return ObjectiveRequest(value, RESPONSE_TOKENS, name=self.name or kind, **shared)
        if kind == "measure":
            name = self.name or value
            settings = {"items": TIMINGS} if value == "seconds" else {}
            return ObjectiveRequest(name, name=self.name, measure=Measure(value, name, settings), **shared)
        settings = value.measured(folder)
        default = str(settings.get("function") or kind).rpartition(":")[2] if kind == "python" else kind
        measure = Measure(kind, self.name or default, settings)
        return ObjectiveRequest(measure.name, name=self.name, measure=measure, **shared)


def objective_model() -> type[ObjectiveSection]:
    """Return the model of one entry of `objectives`, with the kinds that are registered now."""
    described = "in place of a task: the size or speed of the model"
    fields: dict[str, Any] = {"measure": (Annotated[str, OneOf(sizes())] | None, setting(None, described, "measure"))}
    for kind, model in metric_models().items():
        fields[f"{kind}_"] = (_kind_type(kind, model), _kind_field(kind, model))
    return create_model("Objective", __base__=ObjectiveSection, **fields)


def _kind_field(kind: str, model: type[Settings]) -> Any:
    what = None
    if METRICS[kind].short:
        short = "a task, a file" if kind == "response_length" else f"a {METRICS[kind].short}"
        what = f"{short}, or a mapping as in {example(json_schema(model))}"
    return setting(None, "in place of a task", title=what, alias=kind)


def _kind_type(kind: str, model: Any) -> Any:
    short = METRICS[kind].short

    def of_text(text: str, info: ValidationInfo) -> Any:
        if kind == "response_length" and not _is_file(text, (info.context or Context()).folder):
            return text  # a task of the objectives
        return model.model_validate({short: text}, context=info.context)

    if not short:
        return model | None
    mapping = Annotated[model, Tag(MAPPING)]
    text = Annotated[Text, Field(title=short), AfterValidator(of_text), Tag(TEXT)]
    return Annotated[text | mapping, ByType] | None


def _is_file(text: str, folder: str) -> bool:
    """Return whether a text names a file of prompts, there or missing, and not a task."""
    known = os.path.isfile(os.path.join(folder, os.path.expanduser(text)))
    return known or "/" in text or text.endswith((".txt", ".jsonl"))


def repeats(requests: Sequence[ObjectiveRequest | None]) -> Iterator[Problem]:
    """Yield which entries are the same, or are called the same."""
    wanted: dict[tuple[Any, ...], int] = {}
    names: dict[str, int] = {}
    for index, request in enumerate(requests):
        if request is None:
            continue
        key = (request.task, request.metric, request.filter)
        if request.measure is None and key in wanted:
            text = f"the same as objectives[{wanted[key]}]; keep one, or name another metric"
            yield Problem(("objectives", index), text)
            continue
        wanted.setdefault(key, index)
        name = request.name or (request.task if request.measure is not None else None)
        taken = names.get(name, wanted.get((name, None, None))) if name is not None else None
        if name is not None and taken is not None and taken != index:
            text = f"objectives[{taken}] is called {name!r} too; give one of them a `name`"
            yield Problem(("objectives", index), text)
        if name is not None:
            names.setdefault(name, index)
