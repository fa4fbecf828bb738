"""The search space: a merge with markers, decoded from points of the unit cube into recipes, and encoded back.

Reads mergekit documents with `{search: ...}` markers, expands them into genes, and reports every mistake at its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.space._expansion import expand
    from evomerge.space._genes import Gene
    from evomerge.space._markers import MARKER_KEYS, MODULES, is_marker, is_number, is_whole, read_marker
    from evomerge.space._mergekit_schema import (
        DTYPES,
        MERGE_KEYS,
        check_form,
        model_places,
        resolve_model,
        short_names,
        strange_parameters,
    )
    from evomerge.space._problems import Place, Problem, located
    from evomerge.space._space import SearchSpace, build_space
    from evomerge.space.routes._request import (
        MERGED,
        PRESETS,
        SCALE_FORMS,
        form_problems,
        named_sources,
        only_lends,
        route_problems,
        sources_of,
    )

__all__ = [
    "DTYPES",
    "MARKER_KEYS",
    "MERGED",
    "MERGE_KEYS",
    "MODULES",
    "PRESETS",
    "SCALE_FORMS",
    "Gene",
    "Place",
    "Problem",
    "SearchSpace",
    "build_space",
    "check_form",
    "expand",
    "form_problems",
    "is_marker",
    "is_number",
    "is_whole",
    "located",
    "model_places",
    "named_sources",
    "only_lends",
    "read_marker",
    "resolve_model",
    "route_problems",
    "short_names",
    "sources_of",
    "strange_parameters",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
