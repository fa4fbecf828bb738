"""One Ray for all tests of pools that need a real one; each pool takes its own workers there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package")
def running_ray() -> Iterator[None]:
    """A small Ray in which pools start and end their workers, instead of a Ray of their own each."""
    import ray

    from evomerge.workers.ray._local_cluster import PrivateRay, quiet_ray

    place = PrivateRay()
    config = {"metrics_report_interval_ms": 1000}  # as often as its figures can be seen by a test that does not wait
    try:
        with quiet_ray():
            ray.init(**place.settings(2), _system_config=config)
        yield
    finally:
        ray.shutdown()
        place.remove()
