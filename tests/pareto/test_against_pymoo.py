"""The same numbers as pymoo's, where pymoo is installed; it is no dependency of the project."""

import numpy as np
import pytest

from evomerge.pareto.dominance import front_ranks, non_dominated
from evomerge.pareto.hypervolume import hypervolume
from evomerge.pareto.quality import generational_distance, igd_plus, inverted_generational_distance
from evomerge.pareto.spread import simplex_weights

pytest.importorskip("pymoo")


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_indicators_and_ranks(m):
    from pymoo.indicators.gd import GD
    from pymoo.indicators.hv import HV
    from pymoo.indicators.igd import IGD
    from pymoo.indicators.igd_plus import IGDPlus
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    rng = np.random.default_rng(m)
    scores, target = rng.random((30, m)), rng.random((40, m))
    target = target[non_dominated(target)]
    # pymoo minimises
    assert hypervolume(scores, np.full(m, 0.1)) == pytest.approx(HV(ref_point=np.full(m, -0.1))(-scores))
    assert generational_distance(scores, target, scale=False) == pytest.approx(GD(-target)(-scores))
    assert inverted_generational_distance(scores, target, scale=False) == pytest.approx(IGD(-target)(-scores))
    assert igd_plus(scores, target, scale=False) == pytest.approx(IGDPlus(-target)(-scores))
    for rank, members in enumerate(NonDominatedSorting().do(-scores)):
        assert (front_ranks(scores)[members] == rank).all()


def test_weights_of_das_and_dennis():
    from pymoo.util.ref_dirs import get_reference_directions

    theirs = get_reference_directions("das-dennis", 3, n_partitions=12)
    ours = simplex_weights(3, len(theirs))
    assert np.sort(ours, axis=0) == pytest.approx(np.sort(theirs, axis=0))
