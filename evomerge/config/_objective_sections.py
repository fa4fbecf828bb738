"""What an entry of `objectives` may hold: a task, or one of the other measures, told apart by its key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from evomerge.config._grammar import Either, Free, Key, Many, Number, Section, Text
from evomerge.config._option_forms import option_section
from evomerge.config._requests import ObjectiveRequest
from evomerge.metric_kinds import METRICS, sizes
from evomerge.scoring import RESPONSE_TOKENS, TIMINGS, Measure
from evomerge.space import Place, Problem

PHRASE = Section(
    (
        Key("after", Text(what="text"), "what stands before the phrase; default: nothing"),
        Key("text", Text(what="text"), "the continuation", required=True),
    ),
    '{after: "The capital of France is", text: " Paris"}',
)
_PHRASE = "a text (yes, no and numbers need quotes), or {after: ..., text: ...}"
_PHRASES = Many(Either(text=Text(what="text"), mapping=PHRASE, what=_PHRASE), '["Hello"]')
# Keys that say how a model writes.
_WRITING = (
    Key("max_tokens", Number(1, integer=True), "tokens that the model may write", default=64),
    Key("until", Many(Text(what="text"), '["\\n"]'), "texts that end an answer, beside the end-of-text token"),
)
PERPLEXITY = Section(
    (
        Key("file", Text(what="file"), "UTF-8 text, relative to this file", required=True),
        Key("chunk", Number(16, integer=True), "characters that are read at once, one item", default=2000),
    ),
    "{file: wiki.txt}",
)
PYTHON = Section(
    (
        Key("function", Text(what="function"), "package.module:function", required=True),
        Key("prompts", Text(what="file"), "the function is given the model's answers to these"),
        Key("items", Number(1, integer=True), "the function returns this many scores; default: one number"),
        *_WRITING,
    ),
    "{function: my_fitness:score}",
)
PHRASES = Section(
    (
        Key("raise", _PHRASES, "continuations that should become more likely"),
        Key("lower", _PHRASES, "continuations that should become less likely"),
    ),
    '{raise: ["Certainly"], lower: ["I cannot"]}',
)
RESPONSE_LENGTH = Section(
    (Key("prompts", Text(what="file"), "one prompt per line, or .jsonl", required=True), *_WRITING),
    "{prompts: prompts.txt}",
)
JUDGE = Section(
    (
        Key("url", Text(what="URL"), "of an OpenAI-compatible server, as in http://localhost:8000/v1", required=True),
        Key("model", Text(what="model"), "the judge's name there", required=True),
        Key("prompts", Text(what="file"), "one prompt per line, or .jsonl", required=True),
        Key("rubric", Text(what="text"), "what is a good answer", required=True),
        Key("scale", Many(Number(), "[1, 10]"), "lowest and highest score", default=(1.0, 10.0)),
        Key("key_env", Text(what="name"), "environment variable that holds the key; default: no key"),
        Key("timeout", Number(0, open_low=True), "seconds per reply", default=60.0),
        Key("retries", Number(0, integer=True), "further attempts where one fails", default=3),
        *_WRITING,
    ),
    "{url: ..., model: ..., prompts: ..., rubric: ...}",
)
_BUILT_IN: Mapping[str, Section] = {
    "perplexity": PERPLEXITY,
    "python": PYTHON,
    "phrases": PHRASES,
    "response_length": RESPONSE_LENGTH,
    "judge": JUDGE,
}


def metric_forms() -> dict[str, Section]:
    """Return the form of each metric's settings, by kind; sizes have none."""
    return {
        kind: _BUILT_IN.get(kind) or option_section(info.options) for kind, info in METRICS.items() if not info.size
    }


def _what(kind: str, form: Section) -> str:
    short = "a task, a file" if kind == "response_length" else f"a {METRICS[kind].short}"
    return f"{short}, or a mapping as in {form.example}" if METRICS[kind].short else form.example


def objective_section() -> Section:
    """Return the form of one entry of `objectives`."""
    return Section(
        (
            Key("task", Text(what="task"), "an lm-eval task"),
            Key("metric", Text(what="metric"), "as in lm-eval; default: the task's first"),
            Key("goal", Text(("maximize", "minimize"), what="goal"), "default: from lm-eval's metadata"),
            Key("weight", Number(0, open_low=True), "in the weighted mean; default: 1, and 0 for a size of the model"),
            Key("filter", Text(what="filter"), "lm-eval's filter name; default: the metric's first"),
            Key("name", Text(what="name"), "of the objective; default: the task's"),
            Key(
                "measure",
                Text(sizes(), what="measure"),
                "in place of a task: the size or speed of the model",
            ),
            *(
                Key(
                    kind,
                    Either(
                        text=Text(what=METRICS[kind].short or "mapping") if METRICS[kind].short else None,
                        mapping=Free(form.example),
                        what=_what(kind, form),
                    ),
                    "in place of a task",
                )
                for kind, form in metric_forms().items()
            ),
        ),
        "{task: add}",
    )


def read_objectives(
    entries: Sequence[Mapping[str, Any]], folder: str, problems: list[Problem]
) -> tuple[ObjectiveRequest, ...]:
    """Return the objectives of a file; relative paths are relative to `folder`."""
    requests = [_read(entry, ("objectives", index), folder, problems) for index, entry in enumerate(entries)]
    _check_repeats(requests, problems)
    return tuple(request for request in requests if request is not None)


def _read(entry: Mapping[str, Any], place: Place, folder: str, problems: list[Problem]) -> ObjectiveRequest | None:
    shared = {"goal": entry["goal"], "weight": entry["weight"]}
    given = [kind for kind in ("task", "measure", *metric_forms()) if entry[kind] is not None]
    if len(given) != 1:
        text = f"only one of {', '.join(given)} can be wanted by one objective; write one entry for each"
        if not given:
            text = f"task is missing: an lm-eval task, or one of {', '.join(['measure', *metric_forms()])} in its place"
        problems.append(Problem(place, text))
        return None
    name = _name(entry["name"], place, problems)
    if given == ["task"]:
        return ObjectiveRequest(entry["task"], entry["metric"], filter=entry["filter"], name=name, **shared)
    kind = given[0]
    for key in ("metric", "filter"):
        if entry[key] is not None:
            problems.append(Problem((*place, key), f"{key} belongs to a task; leave it out with {kind}"))
    if kind == "measure":
        size = entry[kind]
        # an unknown word is a problem already
        settings = {"items": TIMINGS} if size == "seconds" else {}
        return ObjectiveRequest(name or size, name=name, measure=Measure(size, name or size, settings), **shared)
    if kind == "response_length" and isinstance(entry[kind], str) and not _is_file(entry[kind], folder):
        return ObjectiveRequest(entry[kind], RESPONSE_TOKENS, name=name or kind, **shared)
    settings = _settings(kind, entry[kind], (*place, kind), folder, problems)
    measure = Measure(kind, name or _default_name(kind, settings), settings)
    return ObjectiveRequest(measure.name, name=name, measure=measure, **shared)


def _name(name: str | None, place: Place, problems: list[Problem]) -> str | None:
    # Preferences are written as in 'add=2,sort=1', and paths end a task's file name.
    if name is not None and any(sign in name for sign in "=,\n/"):
        problems.append(Problem((*place, "name"), f"a name cannot hold any of = , / or a line's end, got {name!r}"))
    return name


def _default_name(kind: str, settings: Mapping[str, Any]) -> str:
    return str(settings.get("function") or kind).rpartition(":")[2] if kind == "python" else kind


def _settings(kind: str, value: Any, place: Place, folder: str, problems: list[Problem]) -> dict[str, Any]:
    """Return a measure's settings, complete and with absolute paths."""
    short = METRICS[kind].short
    written = {short: value} if isinstance(value, str) and short else value
    if not isinstance(written, Mapping):
        return {}
    settings = metric_forms()[kind].read(written, place, problems)
    if "until" in settings:
        settings["until"] = list(settings["until"] or ())
    for key in METRICS[kind].files:
        if isinstance(settings.get(key), str):
            settings[key] = _existing(settings[key], (*place, key), folder, problems)
    if kind == "phrases":
        return {"phrases": _phrases(settings, place, problems)}
    if kind == "judge":
        _check_judge(settings, place, problems)
    if kind == "python":
        settings["folder"] = folder
        if settings["prompts"] and settings["items"]:
            text = "the prompts are the items; leave items out (scoring.items says how many of them are asked)"
            problems.append(Problem((*place, "items"), text))
    return settings


def _check_judge(settings: dict[str, Any], place: Place, problems: list[Problem]) -> None:
    parts = urlsplit(str(settings["url"] or "http://-"))
    if parts.scheme not in ("http", "https") or not parts.netloc:
        problems.append(Problem((*place, "url"), f"must begin with http:// or https://, got {settings['url']!r}"))
    elif "@" in parts.netloc:
        problems.append(Problem((*place, "url"), "must hold no user or password; name a variable with key_env"))
    settings["scale"] = list(settings["scale"])
    if len(settings["scale"]) != 2 or None in settings["scale"] or settings["scale"][0] >= settings["scale"][1]:
        problems.append(Problem((*place, "scale"), f"must be [lowest, highest], got {settings['scale']}"))
    if settings["key_env"] and not settings["key_env"].isidentifier():
        text = "must be the name of an environment variable, as in JUDGE_KEY, and not the key itself"
        problems.append(Problem((*place, "key_env"), text))


def _is_file(text: str, folder: str) -> bool:
    """Return whether a text names a file of prompts, there or missing, and not a task."""
    known = os.path.isfile(os.path.join(folder, os.path.expanduser(text)))
    return known or "/" in text or text.endswith((".txt", ".jsonl"))


def _existing(name: str, place: Place, folder: str, problems: list[Problem]) -> str:
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(name)))
    if not os.path.isfile(path):
        problems.append(Problem(place, f"no such file: {path}; relative paths are relative to the search file"))
    return path


def _phrases(settings: Mapping[str, Any], place: Place, problems: list[Problem]) -> list[dict[str, Any]]:
    if not settings["raise"] and not settings["lower"]:
        problems.append(Problem(place, "raise, lower or both are needed, as in {raise: [...], lower: [...]}"))
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key in ("raise", "lower"):
        for index, phrase in enumerate(settings[key] or ()):
            if not phrase:  # named already
                continue
            entry = {"after": "", "text": phrase} if isinstance(phrase, str) else phrase
            after, text = str(entry.get("after") or ""), str(entry.get("text") or "")
            if (after, text) in found:
                problems.append(Problem((*place, key, index), f"the phrase {text!r} is listed already; keep one"))
            found[after, text] = {"after": after, "text": text, "lower": key == "lower"}
    return list(found.values())


def _check_repeats(requests: Sequence[ObjectiveRequest | None], problems: list[Problem]) -> None:
    asked: dict[tuple[Any, ...], int] = {}
    names: dict[str, int] = {}
    for index, request in enumerate(requests):
        if request is None:
            continue
        key = (request.task, request.metric, request.filter)
        if request.measure is None and key in asked:
            text = f"the same as objectives[{asked[key]}]; keep one, or name another metric"
            problems.append(Problem(("objectives", index), text))
            continue
        asked.setdefault(key, index)
        name = request.name or (request.task if request.measure is not None else None)
        taken = names.get(name, asked.get((name, None, None))) if name is not None else None
        if name is not None and taken is not None and taken != index:
            text = f"objectives[{taken}] is called {name!r} too; give one of them a `name`"
            problems.append(Problem(("objectives", index), text))
        if name is not None:
            names.setdefault(name, index)
