"""Which columns of a frame the documentation leaves out."""

from __future__ import annotations

from evomerge.runs._columns import FRAMES


def undocumented(frame: str, columns: list[str]) -> list[str]:
    """Return the columns of an actual frame that the documentation of `frame` does not cover."""
    known = [column.name for column in FRAMES[frame]]
    exact = {name for name in known if "<" not in name}
    prefixes = tuple(name.partition("<")[0] for name in known if "<" in name)
    return [name for name in columns if name not in exact and not (prefixes and name.startswith(prefixes))]
