"""Is one model better than another on the same questions? Paired differences with intervals and p values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evomerge.candidate import Objective, Response
from evomerge.errors import InputError, TaskError
from evomerge.scoring.estimation._mean import is_whole, values_of
from evomerge.stats import (
    MeanDifference,
    Sample,
    bootstrap_means,
    is_ternary,
    max_t_deviations,
    mcnemar,
    paired_mean,
    weighted_sum,
)

RESAMPLES = 10_000  # bootstrap resamples
JOINT_RESAMPLES = 2_000  # resamples of the bootstrap that only sets a common width


@dataclass(frozen=True)
class Difference:
    """How much fitter one model is than another, averaged over tasks; positive is better, in the metric's units.

    Where a task has a single item, or an objective is one number per model, there is no telling how far chance carries:
    then `low`, `high` and `p` are NaN.
    """

    value: float
    low: float
    high: float
    p: float  # two-sided, of no difference
    items: int
    level: float = 0.95

    @property
    def has_interval(self) -> bool:
        """True where the interval is known."""
        return not math.isnan(self.low)

    @property
    def distinguishable(self) -> bool:
        """True where the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(
    a: Iterable[Response],
    b: Iterable[Response],
    objectives: Objective | Sequence[Objective],
    *,
    level: float = 0.95,
    method: Literal["analytic", "bootstrap"] = "analytic",
    stands_in: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Difference:
    """Return by how much model `a` is fitter than model `b` on the items that both answered.

    Over several objectives the mean of their differences is taken, each weighing the same; objectives of one task
    are averaged item by item first, since their responses to an item are not independent. Tasks are.

    The analytic interval: where all differences of a task are -1, 0 or 1, the adjusted Wald interval for paired
    proportions (Bonett & Price 2012, Journal of Educational and Behavioral Statistics 37:479), which stays honest
    with few or no discordant items; otherwise Student's, from the deviation of the differences; over several tasks
    variances add and degrees of freedom follow Welch and Satterthwaite. The p value of a single such 0/1 task is
    McNemar's exact one, which can disagree with the interval at its edge; otherwise it belongs to the interval.
    The bootstrap resamples items within tasks and takes percentiles; its p value is twice the smaller tail.

    Args:
        a: responses of one model.
        b: responses of the other.
        objectives: what is compared, with their directions.
        level: of the interval, in (0, 1).
        method: how the interval is computed.
        stands_in: objective's task -> task of its held-out items, see `ItemPlan`.
        seed: of the bootstrap's own generator.

    Raises:
        TaskError: the models did not answer the same items of a task, or none.
        InputError: the level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level}; 95% is 0.95")
    wanted = (objectives,) if isinstance(objectives, Objective) else tuple(objectives)
    tasks = _differences(tuple(a), tuple(b), wanted, stands_in or {})
    if method == "bootstrap":
        return _bootstrapped(tasks, level, seed)
    return _analytic(tasks, level)


def gain_over_best(
    model: Iterable[Response],
    parents: Mapping[str, Sequence[Response]],
    objectives: Sequence[Objective],
    *,
    level: float = 0.95,
    stands_in: Mapping[str, str] | None = None,
) -> tuple[str, Difference]:
    """Return the parent that did best on these items, and how much fitter `model` is than it.

    With several parents the best is picked by the very answers that it is then compared on. That flatters the
    parent (its luck helped to choose it), so the gain is underestimated if anything: the choice is conservative,
    and no correction for multiple parents is made.

    Raises:
        TaskError: there is no parent, or the models did not answer the same items.
    """
    if not parents:
        raise TaskError("there is no parent to compare with")
    answers = tuple(model)
    gains = {
        name: paired_difference(answers, responses, objectives, level=level, stands_in=stands_in)
        for name, responses in parents.items()
    }
    best = min(gains, key=lambda name: gains[name].value)
    return best, gains[best]


def joint_gains(
    models: Mapping[str, Sequence[Response]],
    parents: Mapping[str, Sequence[Response]],
    objectives: Sequence[Objective],
    *,
    level: float = 0.95,
    stands_in: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return each model's gain over the parent that did best, with intervals that hold for all models together.

    Several finalists are several chances to look good: with six of them, one in four runs has a 95% interval that
    misses. Here the widest studentised deviation of any model, over resampled items, sets the width of all (max-t).
    That uses how alike the models are, so it is narrower than Bonferroni's. p values are adjusted in the same way.

    Args:
        models: name -> responses of a finalist.
        parents: name -> responses of a parent; each model is compared as in `gain_over_best`.
        objectives: what is compared.
        level: joint coverage, in (0, 1).
        stands_in: objective's task -> task of its held-out items.
        seed: of the bootstrap's own generator.

    Raises:
        TaskError: there is no parent, or the models did not answer the same items.

    Source: Romano and Wolf 2005, "Stepwise multiple testing as formalized data snooping", Econometrica 73.
    """
    single, differences = dict[str, Difference](), dict[str, list[Sample]]()
    for name, responses in models.items():
        best, single[name] = gain_over_best(responses, parents, objectives, level=level, stands_in=stands_in)
        differences[name] = _differences(tuple(responses), tuple(parents[best]), tuple(objectives), stands_in or {})
    if len(single) < 2:
        return single
    totals = {name: _total(tasks) for name, tasks in differences.items()}
    errors = {name: math.sqrt(total.variance) for name, total in totals.items()}
    by_task = zip(*differences.values(), strict=True)  # per task one sample of each model, all on the same items
    samples = [(each[0][0], np.stack([pairs for _, pairs in each])) for each in by_task]
    widest = max_t_deviations(samples, list(errors.values()), np.random.default_rng(seed), JOINT_RESAMPLES)
    critical = float(np.quantile(widest, level))
    joint = {}
    for name, alone in single.items():
        centre, error = totals[name].value, errors[name]
        if not alone.has_interval:
            joint[name] = alone
            continue
        tail = float(centre == 0)
        if error > 0:
            tail = (int((widest >= abs(centre) / error).sum()) + 1) / (JOINT_RESAMPLES + 1)
        joint[name] = Difference(
            alone.value,
            min(alone.low, centre - critical * error),
            max(alone.high, centre + critical * error),
            max(alone.p, tail),
            alone.items,
            level,
        )
    return joint


def _total(tasks: Sequence[Sample]) -> MeanDifference:
    """Return the weighted mean over tasks; a task with a single item says nothing about its error."""
    return weighted_sum(
        [
            (weight, paired_mean(pairs) if len(pairs) > 1 else MeanDifference(float(pairs.mean()), math.inf, 1.0))
            for weight, pairs in tasks
        ]
    )


def _differences(
    a: Sequence[Response], b: Sequence[Response], objectives: Sequence[Objective], stands_in: Mapping[str, str]
) -> list[Sample]:
    """Return (share of the total, differences per item (n,)) per task."""
    if not objectives:
        raise TaskError("there is no objective to compare on")
    tasks: dict[str, list[np.ndarray]] = {}
    for objective in objectives:
        task = stands_in.get(objective.task, objective.task)
        left, right = values_of(a, objective, task), values_of(b, objective, task)
        if left.keys() != right.keys() or not left:
            raise TaskError(
                f"task {task!r}: the models must have answered the same items to be compared; "
                f"{len(left.keys() & right.keys())} are common, {len(left.keys() ^ right.keys())} are not"
            )
        pairs = [objective.fitness(left[item]) - objective.fitness(right[item]) for item in sorted(left)]
        if is_whole(a, task):  # the same number with every item
            pairs = pairs[:1]
        tasks.setdefault(task, []).append(np.array(pairs))
    # Weighted by the number of objectives, so that the mean over objectives is what is reported.
    return [(len(parts) / len(objectives), np.mean(parts, axis=0)) for parts in tasks.values()]


def _mean(tasks: Sequence[Sample]) -> float:
    return sum(weight * float(pairs.mean()) for weight, pairs in tasks)


def _analytic(tasks: Sequence[Sample], level: float) -> Difference:
    value, items, total = _mean(tasks), sum(len(pairs) for _, pairs in tasks), _total(tasks)
    if not math.isfinite(total.variance):
        return Difference(value, math.nan, math.nan, math.nan, items, level)
    first = tasks[0][1]
    p = total.p_two_sided()
    if len(tasks) == 1 and is_ternary(first):
        p = mcnemar(int((first > 0).sum()), int((first < 0).sum()))
    return Difference(value, *total.interval(level), p, items, level)


def _bootstrapped(tasks: Sequence[Sample], level: float, seed: int) -> Difference:
    means = bootstrap_means(tasks, np.random.default_rng(seed), RESAMPLES)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    # One more on each side: a p value of 0 would claim more than a finite number of resamples can show.
    tail = (min(int((means <= 0).sum()), int((means >= 0).sum())) + 1) / (RESAMPLES + 1)
    items = sum(len(pairs) for _, pairs in tasks)
    return Difference(_mean(tasks), float(low), float(high), min(1.0, 2 * tail), items, level)
