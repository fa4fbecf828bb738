"""Reads a search file and, where it has mistakes, tells those of its models and tasks along with its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Set

from evomerge.errors import EvomergeError
from evomerge.run.preparation import prepare_tasks, read_layouts
from evomerge.searchfile import SearchFile, load_search_file


def read_search_file(path: str | os.PathLike[str]) -> SearchFile:
    """Return a search file in which nothing is wrong that can be known without loading models or tasks.

    Raises:
        SearchFileError: lists every mistake, also those of models and tasks in the sections that could be read.
    """
    return load_search_file(path, _further_problems)


def _further_problems(search_file: SearchFile, sound: Set[str]) -> list[str]:
    problems: list[str] = []
    # whoever lacks lm-eval, or has a file that defeats it, still sees the mistakes that can be found without it
    with contextlib.suppress(EvomergeError):
        if {"merge", "route"} <= sound:
            read_layouts(search_file.merge, problems, search_file.route)
        if {"objectives", "tasks", "scoring", "seed"} <= sound:
            prepare_tasks(search_file, problems)
    return problems
