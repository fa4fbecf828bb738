"""Calibration data of one objective's items: a bank, the parents, and earlier merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evomerge.errors import InputError, listed
from evomerge.irt._bank import Bank
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._curves import Array, IntArray
from evomerge.irt._estimators import Calibration, fit_calibration
from evomerge.irt._model_selection import NEAR_RASCH_SPEC, IRTModelSpec, select_irt_model

# A bank is refitted once the run's own models exceed this fraction of its models; fewer would hardly change it.
REFIT_FRACTION = 0.1
# Merges with this fraction of equal answers are near duplicates: they add no information, and shrink the population.
DUPLICATE_FRACTION = 0.98
# The run's own models are relatives of each other: fewer than these cannot estimate items' discriminations.
OWN_MODELS = 60
# A bank must hold at least this fraction of the search items (half of them for another seed of the same task); the rest
# is calibrated on the run's own answers.
KNOWN_FRACTION = 0.2


@dataclass(frozen=True)
class BankPart:
    """The columns of an item bank for one objective's search items, in their order."""

    responses: Array  # (models, items), nan where the bank has no answer or no such item
    model_spec: IRTModelSpec
    parameters: ItemParameters | None  # None if an item is missing, so that the bank has to be refitted
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)  # cache of fits to it

    @property
    def models(self) -> int:
        """How many models the bank was calibrated on."""
        return len(self.responses)


@dataclass(frozen=True)
class CalibrationData:
    """All answers that estimates are calibrated on, as arrays over the same items.

    Raises:
        InputError: on construction, if shapes disagree.
    """

    parents: Array  # (K, items): complete answers in [0, 1]
    merges: Array  # (M, items): answers of fully evaluated merges, in the order in which they were observed
    bank: BankPart | None = None

    def __post_init__(self) -> None:
        widths = {self.parents.shape[1], self.merges.shape[1]}
        widths |= {self.bank.responses.shape[1]} if self.bank is not None else set()
        if len(widths) != 1:
            raise InputError(f"parents, merges and bank must be over the same items, got {sorted(widths)} items")

    @property
    def items(self) -> int:
        """Number of items that the score is the mean of."""
        return int(self.parents.shape[1])

    @property
    def models(self) -> int:
        """Number of models that calibrate the items."""
        own = len(self.parents) + len(self.distinct)
        return own + (self.bank.models if self.bank is not None else 0)

    @property
    def even(self) -> bool:
        """Whether all items are calibrated on the same models; a bank that lacks items favours the others."""
        return self.bank is None or self.bank.parameters is not None

    @property
    def distinct(self) -> Array:
        """The merges without near duplicates of earlier ones or of parents, `(distinct, items)`."""
        kept: list[Array] = []
        for row in self.merges:
            if all(float((row == other).mean()) < DUPLICATE_FRACTION for other in [*self.parents, *kept]):
                kept.append(row)
        return np.array(kept).reshape(-1, self.items)

    def without(self, merge: int) -> CalibrationData:
        """Return the data without one of the merges, for leave-one-out errors."""
        return CalibrationData(self.parents, np.delete(self.merges, merge, axis=0), self.bank)

    def model_spec(self) -> IRTModelSpec:
        """Return the IRT model that the data support; the bank's own if there is a bank.

        If a bank lacks items, these decide: structure that only the others support would be noise on them.
        """
        if self.bank is not None and self.even:
            return self.bank.model_spec
        table = self._table()
        fewest = int((~np.isnan(table)).sum(axis=0).min())
        if fewest < OWN_MODELS or self.bank is not None:
            return NEAR_RASCH_SPEC
        return select_irt_model(table, np.random.default_rng(0))[0]

    def calibration(self) -> Calibration:
        """Return the calibration on bank, parents and merges together."""
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
        """Whether the items are fitted to all models together; otherwise the bank's parameters are used."""
        if self.bank is None or self.bank.parameters is None:
            return True
        return len(self.parents) + len(self.distinct) >= REFIT_FRACTION * self.bank.models

    def _table(self) -> Array:
        rows = [self.parents, self.distinct]
        if self.bank is not None:
            rows.insert(0, self.bank.responses)
        return np.concatenate(rows)


def match_bank(bank: Bank, names: Sequence[Sequence[str]], what: str) -> BankPart:
    """Return the part of a bank for some items, matched by the hashes of their texts and never by position.

    Args:
        bank: calibrated items.
        names: per item, the hashes under which a bank may list it.
        what: the task, for messages.

    Raises:
        InputError: the bank holds too few of the items: it is for another task, or another version of it.
    """
    index = {item: column for column, item in enumerate(bank.items)}
    columns = [next((index[name] for name in known if name in index), -1) for known in names]
    found = np.array(columns, dtype=np.int64)  # (items,) column in the bank; -1: not there
    hits = int((found >= 0).sum())
    if hits < KNOWN_FRACTION * len(names) or not hits:
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
    """Return a model's answers to `items`, `(items,)`; None if one is missing or outside [0, 1]."""
    if any(item not in values for item in items):
        return None
    row = np.array([values[item] for item in items], dtype=np.float64)
    return row if bool(((row >= 0.0) & (row <= 1.0)).all()) else None
