"""The verbs that search: check, search, resume."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.cli._argparse_options import add_options, given
from evomerge.cli._verb import DONE, INTERRUPTED, NO_CANDIDATE, verb
from evomerge.commands import Reporter, ResumeOptions, SearchOptions


def add_check(verbs: Any) -> None:
    """Add the verb `check`."""
    parser = verb(
        verbs,
        "check",
        "read a search file, the models' headers and the tasks, and report every problem; loads no weights",
        "evomerge check search_spaces/quickstart.yaml",
        _run_check,
    )
    parser.add_argument("file", metavar="FILE", help="search file (YAML)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _run_check(arguments: argparse.Namespace) -> int:
    from evomerge.commands import check

    report = check(arguments.file)
    print(json.dumps(report.to_mapping(), indent=2) if arguments.json else report.text())
    return DONE


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="print the result alone, without progress")


def add_search(verbs: Any) -> None:
    """Add the verb `search`."""
    parser = verb(
        verbs,
        "search",
        "search the space of merges that a search file describes",
        """
evomerge search search_spaces/quickstart.yaml
evomerge search mine.yaml --out runs/mine --workers 4
evomerge search mine.yaml --candidates 20 --seed 1     a first look
evomerge search mine.yaml --address auto --mirror s3://bucket/mine     on the cluster of this node, with a copy
evomerge search mine.yaml --log tensorboard --log mlflow:sqlite:///mlflow.db
""",
        _run_search,
    )
    parser.add_argument("file", metavar="FILE", help="search file (YAML)")
    add_options(parser, SearchOptions)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in DIR if there is one; for jobs that a scheduler restarts",
    )
    _add_quiet(parser)


def _run_search(arguments: argparse.Namespace) -> int:
    options = given(arguments, SearchOptions)
    return run_search(arguments.file, options, resume=arguments.resume, quiet=arguments.quiet)


def run_search(file: str, options: Mapping[str, Any], *, resume: bool = False, quiet: bool = False) -> int:
    """Search as `evomerge search` does, and return the exit status.

    Args:
        file: search file.
        options: of `SearchOptions`, those that were given.
        resume: continue the run in the run folder, if there is one of this file.
        quiet: show no progress.
    """
    from evomerge.commands import run_of_file, search

    if resume and (folder := run_of_file(file, options.get("out"))) is not None:
        return _resume(folder, {name: value for name, value in options.items() if name not in ("out", "seed")}, quiet)
    return _end_of_search(search(file, **options, progress=_progress(quiet)))


def add_resume(verbs: Any) -> None:
    """Add the verb `resume`."""
    parser = verb(
        verbs,
        "resume",
        "continue an interrupted search, or extend a finished one with a larger budget",
        """
evomerge resume runs/quickstart
evomerge resume runs/quickstart --candidates 500
evomerge resume runs/quickstart --hours 2              two hours in all, those already used included
""",
        _run_resume,
    )
    parser.add_argument("folder", metavar="DIR", help="run folder")
    add_options(parser, ResumeOptions)
    _add_quiet(parser)


def _run_resume(arguments: argparse.Namespace) -> int:
    return _resume(arguments.folder, given(arguments, ResumeOptions), arguments.quiet)


def _resume(folder: str | Path, options: Mapping[str, Any], quiet: bool) -> int:
    from evomerge.commands import resume

    return _end_of_search(resume(folder, **options, progress=_progress(quiet)))


def _progress(quiet: bool) -> Reporter | None:
    from evomerge.commands import progress_printer

    return None if quiet else progress_printer(sys.stderr)


def _end_of_search(run: Any) -> int:
    print(run.summary())
    if run.state == "interrupted":
        return INTERRUPTED
    return DONE if run.has_result else NO_CANDIDATE
