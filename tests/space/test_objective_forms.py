# ruff: noqa: E501  (one mistake per line reads best)
"""Objectives that are no tasks: what they mean, and every kind of mistake in them."""

from __future__ import annotations

import pytest

from evomerge.config import load_search_file
from tests.space.files import SMALL, problems


@pytest.fixture
def place(tmp_path):
    (tmp_path / "wiki.txt").write_text("text")
    (tmp_path / "ask.txt").write_text("Hello?\n")

    def write(entry):
        path = tmp_path / "search.yaml"
        path.write_text(SMALL.replace("{task: add}", entry))
        return path

    return write


@pytest.mark.parametrize(
    ("entry", "kind", "name", "settings"),
    [
        ("{perplexity: wiki.txt}", "perplexity", "perplexity", {"file": "wiki.txt", "chunk": 2000}),
        ("{perplexity: {file: wiki.txt, chunk: 500}, name: wiki}", "perplexity", "wiki", {"file": "wiki.txt", "chunk": 500}),
        ("{python: 'fit.good:score'}", "python", "score", {"function": "fit.good:score", "prompts": None, "items": None, "max_tokens": 64, "until": [], "folder": ""}),
        ("{python: {function: 'fit:score', prompts: ask.txt, until: ['.'], max_tokens: 9}}", "python", "score", {"function": "fit:score", "prompts": "ask.txt", "items": None, "max_tokens": 9, "until": ["."], "folder": ""}),
        ("{phrases: {raise: [Sure], lower: [{after: Say, text: ' no'}]}}", "phrases", "phrases", {"phrases": [{"after": "", "text": "Sure", "lower": False}, {"after": "Say", "text": " no", "lower": True}]}),
        ("{measure: layers}", "layers", "layers", {}),
        ("{measure: parameters, name: size, goal: maximize}", "parameters", "size", {}),
        ("{measure: seconds}", "seconds", "seconds", {"items": 8}),
        ("{response_length: {prompts: ask.txt}, goal: maximize}", "response_length", "response_length", {"prompts": "ask.txt", "max_tokens": 64, "until": []}),
    ],
)  # fmt: skip
def test_a_measure_has_a_name_and_complete_settings_with_absolute_paths(place, entry, kind, name, settings):
    path = place(entry)
    (request,) = load_search_file(path).objectives
    absolute = {
        key: str(path.parent / value) if key in ("file", "prompts") and value else value
        for key, value in settings.items()
    }
    if "folder" in absolute:
        absolute["folder"] = str(path.parent)
    assert (request.measure.kind, request.measure.name, request.task) == (kind, name, name)
    assert request.measure.settings == absolute
    assert request.measure.objective(request.goal).goal == (
        "minimize" if kind in ("perplexity", "layers", "seconds") else "maximize"
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{measure: layer}", "line 8, objectives[0].measure: unknown measure 'layer'. Near: layers."),
        ("{measure: layers, metric: acc}", "objectives[0].metric: metric belongs to a task; leave it out with measure"),
        ("{measure: layers}\n  - {measure: layers}", "objectives[0] is called 'layers' too; give one of them a `name`"),
        ("{perplexty: wiki.txt}", "line 8, objectives[0].perplexty: unknown key. Near: perplexity."),
        ("{perplexty: wiki.txt}", "line 8, objectives[0]: task is missing: an lm-eval task, or one of measure, perplexity,"),
        ("{task: add, perplexity: wiki.txt}", "objectives[0]: only one of task, perplexity can be wanted by one objective"),
        ("{perplexity: wiki.txt, metric: acc}", "objectives[0].metric: metric belongs to a task; leave it out with perplexity"),
        ("{perplexity: wik.txt}", "objectives[0].perplexity.file: no such file: "),
        ("{perplexity: 5}", "objectives[0].perplexity: must be a file, or a mapping as in {file: wiki.txt}, got 5"),
        ("{perplexity: {fiel: wiki.txt}}", "objectives[0].perplexity.fiel: unknown key. Near: file."),
        ("{perplexity: {file: wiki.txt, chunk: 3}}", "objectives[0].perplexity.chunk: must be a whole number of at least 16, got 3"),
        ("{perplexity: wiki.txt, goal: down}", "objectives[0].goal: unknown goal 'down'"),
        ("{perplexity: wiki.txt, weight: -1}", "objectives[0].weight: must be a number above 0, got -1"),
        ("{perplexity: wiki.txt, name: a=b}", "objectives[0].name: a name cannot hold any of = , / or a line's end, got 'a=b'"),
        ("{perplexity: wiki.txt}\n  - {perplexity: wiki.txt}", "line 9, objectives[1]: objectives[0] is called 'perplexity' too; give one of them a `name`"),
        ("{task: add}\n  - {perplexity: wiki.txt, name: add}", "line 9, objectives[1]: objectives[0] is called 'add' too"),
        ("{python: {prompts: ask.txt}}", "objectives[0].python: function is missing: package.module:function"),
        ("{python: {function: 'a:b', prompts: ask.txt, items: 3}}", "objectives[0].python.items: the prompts are the items"),
        ("{phrases: {}}", "objectives[0].phrases: raise, lower or both are needed"),
        ("{phrases: {raise: []}}", "objectives[0].phrases.raise: must be a list of at least one entry"),
        ("{phrases: {riase: [a]}}", "objectives[0].phrases.riase: unknown key. Near: raise."),
        ("{phrases: {raise: [a], lower: [a]}}", "objectives[0].phrases.lower[0]: the phrase 'a' is listed already; keep one"),
        ("{phrases: {raise: [5]}}", "objectives[0].phrases.raise[0]: must be a text (yes, no and numbers need quotes), or {after: ..., text: ...}, got 5"),
        ("{phrases: [a]}", "objectives[0].phrases: must be "),
        ("{judge: {model: m, prompts: ask.txt, rubric: r}}", "objectives[0].judge: url is missing: of an OpenAI-compatible server"),
        ("{judge: {url: 'ftp://x', model: m, prompts: ask.txt, rubric: r}}", "objectives[0].judge.url: must begin with http:// or https://, got 'ftp://x'"),
        ("{judge: {url: 'http://me:secret@x', model: m, prompts: ask.txt, rubric: r}}", "objectives[0].judge.url: must hold no user or password"),
        ("{judge: {url: 'http://x', model: m, prompts: ask.txt, rubric: r, scale: [5, 1]}}", "objectives[0].judge.scale: must be [lowest, highest], got [5.0, 1.0]"),
        ("{judge: {url: 'http://x', model: m, prompts: ask.txt, rubric: r, key_env: sk-abc}}", "objectives[0].judge.key_env: must be the name of an environment variable"),
        ("{judge: {url: 'http://x', model: m, prompts: ask.txt, rubric: r, kye_env: A}}", "objectives[0].judge.kye_env: unknown key. Near: key_env"),
        ("{response_length: no.txt}", "objectives[0].response_length.prompts: no such file: "),
        ("{response_length: 7}", "objectives[0].response_length: must be a task, a file, or a mapping as in {prompts: prompts.txt}"),
        ("{response_length: {prompts: no.txt}}", "objectives[0].response_length.prompts: no such file: "),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_what_to_do(place, entry, message):
    found = problems(place(entry))
    assert any(message in problem for problem in found), found
