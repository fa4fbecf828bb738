"""The verbs that search: check, search, resume."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from evomerge.cli.verb import DONE, INTERRUPTED, NO_CANDIDATE, verb


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
    from evomerge.run.check import check

    report = check(arguments.file)
    print(json.dumps(report.to_mapping(), indent=2) if arguments.json else report.text())
    return DONE


def _search_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", metavar="ADDR", help="Ray cluster to use: 'auto' or host:port")
    parser.add_argument("--candidates", type=int, metavar="N", help="budget: candidates in all, replacing the file's")
    parser.add_argument("--hours", type=float, metavar="H", help="budget: hours of active time in all")
    parser.add_argument("--gpu-hours", type=float, metavar="H", help="budget: GPU-hours in all, busy or not")
    parser.add_argument("--deadline", metavar="TIME", help="budget: when to be done, as in 2030-06-01T18:00:00+02:00")
    parser.add_argument("--cost", type=float, metavar="X", help="budget: money in all, at --price per GPU-hour")
    parser.add_argument("--price", type=float, metavar="X", help="of one GPU-hour, in the currency of --cost")
    parser.add_argument("--workers", type=int, metavar="N", help="Ray workers; default: this process alone")
    share = parser.add_argument_group("workers under Ray")
    share.add_argument(
        "--gpus-per-worker", type=float, metavar="F", help="a fraction or whole number of GPUs; default: 1, or a share"
    )
    share.add_argument(
        "--cpus-per-worker", type=float, metavar="F", help="default: a share of this machine; cluster: 1"
    )
    share.add_argument(
        "--use-head", action="store_true", help="let the cluster's head node work too, where there are other nodes"
    )
    parser.add_argument(
        "--mirror", metavar="URI", help="copy the archive here while it grows: folder, s3://..., sftp://..."
    )
    parser.add_argument(
        "--allow-code-execution", action="store_true", help="let tasks run code that models write; use a sandbox"
    )
    parser.add_argument(
        "--log",
        action="append",
        metavar="TOOL[:PLACE]",
        help="show the search while it runs in tensorboard[:FOLDER], wandb[:[TEAM/]PROJECT] or mlflow[:URI]; may be "
        "given several times; a resumed search goes on where it logged to, 'none' stops that",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, only the result")


def _places(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options that say who works, where copies go and who is shown it, as the public calls name them."""
    names = ("gpus_per_worker", "cpus_per_worker", "use_head", "mirror", "allow_code_execution", "log")
    return {name: getattr(arguments, name) for name in names}


def add_search(verbs: Any) -> None:
    """Add the verb `search`."""
    parser = verb(
        verbs,
        "search",
        "search the merges that a file describes",
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
    parser.add_argument("--out", metavar="DIR", help="run folder; default: runs/<file name>")
    parser.add_argument("--seed", type=int, metavar="N", help="replaces the file's seed")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in DIR if there is one; for jobs that are started again",
    )
    _search_options(parser)


def _run_search(arguments: argparse.Namespace) -> int:
    from evomerge.run.progress import progress_printer
    from evomerge.run.session import run_of_file, search

    if arguments.resume and (folder := run_of_file(arguments.file, arguments.out)) is not None:
        arguments.folder = str(folder)
        return _run_resume(arguments)
    run = search(
        arguments.file,
        out=arguments.out,
        address=arguments.address,
        workers=arguments.workers,
        **_limits(arguments),
        seed=arguments.seed,
        progress=None if arguments.quiet else progress_printer(sys.stderr),
        **_places(arguments),
    )
    return _end_of_search(run)


def add_resume(verbs: Any) -> None:
    """Add the verb `resume`."""
    parser = verb(
        verbs,
        "resume",
        "go on with a search that was stopped, or give a finished one a larger budget",
        """
evomerge resume runs/quickstart
evomerge resume runs/quickstart --candidates 500
evomerge resume runs/quickstart --hours 2              two hours in all, those already used included
""",
        _run_resume,
    )
    parser.add_argument("folder", metavar="DIR", help="run folder")
    _search_options(parser)


def _run_resume(arguments: argparse.Namespace) -> int:
    from evomerge.run.progress import progress_printer
    from evomerge.run.session import resume

    run = resume(
        arguments.folder,
        address=arguments.address,
        workers=arguments.workers,
        **_limits(arguments),
        progress=None if arguments.quiet else progress_printer(sys.stderr),
        **_places(arguments),
    )
    return _end_of_search(run)


def _limits(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("candidates", "hours", "gpu_hours", "deadline", "cost", "price")
    return {name: getattr(arguments, name) for name in names}


def _end_of_search(run: Any) -> int:
    print(run.summary())
    if run.state == "interrupted":
        return INTERRUPTED
    return DONE if run.has_result else NO_CANDIDATE
