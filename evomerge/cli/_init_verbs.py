"""The verbs of a beginning: init, schema, completion."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from evomerge.cli._verb import DONE, verb
from evomerge.errors import ExtraMissing, InputError

SHELLS = ("bash", "zsh", "fish")


def add_init(verbs: Any) -> None:
    """Add the verb `init`."""
    parser = verb(
        verbs,
        "init",
        "write a commented search file; asks in a terminal for what the options leave open",
        """
evomerge init                                           asks for everything
evomerge init --base org/base --model org/math --model org/code --tasks gsm8k,mbpp --to mine.yaml
evomerge init --base examples/experts/base --model examples/experts/add --model examples/experts/sort \\
    --tasks add,sort --include examples/tasks --to mine.yaml
""",
        _run_init,
    )
    parser.add_argument("--base", metavar="MODEL", help="common ancestor: folder, hub id, hub id@revision")
    parser.add_argument(
        "--model", action="append", default=[], metavar="MODEL", help="a model to merge; give it again for each"
    )
    parser.add_argument("--tasks", metavar="A,B", help="lm-eval tasks, one objective each")
    parser.add_argument("--include", action="append", default=[], metavar="DIR", help="where else lm-eval finds tasks")
    parser.add_argument("--method", metavar="M", help="ties (default), dare_ties, task_arithmetic, linear")
    parser.add_argument("--items", type=int, default=100, metavar="N", help="questions per task; default: 100")
    parser.add_argument("--candidates", type=int, default=200, metavar="N", help="budget; default: 200")
    parser.add_argument("--blocks", type=int, default=4, metavar="N", help="blocks of layers; default: 4")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--to", metavar="FILE", help="search file to write ('-': stdout); default: search.yaml")


def _run_init(arguments: argparse.Namespace) -> int:
    from evomerge.config import Draft, comma_list, draft_text
    from evomerge.runs import write_text

    _ask_for_missing(arguments, _ask if sys.stdin.isatty() else None)
    to = arguments.to or "search.yaml"
    draft = Draft(
        models=tuple(arguments.model),
        tasks=tuple(comma_list(arguments.tasks or "")),
        base=arguments.base,
        include=tuple(arguments.include),
        method=arguments.method or "ties",
        items=arguments.items,
        candidates=arguments.candidates,
        blocks=arguments.blocks,
        seed=arguments.seed,
    )
    text = draft_text(draft, "search.yaml" if to == "-" else to)
    write_text(text, to)
    if to != "-":
        print(f"wrote {to}; next: evomerge check {to}", file=sys.stderr)
    return DONE


def _ask_for_missing(arguments: argparse.Namespace, ask: Callable[[str, str], str] | None) -> None:
    """Fill the options that were left out and are needed by asking; without anybody to ask, change nothing."""
    from evomerge.config import METHODS, comma_list

    if ask is None or (arguments.model and arguments.tasks and (arguments.base or arguments.method == "linear")):
        return
    arguments.method = arguments.method or ask(f"merge method ({', '.join(METHODS)})", "ties")
    if arguments.method != "linear":
        arguments.base = arguments.base or ask("base model (folder or hub id)", "")
    while not arguments.model:
        arguments.model = comma_list(ask("models to merge, with commas between them", ""))
    if not arguments.tasks:
        arguments.tasks = ask("lm-eval tasks, with commas between them", "")
        arguments.include = arguments.include or comma_list(ask("folder of task YAML, if they are your own", ""))
    arguments.to = arguments.to or ask("search file to write", "search.yaml")


def _ask(question: str, default: str) -> str:
    """Return the answer of a person; an empty one is the default."""
    try:
        answer = input(f"{question} [{default}]: " if default else f"{question}: ").strip()
    except EOFError:
        raise InputError(f"no answer to: {question}; give it as an option, see `evomerge init --help`") from None
    return answer or default


def add_schema(verbs: Any) -> None:
    """Add the verb `schema`."""
    parser = verb(
        verbs,
        "schema",
        "print the JSON Schema of search files, with which editors complete and check them",
        """
evomerge schema --to searchfile.schema.json
evomerge schema | head
""",
        _run_schema,
    )
    parser.add_argument("--to", default="-", metavar="F", help="file to write; default: stdout")


def _run_schema(arguments: argparse.Namespace) -> int:
    from evomerge.config import search_file_schema
    from evomerge.runs import write_text

    write_text(json.dumps(search_file_schema(), indent=1, ensure_ascii=False) + "\n", arguments.to)
    return DONE


def add_completion(verbs: Any) -> None:
    """Add the verb `completion`."""
    parser = verb(
        verbs,
        "completion",
        "print the script with which a shell completes verbs, options and files",
        """
eval "$(evomerge completion bash)"                              in ~/.bashrc
evomerge completion zsh > ~/.zsh/completions/_evomerge          a folder of $fpath
evomerge completion fish > ~/.config/fish/completions/evomerge.fish
""",
        _run_completion,
    )
    parser.add_argument("shell", choices=SHELLS, help="which shell reads it")


def _run_completion(arguments: argparse.Namespace) -> int:
    try:
        import shtab
    except ImportError as error:
        raise ExtraMissing("shtab", "completion") from error

    print(shtab.complete(_with_files(arguments.parser, shtab.FILE, shtab.DIRECTORY), shell=arguments.shell))
    return DONE


# What an argument's placeholder says about it, for completion.
_FOLDERS = {"DIR"}
_FILES = {
    "FILE",
    "F",
    "F.csv",
    "FILE.csv",
    "OUT",
    "BANK",
    "RECIPE.yaml",
    "RESPONSES",
    "ANSWERS",
    "MODEL_OR_RECIPE",
    "MODEL",
}


def _with_files(parser: argparse.ArgumentParser, files: Any, folders: Any) -> argparse.ArgumentParser:
    """Return the parser, its arguments that are files or folders marked as such for shtab."""
    for action in parser._actions:  # argparse has no public way to walk a parser; shtab does the same
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _with_files(child, files, folders)
        elif action.metavar in _FOLDERS:
            action.complete = folders  # type: ignore[attr-defined]
        elif action.metavar in _FILES:
            action.complete = files  # type: ignore[attr-defined]
    return parser
