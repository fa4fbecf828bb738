"""The verbs that look at a run: status, trials, front, report."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from evomerge.cli._verb import DONE, folder_verb

SHOWN_PREDICTED = 8  # points of the predicted front on a screen


def add_status(verbs: Any) -> None:
    """Add the verb `status`."""
    parser = folder_verb(
        verbs,
        "status",
        "show what is running, the best candidate so far, failures and worker utilisation",
        """
evomerge status runs/quickstart
evomerge status runs/quickstart --watch                repainted until the run ends; lines where no terminal reads
evomerge status runs/quickstart --json
""",
        _run_status,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="print JSON")
    kind.add_argument("--watch", action="store_true", help="refresh until the run ends")


def _run_status(arguments: argparse.Namespace) -> int:
    from evomerge.runs import open_run

    if arguments.watch:
        from evomerge.cli._watch import watch

        watch(arguments.folder)
        return DONE
    run = open_run(arguments.folder)
    print(json.dumps(run.status(), indent=2) if arguments.json else run.status_text())
    return DONE


def add_trials(verbs: Any) -> None:
    """Add the verb `trials`."""
    parser = folder_verb(
        verbs,
        "trials",
        "list the candidates, one row each: status, scores with standard errors, genes",
        """
evomerge trials runs/quickstart
evomerge trials runs/quickstart --csv trials.csv
evomerge trials runs/quickstart --csv - | head
evomerge trials runs/quickstart --optuna sqlite:///quickstart.db     for optuna-dashboard
""",
        _run_trials,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", metavar="F", help="write CSV to F ('-': stdout)")
    kind.add_argument("--parquet", metavar="F", help="write Parquet to F (needs pyarrow)")
    kind.add_argument("--json", action="store_true", help="print JSON, one object per candidate")
    kind.add_argument("--optuna", metavar="URL", help="write a study for optuna-dashboard, as in sqlite:///run.db")


def _run_trials(arguments: argparse.Namespace) -> int:
    from evomerge.runs import open_run, print_table, write_csv, write_json, write_parquet

    run = open_run(arguments.folder)
    if arguments.optuna:
        from evomerge.runs import write_study

        study = write_study(run, arguments.optuna)
        print(
            f"wrote study {study.study_name!r} with {len(study.trials)} trials to {arguments.optuna}", file=sys.stderr
        )
        return DONE
    table = run.trials()
    if arguments.csv:
        write_csv(table, arguments.csv)
    elif arguments.parquet:
        write_parquet(table, arguments.parquet)
    elif arguments.json:
        write_json(table)
    else:
        print_table(table)
    return DONE


def add_front(verbs: Any) -> None:
    """Add the verb `front`."""
    parser = folder_verb(
        verbs,
        "front",
        "show the Pareto front: the candidates that no other beats on every objective, and what surrogates predict",
        """
evomerge front runs/quickstart
evomerge front runs/quickstart --plot front.png
evomerge front runs/quickstart --json
evomerge front runs/quickstart --where "sort >= base - 1 point" --prefer add=2,sort=1
evomerge front runs/quickstart --predicted 8 --remeasure
""",
        _run_front,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", metavar="F", help="write CSV to F ('-': stdout)")
    kind.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="F", help="draw the front to F (.png, .svg, .pdf, .html)")
    parser.add_argument(
        "--predicted",
        type=int,
        metavar="N",
        help=f"points to show of the front that surrogates predict; default: {SHOWN_PREDICTED}, none in files",
    )
    parser.add_argument(
        "--remeasure", action="store_true", help="score the predicted points; they join the archive, beside the search"
    )
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="show only points that meet a constraint: 'safety >= base - 1 point', 'add >= 0.6'; may be given again",
    )
    parser.add_argument("--beats-parents", action="store_true", help="show only points that no parent dominates")
    order = parser.add_mutually_exclusive_group()
    order.add_argument("--prefer", metavar="WEIGHTS", help="best first by a preference, as in add=2,sort=1")
    order.add_argument(
        "--desire", metavar="SPANS", help="best first by desirability, worthless..ideal: add=0.5..0.9,sort=0.2..0.8"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="with --remeasure: Ray workers")
    parser.add_argument("--address", metavar="ADDR", help="with --remeasure: Ray cluster to use")


def _run_front(arguments: argparse.Namespace) -> int:
    from evomerge.errors import InputError
    from evomerge.runs import FrontRequest, front_mapping, front_text, open_run, write_csv

    run = open_run(arguments.folder)
    count = arguments.predicted
    if count is not None and count < 0:
        raise InputError(f"--predicted must be 0 or more, got {count}")
    if count is None:
        count = 0 if (arguments.json or arguments.csv) and not arguments.remeasure else SHOWN_PREDICTED
    where = tuple(arguments.where)
    request = FrontRequest(count, where, arguments.beats_parents, arguments.prefer, arguments.desire)
    if arguments.remeasure:
        from evomerge.commands import remeasure

        print(remeasure(run, request, workers=arguments.workers, address=arguments.address), file=sys.stderr)
        run = open_run(arguments.folder)
    if arguments.plot:
        from evomerge import figures

        figures.save(figures.front(run), arguments.plot)
        print(f"wrote {arguments.plot}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(front_mapping(run.data, request), indent=2))
    elif arguments.csv:
        write_csv(run.front_answer(request).frame(), arguments.csv)
    else:
        print(front_text(run.data, request))
    return DONE


def add_report(verbs: Any) -> None:
    """Add the verb `report`."""
    parser = folder_verb(
        verbs,
        "report",
        "write one HTML file: what was found and how sure, the front to explore, finalists, failures, provenance",
        """
evomerge report runs/quickstart
evomerge report runs/quickstart --to report.html
""",
        _run_report,
    )
    parser.add_argument("--to", metavar="F", help="file to write; default: report.html in the run folder")


def _run_report(arguments: argparse.Namespace) -> int:
    from evomerge.reports import write_report
    from evomerge.runs import open_run

    path = write_report(open_run(arguments.folder), arguments.to)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser", file=sys.stderr)
    return DONE
