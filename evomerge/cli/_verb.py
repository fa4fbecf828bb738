"""What every verb is made of: its parser, and the exit statuses."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

DONE, WRONG_INPUT, NO_CANDIDATE, INTERRUPTED = 0, 2, 3, 130


def verb(
    verbs: Any, name: str, summary: str, examples: str, call: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Return the parser of a verb, with its examples below its options."""
    text = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(call=call)
    return parser


def folder_verb(verbs: Any, name: str, summary: str, examples: str, call: Any) -> argparse.ArgumentParser:
    """Return the parser of a verb that looks at a run folder."""
    parser = verb(verbs, name, summary, examples, call)
    parser.add_argument("folder", metavar="DIR", help="run folder")
    return parser
