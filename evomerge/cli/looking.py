"""The verbs that look at a run: status, trials, front, report."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from evomerge.cli.verb import DONE, folder_verb


def add_status(verbs: Any) -> None:
    """Add the verb `status`."""
    parser = folder_verb(
        verbs,
        "status",
        "say what is running, the best so far, failures and utilisation",
        "evomerge status runs/quickstart\nevomerge status runs/quickstart --json",
        _run_status,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _run_status(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run

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
""",
        _run_trials,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", metavar="F", help="write CSV to F ('-': stdout)")
    kind.add_argument("--parquet", metavar="F", help="write Parquet to F (needs pyarrow)")
    kind.add_argument("--json", action="store_true", help="print JSON, one object per candidate")


def _run_trials(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run
    from evomerge.results.tables import print_table, write_csv, write_json, write_parquet

    table = open_run(arguments.folder).trials()
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
        "show the Pareto front: the candidates that no other beats on every objective",
        """
evomerge front runs/quickstart
evomerge front runs/quickstart --plot front.png
evomerge front runs/quickstart --json
""",
        _run_front,
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--csv", metavar="F", help="write CSV to F ('-': stdout)")
    kind.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="F", help="draw the front to F (.png, .svg, .pdf, .html)")


def _run_front(arguments: argparse.Namespace) -> int:
    from evomerge.results import open_run
    from evomerge.results.tables import print_table, write_csv

    run = open_run(arguments.folder)
    if arguments.plot:
        from evomerge import figures

        figures.save(figures.front(run), arguments.plot)
        print(f"wrote {arguments.plot}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(run.front_mapping(), indent=2))
    elif arguments.csv:
        write_csv(run.front(), arguments.csv)
    else:
        print_table(run.front())
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
    from evomerge.report import write_report
    from evomerge.results import open_run

    path = write_report(open_run(arguments.folder), arguments.to)
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB); open it in a browser", file=sys.stderr)
    return DONE
