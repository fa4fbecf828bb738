"""Definition and provenance of a search: objectives, models, controller, budget, versions, digests."""

from __future__ import annotations

from pathlib import Path

from evomerge._markup import Html, element, joined, table
from evomerge.reports.html._drawing import scrolling
from evomerge.reports.html._findings import Findings
from evomerge.space import short_names

WIDE = ("Models", "Digests")  # tables of long names


def question(findings: Findings) -> Html:
    """Return the definition of the search in one sentence."""
    config = findings.config
    names = short_names(list(config.models.names))
    base = config.merge.get("base_model")
    others = [names[model] for model in config.models.names if model != base]
    method = config.merge.get("merge_method")
    # a searched method is a marker, no text
    methods = f"{method} merges" if isinstance(method, str) else "merges by several methods"
    onto = f" onto {names[base]}" if base in names else ""
    wanted = _listed([objective.name for objective in findings.objectives])
    text = (
        f"A search over {methods} of {_listed(others)}{onto} for {wanted}: {findings.run.space.dimension} "
        f"genes, controller {config.controller.name}."
    )
    return element("p", {"class": "lead"}, text)


def asked(findings: Findings) -> Html:
    """Return objectives with their items, and the search file."""
    config = findings.config
    search, held, stands_in = config.items.search, config.items.holdout, config.items.stands_in
    rows = [
        (
            o.name,
            o.metric if o.kind == "task" else o.kind,
            "higher" if o.goal == "maximize" else "lower",
            f"{o.weight:g}",
            len(search.get(o.task, ())),
            len(held.get(stands_in.get(o.task, o.task), ())),  # held-out items may come from another task
        )
        for o in findings.objectives
    ]
    head = ("objective", "metric", "better is", "weight", "search items", "held-out items")
    shown = table(head, rows, caption="Objectives", numeric=range(3, 6))
    controller = config.controller
    # defaults are in the documentation
    given = ", ".join(f"{key} {value}" for key, value in controller.options.items() if value is not None)
    budget = findings.status["budget"]
    limits = [f"{budget['candidates']} candidates"] if budget.get("candidates") else []
    limits += [f"{budget['hours']:g} hours"] if budget.get("hours") else []
    text = (
        f"Controller {controller.name}{f' ({given})' if given else ''}; "
        f"budget {' and '.join(limits) or 'unlimited'}; "
        f"fitness by {config.estimator}; seed {config.seed}."
    )
    file = config.search_text
    source = (
        element("details", {}, element("summary", {}, "The search file"), _code(file, "Search file")) if file else None
    )
    return joined([scrolling(shown, "Objectives"), element("p", {}, text), source])


def provenance(findings: Findings) -> Html:
    """Return versions, models with their revisions, and digests for checking them."""
    config = findings.config
    names = short_names(list(config.models.names))
    versions = list(config.versions.items())
    models = [(names[m], m, config.models.revisions.get(m, "")) for m in config.models.names]
    tasks = [*config.tasks.versions.items(), *config.measure_versions.items()]
    models_shown = list(
        dict.fromkeys([*([findings.best] if findings.best is not None else []), *(f.number for f in findings.finals)])
    )
    digests = [
        (findings.name(n), findings.candidates[n].recipe.digest, findings.run.data.fingerprint(n)) for n in models_shown
    ]
    run = [
        ("run folder", str(findings.run.folder)),
        ("search file", Path(config.search_path).name),
        ("began", config.created),
        ("last event", findings.moment),
        ("seed", config.seed),
    ]
    tables = [
        table(("what", "value"), run, caption="The run"),
        table(("package", "version"), versions, caption="Versions"),
        table(("model", "as written", "content or commit"), models, caption="Models"),
        table(("task", "version of documents and settings"), tasks, caption="Tasks") if tasks else None,
        table(("model", "recipe digest", "weights fingerprint"), digests, caption="Digests") if digests else None,
    ]
    labels = ("The run", "Versions", "Models", "Tasks", "Digests")
    shown = [(name, t) for name, t in zip(labels, tables, strict=True) if t is not None]
    return element(
        "div",
        {"class": "facts"},
        *(element("div", {"class": "wide" if name in WIDE else None}, scrolling(t, name)) for name, t in shown),
    )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "no models"


def _code(text: str, label: str) -> Html:
    return element("pre", {"tabindex": 0, "role": "region", "aria-label": label}, element("code", {}, text))
