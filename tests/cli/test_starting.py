"""init, schema and completion: what a newcomer types before the first search."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from evomerge.cli import build_parser, main
from evomerge.commands import check
from evomerge.config import METHODS, Draft, draft_text, load_search_file, search_file_schema
from evomerge.errors import InputError

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
EXPERTS = ["--model", "examples/experts/add", "--model", "examples/experts/sort"]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = search_file_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("name", sorted(verbs()))
def test_the_help_of_every_verb_that_there_is_has_an_example_that_parses(name: str) -> None:
    parser = verbs()[name]
    examples = [line.strip() for line in (parser.epilog or "").splitlines() if f"evomerge {name}" in line]
    assert examples, f"evomerge {name} --help has no example"
    missing = [a.option_strings for a in parser._actions if not a.help]
    assert not missing, f"evomerge {name}: arguments without a word of help: {missing}"


@pytest.mark.parametrize("method", METHODS)
def test_a_drafted_file_passes_check_and_is_as_large_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.chdir(ROOT)
    file = tmp_path / "mine.yaml"
    base = [] if method == "linear" else ["--base", "examples/experts/base"]
    options = ["--tasks", "add,sort", "--include", "examples/tasks", "--method", method, "--to", str(file)]
    assert main(["init", *base, *EXPERTS, *options]) == 0
    report = check(file)
    text = file.read_text()
    assert f"= {report.space.dimension} dimensions" in text.splitlines()[0]
    assert report.space.dimension == {"ties": 16, "dare_ties": 16, "task_arithmetic": 8, "linear": 8}[method]
    assert [objective.name for objective in report.tasks.objectives] == ["add", "sort"]
    assert report.search_file.budget.candidates == 200
    # relative to the file, so that both can be moved together
    assert not any(line.strip().startswith("- model: /") for line in text.splitlines())


def test_hub_ids_stay_and_texts_that_yaml_would_misread_are_quoted() -> None:
    draft = Draft(models=("org/math@4f2a", "org/base+org/lora"), base="org/base", tasks=("no", "1e3", "a: b", "gsm8k"))
    found = yaml.safe_load(draft_text(draft, "x.yaml"))
    assert [entry["model"] for entry in found["merge"]["models"]] == ["org/math@4f2a", "org/base+org/lora"]
    assert [entry["task"] for entry in found["objectives"]] == ["no", "1e3", "a: b", "gsm8k"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"base": None}, "--base"),
        ({"tasks": ()}, "--tasks"),
        ({"models": ()}, "--model"),
        ({"models": ("org/a", "org/a")}, "twice"),
        ({"method": "tie"}, "ties"),
        ({"method": "della"}, "by hand"),
        ({"items": 0}, "items"),
    ],
)
def test_what_is_missing_or_wrong_is_named(changes: dict[str, Any], named: str) -> None:
    given = {"models": ("org/a",), "tasks": ("add",), "base": "org/base", **changes}
    with pytest.raises(InputError, match=named):
        draft_text(Draft(**given), "x.yaml")


def test_init_without_options_and_without_anybody_to_ask_says_what_to_give(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 2
    assert "--tasks" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_init_asks_in_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    experts = ROOT / "examples" / "experts"
    replies = {
        "merge method": "task_arithmetic",
        "base model": str(experts / "base"),
        "models to merge": f"{experts / 'add'}, {experts / 'spell'}",
        "lm-eval tasks": "add, words",
        "folder of task": str(ROOT / "examples" / "tasks"),
        "search file": "",  # the default
    }
    asked: list[str] = []

    def answer(question: str) -> str:
        (key,) = [key for key in replies if question.startswith(key)]
        asked.append(key)
        return replies[key]

    monkeypatch.setattr("builtins.input", answer)
    assert main(["init"]) == 0
    assert asked == list(replies)
    assert check("search.yaml").space.names == tuple(
        f"weight.{model}.block{block}" for model in ("add", "spell") for block in range(4)
    )


def test_init_overwrites_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("dear to me")
    assert main(["init", "--base", "o/b", "--model", "o/m", "--tasks", "add", "--to", str(file)]) == 2
    assert "exists" in capsys.readouterr().err
    assert file.read_text() == "dear to me"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_shipped_space_fits_the_schema(path: Path, validator: jsonschema.Draft202012Validator) -> None:
    validator.validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("objectives", 0, "tsk"), "add"),
        (("controller", "name"), "cma_es"),
        (("budget", "candidates"), 0),
        (("budget", "candidates"), 1.5),
        (("scoring", "holdout"), 1.0),
        (("merge", "merge_method"), "tie"),
        (("merge", "parameters", "weight"), {"search": [0, 1], "pre": "model"}),
        (("merge", "parameters", "weight"), {"search": [0, 1], "per": [{"block": 4}]}),
        (("merge", "slices"), [{"sources": []}]),
        (("seed",), "seven"),
    ],
)
def test_what_check_refuses_the_schema_refuses(
    tmp_path: Path, validator: jsonschema.Draft202012Validator, place: tuple[Any, ...], value: Any
) -> None:
    document = yaml.safe_load((ROOT / "search_spaces" / "quickstart.yaml").read_text(encoding="utf-8"))
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    assert not validator.is_valid(document)
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(InputError, match=str(place[-1])):
        load_search_file(file)


def test_the_schema_has_a_word_about_every_key() -> None:
    def sections(schema: Any) -> Any:
        if isinstance(schema, dict):
            if schema.get("type") == "object" and schema.get("additionalProperties") is False:
                yield schema["properties"]
            for entry in schema.values():
                yield from sections(entry)
        elif isinstance(schema, list):
            for entry in schema:
                yield from sections(entry)

    schema = search_file_schema()
    found = list(sections(schema["properties"]))
    assert len(found) > 10
    top = [schema["properties"], *[p for p in found if "min_items" in p or "norm_ratio" in p or "merge_method" in p]]
    assert all(key.get("description") for section in top for key in section.values())
    assert schema["properties"]["controller"]["anyOf"][0]["properties"]["asynchronous"] == {
        "anyOf": [{"type": "boolean"}, {"type": "null"}],
        "default": False,
        "description": "tell results as they arrive and propose before a generation ends",
    }


def test_the_committed_schema_is_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    said = capsys.readouterr().out
    committed = ROOT / "docs" / "searchfile.schema.json"
    assert committed.read_text(encoding="utf-8") == said, (
        "write it again: rm docs/searchfile.schema.json; evomerge schema --to docs/searchfile.schema.json"
    )
    assert json.loads(said) == search_file_schema()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_read_by_its_shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str
) -> None:
    assert main(["completion", shell]) == 0
    script = tmp_path / f"evomerge.{shell}"
    script.write_text(capsys.readouterr().out)
    assert all(verb in script.read_text() for verb in verbs())
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not on this machine; that the script names every verb was tested")
    subprocess.run([program, "-n", str(script)], check=True, capture_output=True)


def test_bash_completes_verbs_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not on this machine")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "evomerge.bash"
    script.write_text(capsys.readouterr().out)

    def completed(*words: str) -> set[str]:
        line = " ".join(("evomerge", *words))
        array = " ".join(f'"{word}"' for word in ("evomerge", *words))
        code = (
            f'source {script}; COMP_WORDS=({array}); COMP_CWORD={len(words)}; COMP_LINE="{line}"; '
            f'COMP_POINT={len(line)}; $(complete -p evomerge | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
            'echo "${COMPREPLY[@]}"'
        )
        return set(subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True).stdout.split())

    assert completed("se") == {"search"}
    assert completed("re") == {"resume", "replay", "report"}
    assert "--gpu-hours" in completed("resume", "--")
    assert completed("export", "--as", "m") == {"mergekit"}
