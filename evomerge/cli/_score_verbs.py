"""The verbs that let a model answer: score, replay."""

from __future__ import annotations

import argparse
import json
from typing import Any

from evomerge.cli._verb import DONE, folder_verb, verb


def add_score(verbs: Any) -> None:
    """Add the verb `score`."""
    parser = verb(
        verbs,
        "score",
        "score a model or a recipe on lm-eval tasks",
        """
evomerge score merged --tasks add,sort --include examples/tasks
evomerge score recipe.yaml --tasks add --include examples/tasks --json
""",
        _run_score,
    )
    parser.add_argument("model", metavar="MODEL_OR_RECIPE", help="folder, hub id, or recipe YAML")
    parser.add_argument(
        "--tasks", required=True, metavar="A,B", help="lm-eval task names, with ':metric' if not the first"
    )
    parser.add_argument("--include", action="append", default=[], metavar="DIR", help="where else lm-eval finds tasks")
    parser.add_argument(
        "--items", type=int, metavar="N", help="the first N pinned items a search would ask; default: all"
    )
    parser.add_argument("--num-fewshot", type=int, metavar="K", help="examples before each question")
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: chosen from memory")
    parser.add_argument(
        "--allow-code-execution", action="store_true", help="let tasks run code that models write; use a sandbox"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_score(arguments: argparse.Namespace) -> int:
    from evomerge.commands import score

    result = score(
        arguments.model,
        tasks=[name for name in arguments.tasks.split(",") if name],
        include=arguments.include,
        items=arguments.items,
        num_fewshot=arguments.num_fewshot,
        batch_size=arguments.batch_size,
        allow_code_execution=arguments.allow_code_execution,
    )
    print(json.dumps(result.to_mapping(), indent=2) if arguments.json else result.text())
    return DONE


def add_replay(verbs: Any) -> None:
    """Add the verb `replay`."""
    parser = folder_verb(
        verbs,
        "replay",
        "rebuild a candidate's weights, score them, and compare fingerprint and responses with the stored ones",
        "evomerge replay runs/quickstart --candidate 17",
        _run_replay,
    )
    parser.add_argument(
        "--candidate",
        required=True,
        metavar="best|knee|ID|PREFERENCE",
        help="candidate to build again, in the values of `export --pick`: the best, the front's knee, a number of "
        "`trials`, or weights as in 'add=2,sort=1'",
    )
    parser.add_argument(
        "--allow-code-execution", action="store_true", help="let tasks run code that models write; use a sandbox"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_replay(arguments: argparse.Namespace) -> int:
    from evomerge.commands import replay

    result = replay(arguments.folder, arguments.candidate, arguments.allow_code_execution)
    print(json.dumps(result.to_mapping(), indent=2) if arguments.json else result.text())
    return DONE if result.same else 1
