"""The page: its shell, its style and its script, in one file that needs neither server nor network."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge._markup import Html, element, joined
from evomerge.errors import InputError
from evomerge.reports.html._explorer import explorer
from evomerge.reports.html._findings import Findings, findings_of
from evomerge.reports.html._section_genes import genes
from evomerge.reports.html._section_headline import finals, headline
from evomerge.reports.html._section_items import items
from evomerge.reports.html._section_progress import failures, progress, utilisation
from evomerge.reports.html._section_provenance import asked, provenance, question

if TYPE_CHECKING:
    from evomerge.runs import Run

FILE_NAME = "report.html"


def write_report(run: Run, to: str | Path | None = None) -> Path:
    """Write the report of `run` and return where.

    Args:
        run: finished, interrupted or running.
        to: file; None: `report.html` in the run folder. A report that is there is replaced, at once or not at all.

    Raises:
        InputError: the folder does not exist or cannot be written, or `to` is a folder.

    >>> from evomerge import open_run, write_report
    >>> write_report(open_run("runs/quickstart"), "report.html").name
    'report.html'
    """
    target = Path(to) if to is not None else run.folder / FILE_NAME
    if target.is_dir():
        raise InputError(f"report {str(target)!r} is a folder; name a file, such as {str(target / FILE_NAME)!r}")
    if not target.resolve().parent.is_dir():
        raise InputError(
            f"report {str(target)!r}: the folder {target.resolve().parent} does not exist; create it first"
        )
    partial = target.with_name(f"{target.name}.partial")  # same folder: os.replace is atomic within one file system
    try:
        partial.write_text(report_html(run), encoding="utf-8")
        os.replace(partial, target)  # a reader sees the old report or the new one, never half of it
    except OSError as error:
        raise InputError(f"report {str(target)!r} cannot be written: {error.strerror}") from error
    return target


def report_html(run: Run) -> str:
    """Return the report as a complete HTML document; it tells the run's state at its last event.

    Args:
        run: finished, interrupted or running.
    """
    findings = findings_of(run)  # read once: all sections show the same moment
    name = run.folder.resolve().name
    style, script = _asset("page.css"), _asset("page.js")
    head = element(
        "head",
        {},
        element("meta", {"charset": "utf-8"}),
        # before style and script, which it governs
        element("meta", {"http-equiv": "Content-Security-Policy", "content": _policy(script)}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", {}, f"{name} · evomerge report"),
        element("style", {}, Html(style)),
    )
    body = element(
        "body", {}, _header(findings, name), _main(findings), _footer(findings), element("script", {}, Html(script))
    )
    return f"<!DOCTYPE html>\n{element('html', {'lang': 'en'}, head, body)}\n"


def _header(findings: Findings, name: str) -> Html:
    links = [element("li", {}, element("a", {"href": f"#{anchor}"}, title)) for anchor, title, _ in _SECTIONS]
    toggle = {"type": "button", "id": "theme", "class": "script-only", "aria-label": "Colours: system setting"}
    return joined(
        [
            element("a", {"href": "#main", "class": "skip"}, "Skip to content"),
            element(
                "header",
                {},
                element(
                    "div",
                    {"class": "top"},
                    element("p", {"class": "kind"}, "evomerge report"),
                    element("button", toggle, "◐"),
                ),
                element("h1", {}, name),
                question(findings),
                element("nav", {"aria-label": "Sections"}, element("ul", {}, *links)),
            ),
        ]
    )


def _main(findings: Findings) -> Html:
    parts = [element("section", {"id": "verdict", "aria-label": "Result"}, headline(findings))]
    for anchor, title, content in _SECTIONS:
        heading = element("h2", {"id": f"{anchor}-title"}, title)
        parts.append(
            # anchors are linked from outside: they stay
            element("section", {"id": anchor, "aria-labelledby": f"{anchor}-title"}, heading, content(findings))
        )
    return element("main", {"id": "main", "tabindex": -1}, *parts)  # -1: the skip link can move the focus here


def _footer(findings: Findings) -> Html:
    text = (
        f"Written by evomerge from {findings.run.folder}, as of {findings.moment}. One file without external resources."
    )
    return element("footer", {}, element("p", {}, text))


_SECTIONS = (
    ("front", "The front", explorer),
    ("finalists", "Finalists on held-out items", finals),
    ("progress", "Progress", progress),
    ("genes", "Gene importance", genes),
    ("items", "Answers item by item", items),
    ("failures", "Failures", failures),
    ("workers", "Utilisation", utilisation),
    ("asked", "Search definition", asked),
    ("provenance", "Provenance", provenance),
)


def _asset(name: str) -> str:
    return resources.files("evomerge.reports.html").joinpath(name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Return what the browser may do with the page: run this one script, load nothing from anywhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
