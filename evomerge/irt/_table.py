"""Response table: answers of models to items."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.errors import InputError, listed, near
from evomerge.irt._curves import Array, IntArray


def item_id(text: str) -> str:
    """Return the id of an item: 16 hex digits of the SHA-256 of its text, whitespace normalised.

    >>> item_id("What is  2 + 2?") == item_id("What is 2 + 2?")
    True
    """
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ResponseTable:
    """Answers of models to items; rows and columns are identified by name, never by position.

    Raises:
        InputError: on construction, when shapes disagree, a name repeats, or an answer is outside [0, 1].
    """

    responses: Array  # (models, items): in [0, 1], nan where missing
    models: tuple[str, ...]
    items: tuple[str, ...]

    def __post_init__(self) -> None:
        values = np.asarray(self.responses, dtype=np.float64)
        object.__setattr__(self, "responses", values)  # the dataclass is frozen; here it is still being built
        object.__setattr__(self, "models", tuple(str(m) for m in self.models))
        object.__setattr__(self, "items", tuple(str(i) for i in self.items))
        if values.shape != (len(self.models), len(self.items)):
            raise InputError(
                f"responses must be (models, items) = ({len(self.models)}, {len(self.items)}), got {values.shape}; "
                "give one name per row and one id per column"
            )
        if not len(self.models) or not len(self.items):
            raise InputError(f"a response table needs at least one model and one item, got {values.shape}")
        for kind, names in (("model", self.models), ("item", self.items)):
            repeated = sorted({n for n, k in zip(*np.unique(names, return_counts=True), strict=True) if k > 1})
            if repeated:
                raise InputError(f"{kind} names must be unique; these repeat: {listed(repeated)}")
        # stated as 'not inside', so that infinities count as bad too
        bad = ~np.isnan(values) & ~((values >= 0.0) & (values <= 1.0))
        if bad.any():
            i, j = np.argwhere(bad)[0]
            others = f", and {int(bad.sum()) - 1} more are outside" if bad.sum() > 1 else ""
            raise InputError(
                f"responses must be in [0, 1] or missing; model {self.models[i]!r}, item {self.items[j]!r} is "
                f"{values[i, j]:g}{others}. Divide percentages by 100; -1 is missing only in .npz"
            )

    @property
    def alike(self) -> bool:
        """Whether several models gave identical answers to every item, so that no item discriminates."""
        seen = ~np.isnan(self.responses)
        # (items,); -1 and 2 never decide a maximum or minimum over answers in [0, 1]
        spread = np.where(seen, self.responses, -1.0).max(axis=0) - np.where(seen, self.responses, 2.0).min(axis=0)
        return bool((spread <= 0.0).all() and (seen.sum(axis=0) > 1).any())

    @property
    def graded(self) -> bool:
        """Whether any answer lies strictly between 0 and 1."""
        return bool(((self.responses > 0.0) & (self.responses < 1.0)).any())

    def row(self, model: str) -> Array:
        """Return the answers of one model, `(items,)`.

        Raises:
            InputError: no such model.
        """
        if model not in self.models:
            raise InputError(f"no model {model!r} in the response table. {near(model, self.models[:2000])[:600]}")
        return self.responses[self.models.index(model)]

    def for_items(self, items: Sequence[str], what: str = "the bank") -> ResponseTable:
        """Return the table with exactly these items in this order, matched by id.

        Raises:
            InputError: an item is missing here: the table belongs to another version of the task.
        """
        column = {item: k for k, item in enumerate(self.items)}
        absent = [item for item in items if item not in column]
        if absent:
            raise InputError(
                f"{len(absent)} of the {len(items)} items of {what} are not in the answers ({listed(absent)}); "
                f"items there look like {listed(self.items[:2])}. They belong to another task or another version of "
                "it: calibrate on answers to the same items"
            )
        order: IntArray = np.array([column[item] for item in items], dtype=int)
        return ResponseTable(self.responses[:, order], self.models, tuple(items))
