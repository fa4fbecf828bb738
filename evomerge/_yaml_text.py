"""YAML in hand-written style: short lists, and on request short mappings, on one line; no anchors."""

from __future__ import annotations

from typing import Any

import yaml


def yaml_text(document: Any, heading: str = "", *, flow_mappings: bool = False, width: int = 120) -> str:
    """Return the text of a YAML file.

    Args:
        document: plain data; keys stay in their order.
        heading: put above it as comment lines.
        flow_mappings: also write mappings of plain values, and `search` markers, on one line.
        width: characters per line.

    >>> print(yaml_text({"models": [{"model": "math", "weight": [0.5, 1.0]}]}, "TIES"), end="")
    # TIES
    models:
    - model: math
      weight: [0.5, 1.0]
    """
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    dumper = _FlowMappings if flow_mappings else _FlowLists
    return comment + yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=width)


class _FlowLists(yaml.SafeDumper):
    """Writes lists of plain values on one line and never writes anchors."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        """Return the node of a list."""
        return super().represent_sequence(tag, sequence, flow_style=not any(_depth(value) for value in sequence))

    def ignore_aliases(self, data: Any) -> bool:
        """Say that every value is written where it stands."""
        return True


class _FlowMappings(_FlowLists):
    """Writes mappings of plain values and of lists without depth on one line, too."""

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        """Return the node of a mapping."""
        flat = all(not _depth(value) or (_depth(value) == 1 and isinstance(value, list)) for value in mapping.values())
        return super().represent_mapping(tag, mapping, flow_style=flat or "search" in mapping)


def _depth(value: Any) -> int:
    """Return how many lists and mappings are nested in a value, itself included."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(_depth, children), default=0)
