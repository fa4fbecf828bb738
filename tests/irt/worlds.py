"""Small simulated pools, and the development tables where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from evomerge.irt._curves import probabilities

Pool = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # theta, a, b and responses


def simulate(models: int, items: int, d: int, seed: int, a_sd: float = 1.0) -> Pool:
    """Return theta, a, b and 0/1 responses of a simulated pool; a tenth of the items discriminate negatively."""
    rng = np.random.default_rng(seed)
    theta = rng.standard_normal((models, d))
    a = np.abs(rng.normal(1.2, 0.5 * a_sd, (items, d))) + 0.2
    if d > 1:
        a *= rng.choice([0.15, 1.0], size=(items, d))
    a[rng.random(items) < 0.1] *= -1.0
    b = rng.normal(0.0, 1.2, items)
    y = (rng.random((models, items)) < probabilities(theta, a, b)).astype(float)
    return theta, a, b, y


def data_folder() -> Path:
    """Return the folder of the development tables, or skip the test."""
    root = Path(__file__).resolve().parents[2]
    named = [Path(os.environ["EVOMERGE_DATA"])] if os.environ.get("EVOMERGE_DATA") else []
    for base in [*named, root.parent / "shared" / "data"]:
        for folder in (base / "irt", base):
            if (folder / "metabench_arc.npz").is_file():
                return folder
    return pytest.skip("the development tables are absent")
