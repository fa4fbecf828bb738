"""The same numbers as pymoo's, where pymoo is installed; it is no dependency of the project."""

import numpy as np
import pytest

from evomerge.pareto import front_ranks, hypervolume, simplex_weights

pytest.importorskip("pymoo")


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_hypervolume_and_ranks(m):
    from pymoo.indicators.hv import HV
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    rng = np.random.default_rng(m)
    scores = rng.random((30, m))
    # pymoo minimises
    assert hypervolume(scores, np.full(m, 0.1)) == pytest.approx(HV(ref_point=np.full(m, -0.1))(-scores))
    for rank, members in enumerate(NonDominatedSorting().do(-scores)):
        assert (front_ranks(scores)[members] == rank).all()


def test_weights_of_das_and_dennis():
    from pymoo.util.ref_dirs import get_reference_directions

    theirs = get_reference_directions("das-dennis", 3, n_partitions=12)
    ours = simplex_weights(3, len(theirs))
    assert np.sort(ours, axis=0) == pytest.approx(np.sort(theirs, axis=0))
