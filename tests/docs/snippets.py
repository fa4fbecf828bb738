"""The fenced snippets of a page, and what it takes to run them in order as a reader would."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.cli import build_parser, main
from evomerge.config import load_search_file

# Why a snippet is not run: what follows `<!-- not run:` before its fence.
REASONS = {
    "hub": "needs a model hub",
    "cluster": "needs a cluster",
    "input": "needs an input of the reader's own",
    "shell": "changes the reader's shell or installs packages",
    "budget": "needs more candidates than the tests evaluate",
}
MOST = 3  # candidates of a search in the tests, in place of what the page says
_FENCE = re.compile(r"(?:^<!-- not run: (?P<reason>[\w-]+) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
_FILE = re.compile(r"# ([\w./-]+\.ya?ml)$")


@dataclass(frozen=True)
class Snippet:
    """One fenced block of a page."""

    kind: str  # bash, python, yaml, text
    text: str
    line: int
    reason: str = ""  # why it is not run; '' where it is


def snippets(page: Path) -> list[Snippet]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(m["kind"], m["text"], text.count("\n", 0, m.start("text")) + 1, m["reason"] or "")
        for m in _FENCE.finditer(text)
    ]


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every evomerge command in a text: a shell block, indented examples, a file's header.

    Comments, and what stands behind a pipe or a redirection, are left out; lines that end in a backslash are joined.
    """
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        found = re.match(r"(?:#\s*)?(?:[\w ]+:\s+)?\s*(evomerge \S.*)$", line.strip())
        if not found or "VERB" in line or "..." in line:
            continue
        # a remark stands behind three blanks or more where there is no sign for it
        words = shlex.split(
            re.split(r" #|\s{3,}(?=\S+ )", found[1])[0] if "#" not in found[1] else found[1], comments=True
        )
        cut = [index for index, word in enumerate(words) if word in ("|", ">", ">>")]
        yield words[1 : cut[0] if cut else None]


def run(page: Path, workspace: Path) -> list[str]:
    """Run a page's snippets in order in `workspace`, the working directory; return what was run, a line each."""
    names: dict[str, Any] = {"__name__": "__page__"}
    done: list[str] = []
    for snippet in snippets(page):
        if snippet.reason:
            continue
        place = f"{page.name}:{snippet.line}"
        if snippet.kind == "bash":
            for line in re.sub(r"\\\n\s*", " ", snippet.text).splitlines():
                if line.strip() and not line.strip().startswith("#"):
                    _shell(line, place)
                    done.append(f"{place} {line.strip()}")
        elif snippet.kind == "python":
            exec(compile(snippet.text, place, "exec", dont_inherit=True), names)  # a page has no `annotations` import
            done.append(f"{place} python, {len(snippet.text.splitlines())} lines")
        elif snippet.kind == "yaml":
            done.append(f"{place} yaml{_yaml(snippet.text, workspace)}")
    return done


def _shell(line: str, place: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] != "evomerge":
        subprocess.run(["bash", "-ec", line], check=True, capture_output=True)
        return
    target = words.index(">") if ">" in words else len(words)
    arguments = _fewer(words[1:target])
    if target < len(words):
        with open(words[target + 1], "w", encoding="utf-8") as file, redirect_stdout(file):
            status = main(arguments)
    else:
        status = main(arguments)
    assert status == 0, f"{place}: `{line}` ended with status {status}"


def _fewer(arguments: list[str]) -> list[str]:
    """Return a command that searches for `MOST` candidates where it would search for more; others as they are."""
    if arguments[0] not in ("search", "resume"):
        return arguments
    most = MOST + (arguments[0] == "resume")  # going on is for more than there was
    if "--candidates" in arguments:
        at = arguments.index("--candidates") + 1
        return [*arguments[:at], str(min(int(arguments[at]), most)), *arguments[at + 1 :]]
    return [*arguments, "--candidates", str(most)]


def _yaml(text: str, workspace: Path) -> str:
    """Write a block that begins with a file's name; load search files; everything has to be YAML with known keys."""
    value = yaml.safe_load(text)
    name = _FILE.match(text.splitlines()[0])
    if name is None:
        from evomerge.config import search_file_schema

        known = search_file_schema()["properties"]
        assert set(value) <= set(known), f"no key of a search file: {set(value) - set(known)}"
        return ", a fragment"
    path = workspace / name[1]
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if "merge" in value and "blended" not in text:  # that one lies there only after the commands below it
        load_search_file(path)
    return f" {name[1]}"


def parses(arguments: list[str]) -> bool:
    """Return whether the command line takes these words; where not, argparse has said why on stderr."""
    try:
        build_parser().parse_args(arguments)
    except SystemExit as ended:
        return ended.code == 0
    return True
