"""How much item structure a response table can support: the rung of a ladder from near-Rasch to several dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.irt.ability import estimate_ability
from evomerge.irt.calibrate import HALF_RASCH, NEAR_RASCH, WIDE, ItemParameters, ItemPrior, fit_items
from evomerge.irt.curves import Array, probabilities
from evomerge.irt.performance import p_irt

# Below this many models no held-out choice is trusted, and every item discriminates about equally.
FEW_MODELS = 10
HELD_OUT_SHARE = 0.2
MAX_HELD_OUT = 400
MIN_HELD_OUT = 12
# A choice among rungs needs no more models than this; keeps the choice cheap on large tables.
MAX_CHOICE_MODELS = 1500


@dataclass(frozen=True)
class Rung:
    """One amount of structure: ability dimensions and item prior."""

    d: int
    prior: ItemPrior

    def fit(self, responses: Array) -> ItemParameters:
        """Return the item parameters of a response table, `(models, items)`, under this rung."""
        return fit_items(responses, self.d, self.prior)


NEAR = Rung(1, NEAR_RASCH)
HALF = Rung(1, HALF_RASCH)
LOOSE = Rung(1, WIDE)


def rungs(models: int, items: int) -> tuple[Rung, ...]:
    """Return the rungs worth trying, simplest first."""
    if models < FEW_MODELS or items < 4:
        return (NEAR,)
    if models < 60:
        return NEAR, HALF
    wide = [Rung(d, WIDE) for d in ((2,) if models < 200 else (2, 3, 5)) if d < items]
    return HALF, LOOSE, *wide


def split_half_errors(responses: Array, rung: Rung, weights: Array, rng: np.random.Generator) -> Array:
    """Return how far p-IRT from every second item is off on the other items, for held-out models.

    Args:
        responses: `(models, items)`, nan where missing.
        rung: structure to fit on the other models.
        weights: of the items, `(items,)`.
        rng: draws the held-out models; groups them where models are few so that enough are held out in all.

    Returns:
        Absolute errors in score units, one per held-out model.

    Source: the split of tinyBenchmarks' calibration, Maia Polo et al. 2024, arXiv:2402.14992.
    """
    order = rng.permutation(len(responses))[:MAX_CHOICE_MODELS]
    folds = max(1, int(np.ceil(MIN_HELD_OUT / max(HELD_OUT_SHARE * len(order), 1.0))))
    size = min(max(int(HELD_OUT_SHARE * len(order)), 1), MAX_HELD_OUT)
    seen = np.arange(0, responses.shape[1], 2)
    errors = []
    for fold in range(min(folds, len(order) // size)):
        out = order[fold * size : (fold + 1) * size]
        items = rung.fit(responses[np.setdiff1d(order, out)])
        held = responses[out]
        ability = estimate_ability(
            held[:, seen], items.a[seen], items.b[seen], items.ability_mean, items.ability_precision
        )
        predicted = probabilities(ability.mean, items.a, items.b)
        # A missing answer is its own prediction: it can neither help nor hurt.
        truth = np.where(np.isnan(held), predicted, held)
        errors.append(np.abs(p_irt(truth[:, seen], predicted, weights, seen) - truth @ weights))
    return np.concatenate(errors)


def choose_rung(responses: Array, weights: Array, rng: np.random.Generator) -> tuple[Rung, dict[str, float]]:
    """Return the rung of the smallest held-out error, the simplest among equals, and the errors by rung.

    Args:
        responses: `(models, items)`, nan where missing.
        weights: of the items, `(items,)`.
        rng: draws the held-out models, the same for every rung.
    """
    ladder = rungs(*responses.shape)
    if len(ladder) == 1:
        return ladder[0], {}
    seed = int(rng.integers(2**63))
    errors = [float(split_half_errors(responses, r, weights, np.random.default_rng(seed)).mean()) for r in ladder]
    best = int(np.argmin(np.round(errors, 9)))
    return ladder[best], {f"d={r.d}, {r.prior.name}": e for r, e in zip(ladder, errors, strict=True)}
