"""Brute force: the definitions as loops, to compare the fast functions with."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def dominates(a, b):
    return bool(np.all(a >= b) and np.any(a > b))


def front(scores):
    return np.array([not np.isnan(a).any() and not any(dominates(b, a) for b in scores) for a in scores], dtype=bool)


def ranks(scores):
    left = ~np.isnan(scores).any(axis=1)
    result, rank = np.zeros(len(scores), dtype=int), 0
    while left.any():
        members = front(np.where(left[:, None], scores, np.nan))
        result[members] = rank
        left &= ~members
        rank += 1
    result[np.isnan(scores).any(axis=1)] = rank
    return result


def hypervolume(scores, reference):
    """Inclusion and exclusion over all subsets."""
    gains = [row - reference for row in scores if np.all(row > reference)]
    total = 0.0
    for size in range(1, len(gains) + 1):
        for subset in combinations(gains, size):
            total -= (-1) ** size * np.min(subset, axis=0).prod()
    return total
