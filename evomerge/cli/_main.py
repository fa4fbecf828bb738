"""The command line: one verb, one public call. Messages go to stderr, results and `--json` to stdout."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from evomerge.cli._calibrate_verbs import add_calibrate, add_estimate
from evomerge.cli._export_verbs import add_convert, add_export, add_merge
from evomerge.cli._init_verbs import add_completion, add_init, add_schema
from evomerge.cli._inspect_verbs import add_front, add_report, add_status, add_trials
from evomerge.cli._score_verbs import add_replay, add_score
from evomerge.cli._search_verbs import add_check, add_resume, add_search
from evomerge.cli._submit_verbs import add_submit
from evomerge.cli._verb import DONE, INTERRUPTED, WRONG_INPUT
from evomerge.errors import EvomergeError, InputError
from evomerge.version import __version__
from evomerge.workers import hide

OVERVIEW = """\
Find the merge, or the whole Pareto front of merges, of fine-tuned language models that serves your tasks best.

  evomerge init                                      write a search file for your models and tasks
  evomerge check  search_spaces/quickstart.yaml      is the file right, do the models fit, do the tasks exist
  evomerge search search_spaces/quickstart.yaml      search; progress is saved as it goes
  evomerge resume runs/quickstart                    go on after Ctrl-C, a crash, or with a larger budget
  evomerge front  runs/quickstart --plot front.png   the trade-offs that were found
  evomerge export runs/quickstart --to merged        the best merge as a folder that transformers loads

'evomerge VERB --help' explains a verb with examples."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 2 wrong input, 3 no usable candidate, 130 stopped."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if not hasattr(arguments, "call"):
        parser.print_help()
        return WRONG_INPUT
    # A scheduler that takes the machine back sends SIGTERM: then too, everything is saved and workers are closed.
    with suppress(ValueError):  # signal handlers can only be set in the main thread
        signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        status: int = arguments.call(arguments)
        sys.stdout.flush()
        return status
    except EvomergeError as error:
        print(f"evomerge: {hide(str(error))}", file=sys.stderr)
        return WRONG_INPUT if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print("evomerge: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of a pipe (head, less) left; that is not an error of ours
        sys.stderr.close()
        return DONE


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs; also what the documentation is generated from."""
    parser = argparse.ArgumentParser(
        prog="evomerge", description=OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"evomerge {__version__}")
    parser.set_defaults(parser=parser)  # read by `completion`, which describes all verbs
    verbs = parser.add_subparsers(title="verbs", metavar="VERB")
    for add in (
        add_init,
        add_check,
        add_search,
        add_resume,
        add_submit,
        add_status,
        add_trials,
        add_front,
        add_report,
        add_export,
        add_merge,
        add_score,
        add_replay,
        add_calibrate,
        add_estimate,
        add_convert,
        add_schema,
        add_completion,
    ):
        add(verbs)
    return parser
