"""Errors and coverage of every method from one round of judging, as `estimate` would give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.irt.bank import Bank
from evomerge.irt.judge import best, judge, readings, variants
from evomerge.irt.readings import MIXTURES, mix
from evomerge.irt.table import ResponseTable
from evomerge.irt.uncertainty import conformal_factor, interval


def measure(bank: Bank, answers: ResponseTable, n: int, methods: Sequence[str], seed: int) -> dict[str, dict]:
    """Return per method: absolute errors in points, hits of the nominal 90% interval, and the recipe that was used."""
    models = len(bank.table.models)
    calibration = bank.calibration()
    recipes = list(dict.fromkeys(r for m in methods for r in variants(m, models)))
    rng = np.random.default_rng([seed, 0])
    verdicts = {v.recipe: v for v in judge(calibration, bank.rung, recipes, n, rng)}
    parts = list(dict.fromkeys(p for r in recipes for p in MIXTURES.get(r, (r,))))
    complete = answers.for_items(bank.items).responses
    truth = complete @ bank.weights
    read = readings(calibration, parts, n, complete, np.random.default_rng([seed, 1]))
    out = {}
    for method in methods:
        verdict = best([verdicts[r] for r in variants(method, models)])
        used = MIXTURES.get(verdict.recipe, (verdict.recipe,))
        reading = mix(read[used[0]], read[used[1]], verdict.share) if len(used) == 2 else read[used[0]]
        factor = conformal_factor(verdict.errors, verdict.sds)
        estimate = np.clip(reading.estimate, 0.0, 1.0)
        low, high = interval(estimate, factor * reading.sd)
        out[method] = {
            "errors": 100.0 * np.abs(estimate - truth),
            "hits": (low <= truth + 1e-12) & (truth <= high + 1e-12),
            "recipe": "/".join(verdict.recipe),
            "factor": factor,
        }
    return out
