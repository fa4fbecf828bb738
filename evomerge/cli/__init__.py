"""The command line: one file per group of verbs, one public call per verb.

Messages go to stderr; results and `--json` go to stdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.cli._main import build_parser, main

__all__ = [
    "build_parser",
    "main",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
