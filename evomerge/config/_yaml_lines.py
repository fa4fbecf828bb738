"""YAML read together with the line of every key and entry, so that each mistake can be shown where it stands."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import SearchFileError
from evomerge.space import Place, Problem

# YAML 1.1 wants a dot and a sign in 1.0e-3; people write 1e-3, and mergekit takes it for the number that they mean
_SCIENTIFIC = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_MOST_NODES = 30_000  # anchors can describe exponentially large documents in a few lines
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class YamlDocument:
    """A YAML document as plain data, with the line of every place, and the mistakes of form that it holds."""

    value: Any
    lines: Mapping[Place, int] = field(default_factory=dict)  # counted from 1
    problems: tuple[Problem, ...] = ()


def read_text(name: str, hint: str = "") -> str:
    """Return the text of a file that a user named; a byte order mark is dropped.

    Args:
        name: of the file.
        hint: what the message about a missing file ends with.

    Raises:
        SearchFileError: it is missing, no text, or cannot be read.
    """
    try:
        return Path(name).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SearchFileError(name, [f"no such file: {os.path.abspath(name)}{hint}"]) from None
    except UnicodeDecodeError as error:
        raise SearchFileError(name, [f"not a text file: byte {error.start} is not UTF-8"]) from None
    except OSError as error:
        raise SearchFileError(name, [f"cannot be read: {error.strerror or error}"]) from None


def read_document(text: str) -> YamlDocument:
    """Return the plain data of a YAML text; mistakes are collected, never raised.

    Keys are always text. Anchors and merge keys (`<<`) are resolved; a value that came through an anchor has the line
    where it was written. A date is left as text. A key given twice is a problem, and the first one counts.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = None if mark is None else mark.line + 1
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        return YamlDocument(None, problems=(Problem((), f"not valid YAML: {reason}", line),))
    except yaml.reader.ReaderError as error:
        return YamlDocument(None, problems=(Problem((), f"not a text file: {error.reason}"),))
    except RecursionError:
        return YamlDocument(None, problems=(Problem((), "not valid YAML: nested too deeply"),))
    if node is None:
        return YamlDocument(None)
    reader = _Reader()
    value = reader.read(node, ())
    return YamlDocument(value, reader.lines, tuple(reader.problems))


class _Reader:
    """Walks the nodes of one document and gathers lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()  # nodes being read, to notice an anchor inside itself
        self._count = 0

    def read(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        self._count += 1
        if id(node) in self._open or self._count > _MOST_NODES:
            what = "an anchor contains itself" if id(node) in self._open else "the document is too large"
            if not any(problem.message.startswith(what) for problem in self.problems):
                self.problems.append(Problem(place, f"{what}; write it without anchors"))
            return None
        if not isinstance(node, yaml.ScalarNode) and node.tag not in (f"{_TAG}map", f"{_TAG}seq"):
            return self._refuse_tag(node, place)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self.read(entry, (*place, index)) for index, entry in enumerate(node.value)]
            return self._scalar(node, place)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.MappingNode] = []
        for key_node, value_node in node.value:
            if key_node.tag == f"{_TAG}merge":
                merged += self._merged(value_node, place)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(place, "a key must be a name", key_node.start_mark.line + 1))
                continue
            key, line = str(key_node.value), key_node.start_mark.line + 1
            inner = (*place, key)
            if key in result:
                first = self.lines[inner]
                self.problems.append(Problem(inner, f"given twice, first in line {first}; keep one", line))
                continue
            self.lines[inner] = line
            result[key] = self.read(value_node, inner)
        for source in merged:  # what the mapping says itself wins, then the earlier of several merged ones
            for key, value in self._mapping(source, ("<<", *place)).items():
                if key not in result:
                    self._adopt_lines(("<<", *place, key), (*place, key))
                    result[key] = value
        return result

    def _refuse_tag(self, node: yaml.Node, place: Place) -> None:
        self.problems.append(Problem(place, f"tag {node.tag!r} is not supported; write a plain value"))

    def _merged(self, node: yaml.Node, place: Place) -> list[yaml.MappingNode]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        good = [entry for entry in nodes if isinstance(entry, yaml.MappingNode) and id(entry) not in self._open]
        if len(good) < len(nodes):
            self.problems.append(Problem(place, "<< must name other mappings, as in `<<: *anchor`"))
        return good

    def _adopt_lines(self, old: Place, new: Place) -> None:
        for place in [place for place in self.lines if place[: len(old)] == old]:
            inner = (*new, *place[len(old) :])
            self.lines[inner] = self.lines[place]

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text = str(node.value)
        if node.tag == f"{_TAG}str" and node.style is None and _SCIENTIFIC.fullmatch(text):
            return float(text)
        if node.tag in (f"{_TAG}str", f"{_TAG}timestamp"):
            return text
        if node.tag not in {f"{_TAG}{name}" for name in ("null", "bool", "int", "float")}:
            return self._refuse_tag(node, place)
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except ValueError:
            self.problems.append(Problem(place, f"{text!r} is not of the type {node.tag.removeprefix(_TAG)}"))
            return None
