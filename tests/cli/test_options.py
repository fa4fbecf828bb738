"""Options are fields of dataclasses: the command line and Python offer the same ones, in the same words."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import evomerge
from evomerge.cli import build_parser
from evomerge.cli._argparse_options import given
from evomerge.commands import ResumeOptions, SearchOptions, SubmitOptions
from evomerge.commands._search_options import command_line

ROOT = Path(__file__).parents[2]
# Options that only the command line has: in Python they are another call or another argument.
ONLY_THERE = {
    "search": {"help", "resume", "quiet"},
    "resume": {"help", "quiet"},
    "submit": {"help", "cluster", "dry_run", "no_follow", "follow", "stop"},
}
# The package `evomerge.merge` holds the merge methods, so the verb `merge` says in Python what it merges.
PYTHON_NAMES = {"merge": "merge_recipe"}


def verbs() -> dict[str, argparse.ArgumentParser]:
    (found,) = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found.choices)


@pytest.mark.parametrize(
    ("verb", "options"), [("search", SearchOptions), ("resume", ResumeOptions), ("submit", SubmitOptions)]
)
def test_a_verb_has_the_options_of_its_dataclass(verb: str, options: type) -> None:
    written = {action.dest for action in verbs()[verb]._actions if action.option_strings} - ONLY_THERE[verb]
    assert written == {part.name for part in fields(options) if part.metadata}


@pytest.mark.parametrize(("verb", "options"), [("search", SearchOptions), ("resume", ResumeOptions)])
def test_python_takes_the_same_options_as_keywords(verb: str, options: type) -> None:
    function = getattr(evomerge, verb)
    keywords = list(inspect.signature(function).parameters)[1:]
    assert keywords == [part.name for part in fields(options)]
    assert all(f"    {name}: " in (function.__doc__ or "") for name in keywords)


def test_a_keyword_that_is_no_option_is_refused() -> None:
    with pytest.raises(TypeError, match="candidate"):
        evomerge.search("x.yaml", candidate=3)  # type: ignore[call-arg]


def test_the_words_of_options_are_read_back() -> None:
    words = ["--gpus-per-worker", "0.5", "--use-head", "--candidates", "9", "--log", "a", "--log", "mlflow:b"]
    options = given(build_parser().parse_args(["search", "x.yaml", *words]), SearchOptions)
    assert {name: value for name, value in options.items() if value} == {
        "gpus_per_worker": 0.5,
        "use_head": True,
        "candidates": 9,
        "log": ["a", "mlflow:b"],
    }
    assert sorted(command_line(options)) == sorted(words)


def test_what_export_can_pick_replay_can_build_again() -> None:
    options = {
        verb: {action.dest: action.metavar for action in verbs()[verb]._actions} for verb in ("export", "replay")
    }
    assert options["export"]["pick"] == options["replay"]["candidate"]


def test_verbs_are_called_the_same_in_python() -> None:
    public = {
        PYTHON_NAMES.get(verb, verb) for verb in ("check", "search", "resume", "merge", "score", "replay", "calibrate")
    }
    assert public <= set(evomerge.__all__)
    assert all(getattr(evomerge, name).__name__ == name for name in public)


def test_help_starts_without_heavy_packages() -> None:
    code = "import sys; from evomerge.cli import build_parser; build_parser().format_help(); "
    code += "print(sorted({'torch', 'pydantic', 'pandas', 'numpy', 'ray', 'lm_eval', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
