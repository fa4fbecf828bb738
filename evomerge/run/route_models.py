"""Whether the layers of several models can run one behind the other, told from their headers."""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.weights.inspection import facts_of, problems_between
from evomerge.weights.layout import Layout, compare_layouts
from evomerge.weights.reference import short_name


def misfits(layouts: Mapping[str, Layout], *, equally_deep: bool) -> list[str]:
    """Return, per model whose layers cannot run in a route beside the first model's, why, and what would do instead.

    Args:
        layouts: the first is the base, in whose network the layers run.
        equally_deep: whether the models are merged tensor by tensor too.
    """
    base_name, base = next(iter(layouts.items()))
    found: dict[str, str] = {}
    for name, other in list(layouts.items())[1:]:
        reason = _difference(base_name, base, name, other, equally_deep)
        if reason is not None:
            found[name] = reason
    fitting = [short_name(name) for name in layouts if name not in found]
    advice = f"leave it out; these go together: {', '.join(fitting)}"
    return [
        f"route: layers of '{name}' cannot run beside those of '{base_name}': {why}; {advice}"
        for name, why in found.items()
    ]


def _difference(base_name: str, base: Layout, name: str, other: Layout, equally_deep: bool) -> str | None:
    ours, theirs = facts_of(base), facts_of(other)
    for label, here, there in (
        ("architecture", ours.architecture, theirs.architecture),
        ("width of the hidden state", ours.width, theirs.width),
    ):
        if here is not None and there is not None and here != there:
            return f"{label}: {here} and {there}"
    problems = compare_layouts(base, [other], depth=equally_deep, vocabulary=False)
    problems += problems_between({base_name: ours, name: theirs})
    return None if not problems else problems[0] + (f" (and {len(problems) - 1} more)" if problems[1:] else "")
