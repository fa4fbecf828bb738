"""The pages of the site that are generated: verbs, search file, frames, methods, Python, gallery, the repository's own.

mkdocs calls the two hooks at the end; `generated` is also what the tests read. Nothing generated is committed, so
nothing generated can be old. Links out of docs/ work in the repository and on the site: Markdown files of the
repository get pages of their own, other files become their path.
"""

from __future__ import annotations

import argparse
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
SPACES = ROOT / "search_spaces"
GALLERY = ROOT / "benchmarks" / "gallery" / "results.md"
# Documented from their docstrings, in this order.
PUBLIC = (
    ("evomerge.commands", ("search", "resume")),
    ("evomerge.commands", ("check", "CheckReport")),
    ("evomerge.runs", ("open_run", "Run")),
    ("evomerge.commands", ("score", "replay", "merge_recipe")),
    ("evomerge.recipe", ("Recipe",)),
    ("evomerge.controllers", ("SearchProblem", "Controller", "WarmStartPoint")),
    ("evomerge.scoring", ("Asked",)),
    ("evomerge.merge", ("Method", "Parameter")),
    ("evomerge.errors", ()),
)
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def generated() -> dict[str, str]:
    """Return every generated page: its path below docs/, and its Markdown."""
    from evomerge.config._reference import markdown as search_file
    from evomerge.runs import markdown as frames

    schema = "Editors take the [JSON Schema](../searchfile.schema.json), which `evomerge schema` prints."
    return {
        "reference/cli.md": _cli(),
        "reference/search_file.md": f"# Search file\n\n{schema}\n\n{search_file()}",
        "reference/frames.md": f"# Frames\n\nThe columns of all frames of `run` and `run.tables`.\n\n{frames()}",
        "reference/methods.md": _methods(),
        "reference/python.md": _python(),
        "gallery.md": _gallery(),
        **{f"repository/{name}": (ROOT / name).read_text(encoding="utf-8") for name in _repository()},
    }


def _cli() -> str:
    from evomerge.cli import build_parser

    parser = build_parser()
    (verbs,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    lines = ["# Verbs", "", "Output of `evomerge VERB --help`.", ""]
    for name, verb in verbs.choices.items():
        verb.formatter_class = _Wide
        lines += [f"## {name}", "", "```text", verb.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


class _Wide(argparse.RawDescriptionHelpFormatter):
    """The same width wherever the site is built."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=110)


def _methods() -> str:
    from evomerge.merge import CATALOGUE

    lines = [
        "# Merge methods",
        "",
        "| method | base | parameters | meaning | source | mergekit |",
        "|---|---|---|---|---|---|",
    ]
    for name, method in CATALOGUE.items():
        parameters = ", ".join(f"`{parameter.name}`" for parameter in method.parameters) or "none"
        same = "yes" if method.in_mergekit else ""
        lines.append(f"| `{name}` | {method.base} | {parameters} | {method.summary} | {method.paper} | {same} |")
    return "\n".join(lines) + "\n"


def _python() -> str:
    lines = ["# Python", "", "`import evomerge` imports nothing else: each name is loaded on first use.", ""]
    for module, names in PUBLIC:
        lines += [f"::: {module}.{name}\n" for name in names] or [f"::: {module}\n"]
        if "search" in names:
            lines += _options()
    return "\n".join(lines)


def _options() -> list[str]:
    """Return a table of the keyword arguments that `search` and `resume` share with the command line."""
    from dataclasses import fields

    from evomerge.commands import ResumeOptions, SearchOptions

    resumed = {part.name for part in fields(ResumeOptions)}
    lines = ["", "Keyword arguments of `search` and `resume`, as on the command line:", ""]
    lines += ["| keyword | default | meaning | in `resume` |", "|---|---|---|---|"]
    for part in fields(SearchOptions):
        about = part.metadata.get("help", "receives the progress; see `evomerge.commands.Reporter`")
        lines.append(f"| `{part.name}` | `{part.default}` | {about} | {'yes' if part.name in resumed else ''} |")
    return [*lines, ""]


def _gallery() -> str:
    lines = [
        "# Gallery of search spaces",
        "",
        "Files to start from, all on the shipped experts. `python -m benchmarks.gallery.run` measures cost and gain of",
        "each with few candidates: enough to compare costs, far too few to rank search spaces.",
        "",
    ]
    if GALLERY.exists():
        lines += [GALLERY.read_text(encoding="utf-8").partition("\n")[2].strip(), ""]
    for path in sorted(SPACES.glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        header = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
        about = [line for line in header if line and not re.match(r"(Check it|Try it|Look|Export):", line)]
        lines += [f"## {path.stem}", "", *about, "", "```yaml", text.rstrip(), "```", ""]
    return "\n".join(lines)


def _repository() -> list[str]:
    """Return the Markdown files of the repository that are no part of docs/, as paths below its root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("benchmarks/**/*.md"), ROOT / "examples" / "README.md"]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def relinked(markdown: str, page: str) -> str:
    """Return a page whose links to files of the repository lead somewhere on the site.

    Args:
        markdown: the page's text.
        page: its path below docs/, '/' between its parts; pages of the repository begin with 'repository/'.
    """
    of_repository = page.startswith("repository/")
    home = posixpath.dirname(page.removeprefix("repository/") if of_repository else f"docs/{page}")
    pages = set(_repository())

    def link(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = posixpath.normpath(posixpath.join(home, target))
        if path.startswith("docs/"):
            where = path.removeprefix("docs/")
        elif path in pages:
            where = f"repository/{path}"
        elif (ROOT / path).exists():
            return f"] (`{path}`)"
        else:
            return match[0]  # mkdocs names what leads nowhere
        return f"]({posixpath.relpath(where, posixpath.dirname(page) or '.')}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ into links on the site."""
    return relinked(markdown, page.file.src_uri)
