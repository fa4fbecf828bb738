"""The search space: a merge with markers, and the map between points of the unit cube and recipes."""

from evomerge.space.genes import Gene
from evomerge.space.space import SearchSpace, build_space

__all__ = ["Gene", "SearchSpace", "build_space"]
