"""Workers and pools: who evaluates candidates, in this process or on a Ray cluster.

Scheduling, retries, timeouts and failures; `ray/` is the only place that imports ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.workers._pool_protocol import Arrival, Pool, PoolEvent, Retry
    from evomerge.workers._runner import LocalPool
    from evomerge.workers._secrets import hide
    from evomerge.workers._worker import WorkerSpec
    from evomerge.workers.ray._jobs import JobState, RayJobs
    from evomerge.workers.ray._pool import start_ray_pool

__all__ = [
    "Arrival",
    "JobState",
    "LocalPool",
    "Pool",
    "PoolEvent",
    "RayJobs",
    "Retry",
    "WorkerSpec",
    "hide",
    "start_ray_pool",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
