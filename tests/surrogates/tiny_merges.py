"""Real merges small enough for a test: numpy classifiers fine-tuned on different tasks, merged by task arithmetic.

Each task is to classify points around a few centres; a base network learns a bit of all, each expert one task. The
accuracy of a merge as a function of its coefficients is not a quadratic: it has plateaus and cliffs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INPUTS, HIDDEN, CLASSES = 10, 24, 4


def _forward(weights, x):
    w1, b1, w2, b2 = weights
    hidden = np.tanh(x @ w1 + b1)
    return hidden, hidden @ w2 + b2


def _train(weights, x, y, steps, rate):
    weights = [w.copy() for w in weights]
    target = np.eye(CLASSES)[y]
    for _ in range(steps):
        hidden, out = _forward(weights, x)
        out = np.exp(out - out.max(axis=1, keepdims=True))
        error = (out / out.sum(axis=1, keepdims=True) - target) / len(x)
        back = (error @ weights[2].T) * (1 - hidden**2)
        for w, g in zip(weights, (x.T @ back, back.sum(0), hidden.T @ error, error.sum(0)), strict=True):
            w -= rate * g
    return weights


@dataclass
class TinyMerges:
    base: list
    deltas: list  # per expert, per tensor
    tests: list  # per task (x, y)

    def scores(self, c):
        """Accuracy of the merges at c (n, K) on every task, (n, K), on all test items."""
        table = np.empty((len(c), len(self.tests)))
        for row, point in zip(table, np.asarray(c), strict=True):
            weights = [
                base + sum(ck * delta[i] for ck, delta in zip(point, self.deltas, strict=True))
                for i, base in enumerate(self.base)
            ]
            row[:] = [(_forward(weights, x)[1].argmax(axis=1) == y).mean() for x, y in self.tests]
        return table


def make(experts=2, seed=0, test_items=1000):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(experts, CLASSES * 2, INPUTS)) * 0.9
    labels = np.arange(CLASSES * 2) % CLASSES

    def sample(task, n):
        which = rng.integers(CLASSES * 2, size=n)
        return centres[task, which] + rng.normal(size=(n, INPUTS)), labels[which]

    base = [
        rng.normal(size=(INPUTS, HIDDEN)) / 3,
        np.zeros(HIDDEN),
        rng.normal(size=(HIDDEN, CLASSES)) / 5,
        np.zeros(4),
    ]
    mixed = [sample(task, 100) for task in range(experts)]
    base = _train(base, np.vstack([x for x, _ in mixed]), np.concatenate([y for _, y in mixed]), 300, 0.5)
    tuned = [_train(base, *sample(task, 400), 120, 0.3) for task in range(experts)]
    deltas = [[w - b for w, b in zip(weights, base, strict=True)] for weights in tuned]
    return TinyMerges(base, deltas, [sample(task, test_items) for task in range(experts)])
