"""What is known of one objective's items before a candidate is estimated: a bank, the parents, and earlier merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evomerge.errors import InputError
from evomerge.irt import (
    NEAR_RASCH_SPEC,
    Array,
    Bank,
    Calibration,
    IntArray,
    IRTModelSpec,
    ItemParameters,
    fit_calibration,
    listed,
    select_irt_model,
)

# A bank is fitted again once the run's own models make up this share of its models; before, they would hardly move it.
REFIT_SHARE = 0.1
# Merges that answer so nearly alike teach nothing new, and a population of clones has no spread.
CLONE_SHARE = 0.98
# Fewer models of the run's own than this are relatives of each other: they cannot tell items' discriminations apart.
OWN_MODELS = 60
# A bank must know at least this share of the search items (another seed shares half of them with it); of the others
# only the run's own answers are known.
KNOWN_SHARE = 0.2


@dataclass(frozen=True)
class BankPart:
    """The part of an item bank that is about one objective's search items, in their order."""

    responses: Array  # (models, items), nan where the bank has no answer or no such item
    model_spec: IRTModelSpec
    parameters: ItemParameters | None  # None where an item is missing, so that the bank must be fitted again
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # learnt from it, by question

    @property
    def models(self) -> int:
        """How many models the bank was calibrated on."""
        return len(self.responses)


@dataclass(frozen=True)
class Knowledge:
    """Everything that an estimate may lean on, as arrays over the same items.

    Raises:
        InputError: on construction, where shapes disagree.
    """

    parents: Array  # (K, items): complete answers in [0, 1]
    merges: Array  # (M, items): of merges answered in full, in the order in which they were told
    bank: BankPart | None = None

    def __post_init__(self) -> None:
        widths = {self.parents.shape[1], self.merges.shape[1]}
        widths |= {self.bank.responses.shape[1]} if self.bank is not None else set()
        if len(widths) != 1:
            raise InputError(f"parents, merges and bank must be over the same items, got {sorted(widths)} items")

    @property
    def items(self) -> int:
        """How many items the score is the mean of."""
        return int(self.parents.shape[1])

    @property
    def models(self) -> int:
        """How many models calibrate the items."""
        own = len(self.parents) + len(self.distinct)
        return own + (self.bank.models if self.bank is not None else 0)

    @property
    def even(self) -> bool:
        """Whether every item is known from the same models; a bank that lacks some items knows the others better."""
        return self.bank is None or self.bank.parameters is not None

    @property
    def distinct(self) -> Array:
        """The merges without those that answer like an earlier one, or like a parent."""
        kept: list[Array] = []
        for row in self.merges:
            if all(float((row == other).mean()) < CLONE_SHARE for other in [*self.parents, *kept]):
                kept.append(row)
        return np.array(kept).reshape(-1, self.items)

    def without(self, merge: int) -> Knowledge:
        """Return what was known without one of the merges."""
        return Knowledge(self.parents, np.delete(self.merges, merge, axis=0), self.bank)

    def model_spec(self) -> IRTModelSpec:
        """Return how much item structure the models can support; the bank's own choice where there is a bank.

        Where a bank lacks items, those decide: structure that only the others support would be noise on them.
        """
        if self.bank is not None and self.even:
            return self.bank.model_spec
        table = self._table()
        fewest = int((~np.isnan(table)).sum(axis=0).min())
        if fewest < OWN_MODELS or self.bank is not None:
            return NEAR_RASCH_SPEC
        return select_irt_model(table, np.random.default_rng(0))[0]

    def calibration(self) -> Calibration:
        """Return what bank, parents and merges teach about the items together."""
        weights = np.full(self.items, 1.0 / self.items)
        if self.bank is None or self.refitted:
            return fit_calibration(self._table(), weights, self.model_spec())
        if "calibration" not in self.bank.kept:
            bank = self.bank
            self.bank.kept["calibration"] = fit_calibration(bank.responses, weights, bank.model_spec, bank.parameters)
        calibration: Calibration = self.bank.kept["calibration"]
        return calibration

    @property
    def refitted(self) -> bool:
        """Whether the items are fitted to all models together; otherwise the bank's own parameters stand."""
        if self.bank is None or self.bank.parameters is None:
            return True
        return len(self.parents) + len(self.distinct) >= REFIT_SHARE * self.bank.models

    def _table(self) -> Array:
        rows = [self.parents, self.distinct]
        if self.bank is not None:
            rows.insert(0, self.bank.responses)
        return np.concatenate(rows)


def match_bank(bank: Bank, names: Sequence[Sequence[str]], what: str) -> BankPart:
    """Return the part of a bank that is about some items, matched by the hashes of their texts and never by place.

    Args:
        bank: calibrated items.
        names: per item, the hashes by which a bank may know it.
        what: the task, for messages.

    Raises:
        InputError: the bank knows too few of the items: it is about another task, or another version of it.
    """
    place = {item: column for column, item in enumerate(bank.items)}
    columns = [next((place[name] for name in known if name in place), -1) for known in names]
    found = np.array(columns, dtype=np.int64)
    hits = int((found >= 0).sum())
    if hits < KNOWN_SHARE * len(names) or not hits:
        missing = listed(known[0] for known, column in zip(names, columns, strict=True) if column < 0)
        raise InputError(
            f"the bank knows {hits} of the {len(names)} search items of task {what!r} (missing by the hash of their "
            f"texts: {missing}; the bank's look like {listed(bank.items[:2])}). It is about another task, or another "
            "version of it: calibrate on answers to these documents"
        )
    known = found >= 0
    responses = np.full((len(bank.table.models), len(names)), np.nan)
    responses[:, known] = bank.table.responses[:, found[known]]
    if not known.all():
        return BankPart(responses, bank.model_spec, None)
    return BankPart(responses, bank.model_spec, _columns(bank.parameters, found))


def _columns(parameters: ItemParameters, columns: IntArray) -> ItemParameters:
    return ItemParameters(
        parameters.a[columns],
        parameters.b[columns],
        parameters.covariance[columns],
        parameters.ability_mean,
        parameters.ability_precision,
        parameters.theta,
        parameters.theta_covariance,
    )


def complete_row(values: Mapping[str, float], items: Sequence[str]) -> Array | None:
    """Return a model's answers to `items`, `(items,)`; None where one is missing or outside [0, 1]."""
    if any(item not in values for item in items):
        return None
    row = np.array([values[item] for item in items], dtype=np.float64)
    return row if bool(((row >= 0.0) & (row <= 1.0)).all()) else None
