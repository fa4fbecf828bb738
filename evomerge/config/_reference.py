"""The reference of search files as Markdown, from the tables that checking walks."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.config._grammar import Anything, Either, Flag, Form, Free, Key, Many, Moment, Number, Section, Text
from evomerge.config._objective_sections import metric_forms
from evomerge.config._sections import search_file_section
from evomerge.space import MARKER_KEYS, MERGE_KEYS


def markdown() -> str:
    """Return one Markdown table per section of a search file, `merge` and markers included."""
    file = search_file_section()
    lines = ["### the file", "", *_table(file.keys)]
    lines += ["### `merge`", "", "As in mergekit.", "", *_pairs(MERGE_KEYS)]
    lines += ["### `{search: ...}`", "", "Stands where a number or a name would stand.", "", *_pairs(MARKER_KEYS)]
    for path, section in _sections(file, ""):
        lines += [f"### `{path}`", "", f"As in `{section.example}`.", "", *_table(section.keys)]
    for kind, form in metric_forms().items():
        lines += [f"### `objectives[].{kind}`", "", f"As in `{form.example}`.", "", *_table(form.keys)]
    return "\n".join(lines)


def words(form: Form) -> str:
    """Return a form in a few words, as in 'number of at least 0'."""
    if isinstance(form, Text):
        return "one of " + ", ".join(f"`{word}`" for word in form.words) if form.words else form.what
    if isinstance(form, Flag):
        return "true or false"
    if isinstance(form, Many):
        return f"list of {words(form.entry)}"
    if isinstance(form, Either):
        return form.what
    if isinstance(form, Anything):
        return "anything"
    if isinstance(form, Moment):
        return "date and time with offset"
    return str(form) if isinstance(form, Number) else "mapping"


def _sections(section: Section, path: str) -> Iterator[tuple[str, Section]]:
    """Yield every section below one, with its path, depth first."""
    for key in section.keys:
        form, name = key.form, f"{path}{key.name}"
        if isinstance(form, Many):
            form, name = form.entry, f"{name}[]"
        if isinstance(form, Section):
            yield name, form
            yield from _sections(form, f"{name}.")


def _table(keys: tuple[Key, ...]) -> list[str]:
    rows = [(key.name, words(key.form), _default(key), key.about) for key in keys]
    lines = ["| key | form | default | meaning |", "|---|---|---|---|"]
    return [
        *lines,
        *(f"| `{name}` | {_cell(form)} | {default} | {_cell(about)} |" for name, form, default, about in rows),
        "",
    ]


def _pairs(keys: dict[str, str]) -> list[str]:
    rows = [f"| `{name}` | {_cell(about)} |" for name, about in keys.items()]
    return ["| key | meaning |", "|---|---|", *rows, ""]


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if key.default is None or (isinstance(key.form, Free) and not key.default):
        return ""
    return f"`{key.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
