"""The reference of search files as Markdown, from the JSON Schema of the models that check them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from evomerge.config._objective_sections import metric_models
from evomerge.config._section_base import Schema, bare, example, form, json_schema
from evomerge.config._sections import search_file_model
from evomerge.space import MARKER_KEYS, MERGE_KEYS


def markdown() -> str:
    """Return one Markdown table per section of a search file, `merge` and markers included."""
    file = json_schema(search_file_model())
    lines = ["### the file", "", *_table(file)]
    lines += ["### `merge`", "", "As in mergekit.", "", *_pairs(MERGE_KEYS)]
    lines += ["### `{search: ...}`", "", "Stands where a number or a name would stand.", "", *_pairs(MARKER_KEYS)]
    metrics = {f"objectives[].{kind}": json_schema(model) for kind, model in metric_models().items()}
    for path, section in [*_sections(file, ""), *metrics.items()]:
        lines += [f"### `{path}`", "", f"As in `{example(section)}`.", "", *_table(section)]
    return "\n".join(lines)


def _sections(section: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yield every section below one but the metrics, with its path, depth first."""
    for key, value in section["properties"].items():
        node, name = bare(value), f"{path}{key}"
        if node.get("type") == "array":
            node, name = node["items"], f"{name}[]"
        if "properties" in node and not path.startswith("objectives"):
            yield name, node
            yield from _sections(node, f"{name}.")


def _table(section: Schema) -> list[str]:
    lines = ["| key | form | default | meaning |", "|---|---|---|---|"]
    for name, node in section["properties"].items():
        default = f"`{node['default']}`" if "default" in node else ""
        default = "required" if name in section.get("required", ()) else default
        lines.append(f"| `{name}` | {_cell(form(node))} | {default} | {_cell(node['description'])} |")
    return [*lines, ""]


def _pairs(keys: Mapping[str, str]) -> list[str]:
    rows = [f"| `{name}` | {_cell(about)} |" for name, about in keys.items()]
    return ["| key | meaning |", "|---|---|", *rows, ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
