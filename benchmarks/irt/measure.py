"""Errors and coverage of every method from one cross-validation, as `estimate` would give them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.irt import Bank, ResponseTable, interval
from evomerge.irt._cross_validation import best_result, cross_validate, estimate_each, variants
from evomerge.irt._estimators import MIXTURES, mix
from evomerge.irt._uncertainty import conformal_factor


def measure(bank: Bank, answers: ResponseTable, n: int, methods: Sequence[str], seed: int) -> dict[str, dict]:
    """Return per method: absolute errors in points, hits of the nominal 90% interval, and the estimator used."""
    models = len(bank.table.models)
    calibration = bank.calibration()
    specs = list(dict.fromkeys(r for m in methods for r in variants(m, models)))
    rng = np.random.default_rng([seed, 0])
    results = {v.spec: v for v in cross_validate(calibration, bank.model_spec, specs, n, rng)}
    parts = list(dict.fromkeys(p for r in specs for p in MIXTURES.get(r, (r,))))
    complete = answers.for_items(bank.items).responses
    truth = complete @ bank.weights
    read = estimate_each(calibration, parts, n, complete, np.random.default_rng([seed, 1]))
    out = {}
    for method in methods:
        validated = best_result([results[r] for r in variants(method, models)])
        used = MIXTURES.get(validated.spec, (validated.spec,))
        reading = mix(read[used[0]], read[used[1]], validated.fraction) if len(used) == 2 else read[used[0]]
        factor = conformal_factor(validated.errors, validated.sds)
        estimate = np.clip(reading.estimate, 0.0, 1.0)
        low, high = interval(estimate, factor * reading.sd)
        out[method] = {
            "errors": 100.0 * np.abs(estimate - truth),
            "hits": (low <= truth + 1e-12) & (truth <= high + 1e-12),
            "recipe": "/".join(validated.spec),
            "factor": factor,
        }
    return out
