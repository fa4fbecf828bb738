"""The few exception types of evomerge.

Every message answers four questions: which argument, what was expected, what came, what to do. Types for bad
input are also `ValueError`, so a caller can catch either.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Names that an error message lists; of longer lists it gives the number of the others.
_SHOWN = 5


class EvomergeError(Exception):
    """Base of all exceptions that evomerge raises."""


class InputError(EvomergeError, ValueError):
    """What the user wrote or handed over is wrong; the command line ends with exit status 2."""


class SearchFileError(InputError):
    """A search file or recipe has mistakes; `problems` lists all of them, one sentence each."""

    def __init__(self, path: str, problems: Iterable[str]) -> None:
        self.path = str(path)
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{self.path} has {count} problem{'s' if count != 1 else ''}:"
        super().__init__("\n  ".join([head, *self.problems]))

    # Exceptions are pickled when a worker raises them; the default would call __init__ with the message alone.
    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.path, self.problems)


class MergeError(InputError):
    """A merge method was given tensors or parameters that it cannot work with."""


class WeightsError(InputError):
    """A checkpoint is missing, damaged, or does not fit the others."""


class TaskError(InputError):
    """A task, metric or item set does not exist or cannot be used here."""


class RunError(InputError):
    """A run folder is missing, in use, taken, or damaged."""


class ExtraMissing(InputError):
    """An optional package is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"package {package!r} is needed here and is not installed; install it with: pip install 'evomerge[{extra}]'"
        )

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.package, self.extra)


class CandidateError(EvomergeError):
    """This candidate cannot be scored (NaN weights or logits, degenerate output); recorded, never fed as a number."""


class InfrastructureError(EvomergeError):
    """The machine failed, not the candidate (lost worker, out of memory); worth another try elsewhere."""


# CUDA's words, torch's on the CPU, and Ray's for a worker that it ended
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "running low on memory", "memory pressure")


def out_of_memory(error: BaseException | str) -> bool:
    """Return whether an exception, or a message about one, says that the host or a device has no memory left.

    >>> out_of_memory("CUDA error: out of memory"), out_of_memory(MemoryError()), out_of_memory("no such file")
    (True, True, False)
    """
    if isinstance(error, str):
        return any(words in error.lower() for words in _MEMORY)
    if isinstance(error, MemoryError):
        return True
    # torch has no type of its own on the CPU
    return isinstance(error, (RuntimeError, InfrastructureError)) and out_of_memory(str(error))


def near(name: str, known: Iterable[str]) -> str:
    """Return the tail of an unknown-name message: near matches first, then the full list.

    >>> near("tie", ["linear", "ties"])
    'Near: ties. Known: linear, ties.'
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)  # 0.5 still finds a word with its middle missing
    return (f"Near: {', '.join(close)}. " if close else "") + f"Known: {', '.join(names)}."


def listed(names: Iterable[str]) -> str:
    """Return the first few names of a list for a message, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
