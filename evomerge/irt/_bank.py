"""Item bank: calibrated items, their calibration answers, and the provenance of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evomerge.errors import InputError, listed
from evomerge.irt._calibrate import ItemParameters
from evomerge.irt._curves import Array
from evomerge.irt._estimators import Calibration, fit_calibration
from evomerge.irt._model_selection import IRTModelSpec, candidate_specs, select_irt_model
from evomerge.irt._performance import normalised
from evomerge.irt._table import ResponseTable

FORMAT = 1  # version of bank files; raise it when a reader of the old format would misread the new one


@dataclass(frozen=True)
class Bank:
    """Everything that `estimate` needs; items are identified by id.

    The calibration answers are part of it: anchors, intervals and the choice of method are fitted to them, and they
    may include answers of parents.
    """

    table: ResponseTable
    weights: Array  # (items,), sum 1
    model_spec: IRTModelSpec
    parameters: ItemParameters
    provenance: Mapping[str, object]

    @property
    def items(self) -> tuple[str, ...]:
        """Item ids, in the order of all arrays."""
        return self.table.items

    def calibration(self) -> Calibration:
        """Return the calibration of the items."""
        return fit_calibration(self.table.responses, self.weights, self.model_spec, self.parameters)


def require_seed(seed: int) -> None:
    """Raise InputError unless the seed is a whole number of at least 0, which is what NumPy's generators take."""
    # bool is an int: True would silently be seed 1
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, got {seed!r}")


def calibrate_table(
    table: ResponseTable, dims: str | int = "auto", seed: int = 0, weights: Array | None = None
) -> Bank:
    """Return the bank of a response table.

    Args:
        table: answers of the calibration models; missing and graded ones are fine.
        dims: ability dimensions, or `auto`: held-out models choose them, and how far items are shrunk to each other.
        seed: draws the held-out models; the fit itself is deterministic.
        weights: of the items in the score, `(items,)`; equal by default.

    Raises:
        InputError: `dims` is neither `auto` nor a whole number from 1 to the number of items, an item or model has no
            answer at all, or the weights do not fit.
    """
    require_seed(seed)
    responses = table.responses
    seen = ~np.isnan(responses)
    for kind, names, axis in (("item", table.items, 0), ("model", table.models, 1)):
        silent = [name for name, any_ in zip(names, np.atleast_1d(seen.any(axis=axis)), strict=True) if not any_]
        if silent:
            raise InputError(
                f"every {kind} needs at least one answer; none for {listed(silent)}; leave them out of the table"
            )
    w = normalised(weights, len(table.items))
    losses: dict[str, float] = {}
    if dims == "auto":
        model_spec, losses = select_irt_model(responses, np.random.default_rng(seed))
    else:
        model_spec = _fixed_model_spec(dims, *responses.shape)
    provenance = {
        "models": len(table.models),
        "items": len(table.items),
        "answers": int(seen.sum()),
        "dims": model_spec.d,
        "prior": model_spec.prior.name,
        "held_out_losses": losses,
        "seed": seed,
        # items that all models answer alike discriminate nothing; many of them hint at a broken task
        "constant_items": int((np.nanmax(responses, axis=0) == np.nanmin(responses, axis=0)).sum()),
    }
    return Bank(table, w, model_spec, model_spec.fit(responses), provenance)


def _fixed_model_spec(dims: str | int, models: int, items: int) -> IRTModelSpec:
    try:
        d = int(dims)
    except (TypeError, ValueError):
        d = 0
    if not 1 <= d <= items or str(d) != str(dims):
        raise InputError(f"dims must be 'auto' or a whole number from 1 to the number of items, {items}, got {dims!r}")
    # One dimension with few models keeps the narrow prior of its size; more dimensions are used only on request.
    return next(
        (r for r in reversed(candidate_specs(models, items)) if r.d == d),
        IRTModelSpec(d, candidate_specs(models, items)[0].prior),
    )
