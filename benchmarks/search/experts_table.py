"""Answers of every merge on a grid over the example experts, so that searches over them cost nothing.

    python benchmarks/search/experts_table.py --minutes 10        (again and again until it is complete; it goes on)

The genes of `experts.yaml` take `SHAPE` values; each of the 2,592 merges is written by the real worker and answers
the search items and as many held-out ones, through the real scorer. Nothing is interpolated or modelled. The answers
are right or wrong, one bit each, and are kept in `experts.npz` beside this file.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
TABLE = HERE / "experts.npz"
LEVELS = 6  # per gene: weights 0, 0.2, ... 1
ADD_LEVELS = 2  # of the first gene, the weight of `add`: 0 and 0.2
GENES = 5
SHAPE = (ADD_LEVELS, *(LEVELS,) * (GENES - 1))
HELD_OUT = 24  # items per task
UNKNOWN = 255


@dataclass(frozen=True)
class ExpertsTable:
    """Right (1) or wrong (0), per merge and item; merges in the order of `grid`."""

    search: np.ndarray  # (merges, tasks, search items) uint8
    holdout: np.ndarray  # (merges, tasks, held-out items) uint8
    tasks: tuple[str, ...]

    @classmethod
    def load(cls, path: Path = TABLE) -> ExpertsTable:
        stored = np.load(path)
        shapes = {name: tuple(stored[f"{name}_shape"]) for name in ("search", "holdout")}
        unpacked = {
            name: np.unpackbits(stored[name], count=int(np.prod(shape))).reshape(shape)
            for name, shape in shapes.items()
        }
        return cls(unpacked["search"], unpacked["holdout"], tuple(str(task) for task in stored["tasks"]))

    def row(self, genotype: np.ndarray) -> int:
        """Return the row of the grid point nearest to a genotype (5,) in [0, 1]."""
        most = np.array(SHAPE) - 1
        steps = np.clip(np.rint(np.asarray(genotype) * most), 0, most).astype(int)
        return int(np.ravel_multi_index(tuple(steps), SHAPE))


def grid() -> np.ndarray:
    """Return the genotypes (merges, GENES), in the table's order."""
    return np.array(list(itertools.product(*(np.linspace(0.0, 1.0, count) for count in SHAPE))))


def fill(part: int, parts: int, minutes: float) -> int:
    """Answer the rows of one part that are still unknown; return how many are left."""
    from evomerge.candidate import Answers, Candidate, Job, Outcome
    from evomerge.commands._prepare import prepare
    from evomerge.config import load_search_file

    preparation = prepare(load_search_file(HERE / "experts.yaml"))
    tasks = tuple(preparation.plan.search)
    items = {task: (*preparation.plan.search[task], *preparation.plan.holdout[task][:HELD_OUT]) for task in tasks}
    points, width = grid(), max(len(of_task) for of_task in items.values())
    answers = _scratch(part, parts, len(points), len(tasks), width)
    mine = [row for row in range(part, len(points), parts) if answers[row, 0, 0] == UNKNOWN]
    worker = preparation.spec.build()
    until = time.monotonic() + 60.0 * minutes
    for done, row in enumerate(mine):
        if time.monotonic() > until:
            return len(mine) - done
        recipe = preparation.space.decode(points[row])
        *results, outcome = worker.evaluate(Job(Candidate(row, recipe), "search", items))
        assert isinstance(outcome, Outcome)
        assert outcome.done, outcome
        for result in reversed(results):  # the first task last: it marks the row as known
            assert isinstance(result, Answers)
            answers[row, tasks.index(result.task)] = _bits(result, items[result.task], preparation)
    answers.flush()
    return 0


def pack(parts: int) -> None:
    """Write the table of complete scratch files."""
    from evomerge.commands._prepare import prepare
    from evomerge.config import load_search_file

    tasks = tuple(prepare(load_search_file(HERE / "experts.yaml")).plan.search)
    whole = np.full((len(grid()), len(tasks), 2 * HELD_OUT), UNKNOWN, dtype=np.uint8)
    for part in range(parts):
        scratch = _scratch(part, parts, *whole.shape)
        whole[part::parts] = scratch[part::parts]
    if (unknown := int((whole == UNKNOWN).any(axis=(1, 2)).sum())) > 0:
        raise SystemExit(f"{unknown} merges are not answered yet; run again without --pack")
    search, holdout = whole[:, :, :HELD_OUT], whole[:, :, HELD_OUT:]
    np.savez_compressed(
        TABLE,
        search=np.packbits(search),
        search_shape=search.shape,
        holdout=np.packbits(holdout),
        holdout_shape=holdout.shape,
        tasks=np.array(tasks),
    )
    print(f"wrote {TABLE.name}: {len(whole)} merges, {TABLE.stat().st_size / 1024:.0f} KiB")


def _scratch(part: int, parts: int, rows: int, tasks: int, width: int) -> Any:
    path = HERE / f"experts-{part}-of-{parts}.partial"
    if not path.exists():
        np.full((rows, tasks, width), UNKNOWN, dtype=np.uint8).tofile(path)
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=(rows, tasks, width))


def _bits(result: Any, items: tuple[str, ...], preparation: Any) -> np.ndarray:
    from evomerge.scoring import values_of

    objective = next(one for one in preparation.objectives if one.task == result.task)
    values = values_of(result.responses, objective)
    bits = np.array([values[item] for item in items])
    assert set(np.unique(bits)) <= {0.0, 1.0}, "a bit per answer is not enough for this metric"
    return bits.astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1e9, help="of wall clock, after which it stops; run it again")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1, help="processes that share the work; each is given its --part")
    parser.add_argument("--pack", action="store_true", help="make experts.npz of what all parts have answered")
    given = parser.parse_args()
    if given.pack:
        pack(given.parts)
        return
    left = fill(given.part, given.parts, given.minutes)
    print(f"part {given.part} of {given.parts}: {left} merges left")


if __name__ == "__main__":
    main()
