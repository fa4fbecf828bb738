"""What a search file may hold: every section and key, its form, its meaning and its default, as one table.

The `merge` section's own keys stand in `space.form.MERGE_KEYS`, and those of a marker in `space.markers.MARKER_KEYS`.
"""

from __future__ import annotations

from evomerge.config._grammar import Anything, Either, Flag, Form, Free, Key, Many, Moment, Number, Section, Text
from evomerge.config._objective_sections import objective_section
from evomerge.config._option_forms import option_form
from evomerge.controllers import CONTROLLERS
from evomerge.irt import FEW_ITEM_METHODS
from evomerge.option_fields import options_of
from evomerge.space import PRESETS, SCALE_FORMS

ESTIMATORS = ("mean", *FEW_ITEM_METHODS)

_NAMES = Many(Text(what="task"), "[add, sort]")
SANITY_CHECKS = Section(
    (
        Key("norm_ratio", Number(1), "most that a tensor's norm may be, in multiples of the largest parent's", 10.0),
        Key("degenerate", Number(0, 1), "most share of the probes that may be empty or repetitive", 0.5),
        Key("probes", Number(1, integer=True), "first items of each task with written answers to look at", 8),
        Key("repetition", Number(0, 1), "share of repeated 4-grams above which an answer is repetitive", 0.8),
    ),
    "{norm_ratio: 10, degenerate: 0.5}",
)
RACING = Section(
    (
        Key(
            "min_items", Number(2, integer=True), "items per task that every candidate answers; rounds double them", 20
        ),
        Key("alpha", Number(0, 0.5, open_low=True), "most chance to stop a candidate that would not have lost", 0.05),
        Key(
            "against",
            Text(("best", "front"), what="reference"),
            "what it must not lose to; default: what suits the controller",
        ),
    ),
    "{min_items: 20, alpha: 0.05}",
)
SCORING = Section(
    (
        Key(
            "items",
            Number(1, integer=True),
            "documents per task, pinned by id; with an estimator: anchor items of every candidate; default: all",
        ),
        Key(
            "holdout",
            Either(
                number=Number(0, 1, open_low=True, open_high=True),
                many=_NAMES,
                mapping=Free("{add: add_final}"),
                what="a share between 0 and 1, a list of tasks, or a mapping from task to task",
            ),
            "share of each task's documents kept for the final report; or other tasks",
            default=0.5,
        ),
        Key(
            "estimator",
            Text(ESTIMATORS, what="estimator"),
            "from responses to scores: mean asks `items` alone; the others estimate the score over all search items",
            default="mean",
        ),
        Key(
            "bank",
            Either(
                text=Text(what="file"), mapping=Free("{add: add.json}"), what="a file, or a mapping from task to file"
            ),
            "item bank, or task -> item bank, that evomerge calibrate wrote; default: the run's own full answers",
        ),
        Key(
            "pool",
            Number(1, integer=True),
            "with an estimator: search items per task that the score is about, and parents answer; default: all",
        ),
        Key(
            "anchors",
            Text(("pinned", "resample"), what="choice"),
            "with an estimator: ask all candidates the same items, or every generation others drawn at random",
            default="pinned",
        ),
        Key(
            "full_evaluation_every",
            Number(0, integer=True),
            "with an estimator: every so many candidates one answers all items",
        ),
        Key("lm_eval", Free("{num_fewshot: 0}"), "passed through to lm-eval", default={}),
        Key("cache", Text(what="folder"), "keeps answers across runs, so that a model is asked once; default: none"),
        Key(
            "sanity_checks",
            SANITY_CHECKS,
            "what a candidate must pass before it is scored; {} for the defaults; default: nothing",
        ),
        Key("racing", RACING, "few items first, more while it is worth it; {} for the defaults; default: all items"),
        Key("batch_size", Number(1, integer=True), "sequences per forward pass; default: from the memory at hand"),
    ),
    "{items: 100}",
)
# Keys of `controller` beside the options of the controller that is named.
COMMON = (
    Key("warm_start", Text(what="run folder or recipe"), "begin from another run's results, or from a recipe"),
    Key("asynchronous", Flag(), "tell results as they arrive and propose before a generation ends; default: false"),
    Key("staleness", Number(1, integer=True), "asynchronous: most updates between a proposal and its result"),
)


def controller_section(name: str | None = None) -> Section:
    """Return the section `controller`, with the options in the row of the controller `name`; None: of every row."""
    rows = [row for row in CONTROLLERS.values() if name is None or row.name == name]
    owners: dict[str, dict[str, list[str]]] = {}  # option -> meaning -> controllers
    forms: dict[str, Form] = {}
    for row in rows:
        for option in options_of(row.options).values():
            owners.setdefault(option.name, {}).setdefault(option.help, []).append(row.name)
            form = option_form(option)
            same = type(forms.setdefault(option.name, form)) is type(form)
            forms[option.name] = forms[option.name] if same else Anything()
    keys = [
        Key(key, forms[key], "; ".join(f"{', '.join(names)}: {help}" for help, names in meanings.items()))
        for key, meanings in owners.items()
    ]
    named = Key("name", Text(tuple(CONTROLLERS), what="controller"), "who proposes candidates", default="cma-es")
    return Section((named, *keys, *COMMON), "{name: cma-es, population: 12}")


BUDGET = Section(
    (
        Key("candidates", Number(1, integer=True), "most candidates to evaluate"),
        Key("hours", Number(0, open_low=True), "most hours of active time"),
        Key("gpu_hours", Number(0, open_low=True), "most GPU-hours, busy or not; a worker without a GPU counts as one"),
        Key("deadline", Moment(), "when everything is over, as in 2030-06-01T18:00:00+02:00"),
        Key("cost", Number(0, open_low=True), "most money, at `price` per GPU-hour"),
        Key("price", Number(0, open_low=True), "of one GPU-hour, in the currency of `cost`"),
    ),
    "{candidates: 300, hours: 1}",
)
ROUTE = Section(
    (
        Key("preset", Text(tuple(PRESETS), what="preset"), "which routes there are; default: indicators"),
        Key(
            "sources",
            Many(Text(what="source"), "[merged, math]"),
            "merged, base, or models of the merge section; default: its models, with merged where there is one",
        ),
        Key("repeats", Number(1, integer=True), "indicators: how often each source's stack appears; default: 1"),
        Key("min_layers", Number(1, integer=True), "fewest layers of a candidate; default: 1"),
        Key("max_layers", Number(1, integer=True), "most layers of a candidate; default: what the preset gives"),
        Key("keep_first", Number(0, integer=True), "layers of the first source that begin every route; default: 0"),
        Key("keep_last", Number(0, integer=True), "layers of the first source that end every route; default: 0"),
        Key("times", Number(2, integer=True), "repeat_block: most runs of the block; default: 3"),
        Key("scales", Many(Number(), "[0.5, 1.5]"), "scale of the hidden state on entering a layer; default: none"),
        Key("scale_by", Text(SCALE_FORMS, what="form of scales"), "what has a scale of its own; default: slot or jump"),
        Key("hidden", Number(1, integer=True), "scale_by network: units; default: 4"),
        Key("start", Text(what="source"), "the source whose own stack is the start; default: the first"),
    ),
    "{sources: [merged]}",
)
TASKS = Section((Key("include", Many(Text(what="folder"), "[tasks]"), "folders of task YAML"),), "{include: [tasks]}")
_MERGE = Free("{merge_method: linear, models: [...]}")


def search_file_section(controller: str | None = None) -> Section:
    """Return the form of a whole search file whose `controller` section names this one; None: any."""
    return Section(
        (
            Key("merge", _MERGE, "a mergekit document with search markers", required=True),
            Key(
                "objectives",
                Many(objective_section(), "[{task: add}]"),
                "what is good: [{task: ...}, ...]",
                required=True,
            ),
            Key(
                "constraints",
                Many(Text(what="constraint"), '["safety >= base - 1 point"]'),
                "what the best and the front must meet: objective >= or <= a number, base, best or parent, +- a number",
            ),
            Key("tasks", TASKS, "where lm-eval finds tasks"),
            Key("scoring", SCORING, "how candidates are scored"),
            Key("controller", controller_section(controller), "who proposes candidates"),
            Key(
                "budget",
                BUDGET,
                "when to stop: candidates, hours, gpu_hours, deadline, or cost with price",
                required=True,
            ),
            Key("seed", Number(0, integer=True), "of everything random", default=0),
            Key("route", ROUTE, "the layers' order"),
        ),
        "{merge: ..., objectives: ..., budget: ...}",
    )
