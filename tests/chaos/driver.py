"""A synthetic search on a cluster, in a process of its own that a test may kill.

As a program:  python -m tests.chaos.driver FOLDER ADDRESS CANDIDATES JOB_SECONDS   starts it, or resumes it
"""

from __future__ import annotations

import sys
from pathlib import Path

from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers import start_ray_pool
from tests.loop.world import OPTIMA, PARENTS, World


def world(folder: Path, candidates: int) -> World:
    return World(folder, candidates=candidates, spec=SyntheticSpec(OPTIMA, parents=PARENTS))


def main(folder: str, address: str, candidates: str, seconds: str) -> int:
    spec = SyntheticSpec(OPTIMA, parents=PARENTS, seconds=float(seconds), spread=0.5, portion=4)
    given = world(Path(folder), int(candidates))
    given.spec, given.pool = spec, lambda spec: start_ray_pool(spec, address=address)
    return 0 if given.run().finished else 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
