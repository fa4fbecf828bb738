"""Collects what is wrong with a search file, its models and its tasks, to report all of it at once."""

from __future__ import annotations

from evomerge.config import SearchFile
from evomerge.errors import SearchFileError
from evomerge.space import Place, Problem, located


class Problems:
    """What is wrong with one search; false while nothing is."""

    def __init__(self, search_file: SearchFile) -> None:
        self._file = search_file
        self.texts: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.texts)

    def add(self, *texts: str) -> None:
        """Add problems that have no line in the search file."""
        self.texts += texts

    def add_at(self, place: Place, text: str) -> None:
        """Add a problem with its line and place in the search file."""
        self.texts += located([Problem(place, text)], self._file.lines)

    def refuse(self) -> None:
        """Raise SearchFileError with all problems, if there are any."""
        if self.texts:
            raise SearchFileError(self._file.path, self.texts)
