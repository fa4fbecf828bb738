"""The synthetic scorer: a known optimum, a known front, and answers that depend on nothing but the candidate."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from evomerge.candidate import Answers, Candidate, Job, Outcome
from evomerge.errors import InputError
from evomerge.recipe import passthrough
from evomerge.scoring._synthetic import SyntheticSpec, synthetic_recipe, uniform

OPTIMA = {"add": (0.2, 0.8), "sort": (0.8, 0.2)}
SPEC = SyntheticSpec(OPTIMA, parents={"adder": (0.2, 0.8)})
ITEMS = {task: tuple(str(i) for i in range(400)) for task in OPTIMA}


def candidate(genotype: tuple[float, ...], number: int = 0) -> Candidate:
    return Candidate(number, synthetic_recipe(genotype), genotype)


def means(spec: SyntheticSpec, who: Candidate) -> dict[str, float]:
    results = list(spec.build().evaluate(Job(who, "search", ITEMS)))
    assert isinstance(results[-1], Outcome)
    return {a.task: float(np.mean([r.value for r in a.responses])) for a in results if isinstance(a, Answers)}


def test_ability_is_peak_at_the_optimum_and_falls_by_the_formula() -> None:
    scorer = SPEC.build()
    assert scorer.ability(candidate((0.2, 0.8)), "add") == 2.0
    assert scorer.ability(candidate((0.2, 0.3)), "add") == pytest.approx(2.0 - 12.0 * 0.25 / 2)
    assert scorer.ability(Candidate(-1, passthrough("adder"), (), "parent", "adder"), "add") == 2.0


def test_the_front_is_the_segment_between_the_optima() -> None:
    """Every point off the segment is dominated by its foot on it; points on it trade one task for the other."""
    graded = replace(SPEC, graded=True)
    on = [means(graded, candidate((0.2 + 0.6 * t, 0.8 - 0.6 * t))) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert all(a["add"] > b["add"] and a["sort"] < b["sort"] for a, b in itertools.pairwise(on))
    off = means(graded, candidate((0.6, 0.6)))  # its foot is the middle
    assert off["add"] < on[2]["add"]
    assert off["sort"] < on[2]["sort"]


def test_right_and_wrong_answers_agree_with_the_probabilities() -> None:
    """400 items: within four standard errors of the graded mean, for several candidates."""
    for genotype in [(0.2, 0.8), (0.5, 0.5), (0.9, 0.1)]:
        noisy, exact = means(SPEC, candidate(genotype)), means(replace(SPEC, graded=True), candidate(genotype))
        for task in OPTIMA:
            assert abs(noisy[task] - exact[task]) < 4 * 0.5 / 20


def test_answers_depend_on_the_candidate_alone() -> None:
    """Not on the worker, the order of items, or which others were asked; another recipe answers otherwise."""
    one = next(iter(SPEC.build().evaluate(Job(candidate((0.5, 0.5)), "search", ITEMS))))
    backwards = {"sort": ITEMS["sort"][:3], "add": ITEMS["add"][::-1]}
    other = list(SPEC.build().evaluate(Job(candidate((0.5, 0.5), 7), "search", backwards)))[1]
    assert isinstance(one, Answers)
    assert isinstance(other, Answers)
    assert {r.item: r.value for r in one.responses} == {r.item: r.value for r in other.responses}
    near = next(iter(SPEC.build().evaluate(Job(candidate((0.5, 0.5 + 1e-12)), "search", ITEMS))))
    assert isinstance(near, Answers)
    assert [r.value for r in near.responses] != [r.value for r in one.responses]


def test_the_keyed_uniform_is_uniform() -> None:
    values = np.array([uniform("a", str(i)) for i in range(4000)])
    assert ((values > 0) & (values < 1)).all()
    assert np.abs(np.quantile(values, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.03
    assert uniform("ab", "c") != uniform("a", "bc")


def test_an_unknown_task_is_a_mistake_in_the_set_up() -> None:
    with pytest.raises(InputError, match="no task 'spell'; known: add, sort"):
        SPEC.build().ability(candidate((0.5, 0.5)), "spell")
