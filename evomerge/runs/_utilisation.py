"""Utilisation of the workers: time by worker and stage, cost, and the intervals in which each was busy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evomerge.archive import Archive, Event

if TYPE_CHECKING:
    import pandas as pd

WORK_COLUMNS = ("candidate", "split", "worker", "start", "end", "failed")
# columns seconds.*; a stage such as prefill.add is part of its first word
STAGES = ("load", "merge", "sanity_checks", "prefill", "decode", "score")


@dataclass
class WorkerTime:
    """What one worker did with its time, over all sessions; seconds of active time."""

    worker: str
    node: str = ""
    gpus: float = 0.0
    present: float | None = None  # None: its coming was not recorded, since it is the driver's own process
    busy: float = 0.0  # seconds spent on jobs and on loading
    lost: float = 0.0  # busy seconds whose results were lost or not needed
    done: int = 0
    failed: int = 0
    stages: dict[str, float] = field(default_factory=lambda: defaultdict(float))


def worker_times(archive: Archive) -> list[WorkerTime]:
    """Return the time of every worker that ever was, by name."""
    found: dict[str, WorkerTime] = {}

    def of(worker: str) -> WorkerTime:
        return found.setdefault(worker, WorkerTime(worker))

    for outcome in archive.outcomes():
        if not outcome.worker or outcome.worker.startswith("as "):  # 'as 7': answers copied from a duplicate recipe
            continue
        time = of(outcome.worker)
        time.done, time.failed = time.done + outcome.done, time.failed + (not outcome.done)
        time.busy += outcome.seconds + outcome.stages.get("load", 0.0)  # `seconds` excludes loading, see `Outcome`
        for stage, seconds in outcome.timed.items():
            time.stages[stage.partition(".")[0]] += seconds  # 'prefill.add' -> 'prefill'
    _follow(archive.events("worker", "retry", "resumed", "interrupted", "ended"), of, archive.seconds())
    total = archive.seconds()
    for time in found.values():
        if time.present is None:  # the driver's own worker never joins
            time.present = total
    return sorted(found.values(), key=lambda one: one.worker)


def utilisation_frame(archive: Archive) -> pd.DataFrame:
    """Return one row per worker, see `RunTables.utilisation`."""
    import pandas as pd

    rows = []
    for time in worker_times(archive):
        present = time.present or 0.0
        explained = sum(time.stages.values())
        rows.append(
            {
                "worker": time.worker,
                "node": time.node,
                "gpus": time.gpus,
                "done": time.done,
                "failed": time.failed,
                "busy": min(1.0, time.busy / present) if present else 0.0,
                "seconds.present": present,
                "seconds.busy": time.busy,
                "seconds.wait": max(0.0, present - time.busy),  # clocks of two machines can disagree by a little
                "seconds.lost": time.lost,
                **{f"seconds.{stage}": time.stages.get(stage, 0.0) for stage in STAGES},
                "seconds.other": max(0.0, time.busy - time.lost - explained),
            }
        )
    columns = ["worker", "node", "gpus", "done", "failed", "busy", "seconds.present", "seconds.busy", "seconds.wait"]
    columns += ["seconds.lost", *(f"seconds.{stage}" for stage in STAGES), "seconds.other"]
    return pd.DataFrame(rows, columns=columns)


def usage_summary(archive: Archive, price: float | None = None) -> dict[str, Any]:
    """Return the figures of the whole run for `status`.

    Args:
        archive: of the run.
        price: of one GPU-hour; a worker without a GPU of its own counts as one. None: no cost.
    """
    workers = worker_times(archive)
    present = sum(time.present or 0.0 for time in workers)
    # GPU-hours: idle time is paid for as well
    devices = sum((time.present or 0.0) * (time.gpus or 1.0) for time in workers) / 3600.0
    stages: dict[str, float] = defaultdict(float)
    for time in workers:
        for stage, seconds in time.stages.items():
            stages[stage] += seconds
    busy = sum(time.busy for time in workers)
    hours = archive.seconds() / 3600.0
    done = sum(1 for outcome in archive.outcomes() if outcome.split == "search" and outcome.number >= 0)
    layers = [outcome.layer_evaluations for outcome in archive.outcomes() if not outcome.worker.startswith("as ")]
    run, shared = sum(run for run, _ in layers), sum(shared for _, shared in layers)
    return {
        **({"layers_run": run, "layers_shared": shared} if run + shared else {}),
        "busy_share": min(1.0, busy / present) if present else None,
        "stages": {**stages, "wait": max(0.0, present - busy)},
        "lost_seconds": sum(time.lost for time in workers),
        "candidates_per_hour": done / hours if hours else None,
        "gpu_hours": devices,
        "cost": None if price is None else price * devices,
    }


def work_frame(archive: Archive) -> pd.DataFrame:
    """Return one row per evaluation, in the order in which they were finished: candidate, split, worker, start, end.

    Start and end are active seconds of the run. The end is the moment of recording, and the start lies as many seconds
    before it as the worker measured. Duplicates reuse another candidate's answers, take no time and are left out.
    """
    import pandas as pd

    moments: dict[tuple[int | None, str], list[float]] = defaultdict(list)
    for event in archive.events("finished"):
        moments[event.candidate, event.payload["split"]].append(event.seconds)
    rows = []
    for outcome in archive.outcomes():
        ends = moments[outcome.number, outcome.split]  # a resumed run can finish a candidate twice: first in, first out
        if not ends:  # recorded after the events were read: a search may go on beside us
            continue
        end = ends.pop(0)
        if outcome.seconds > 0:  # duplicates took no time
            start = max(0.0, end - outcome.seconds)
            rows.append((outcome.number, outcome.split, outcome.worker, start, end, outcome.failure is not None))
    return pd.DataFrame(rows, columns=list(WORK_COLUMNS))


def _follow(events: Iterable[Event], of: Callable[[str], WorkerTime], end: float) -> None:
    """Add up presence and lost work of workers; all that are present at a session's end leave with it."""
    since: dict[str, float] = {}  # worker -> active second at which it joined

    def leave(worker: str, seconds: float) -> None:
        if worker in since:
            of(worker).present = (of(worker).present or 0.0) + seconds - since.pop(worker)

    for event in events:
        if event.kind == "retry":
            seconds = float(event.payload.get("seconds", 0.0))
            # `worked`: measured by the worker
            of(event.payload["worker"]).busy += max(seconds, float(event.payload.get("worked", 0.0)))
            of(event.payload["worker"]).lost += seconds
        elif event.kind == "worker":
            what, worker = event.payload["what"], event.payload["worker"]
            if what == "joined":
                since[worker] = event.seconds
                of(worker).node, of(worker).gpus = event.payload["node"], float(event.payload["gpus"])
            elif what in ("lost", "left"):
                leave(worker, event.seconds)
            elif what == "wasted":
                of(worker).busy += float(event.payload["seconds"])
                of(worker).lost += float(event.payload["seconds"])
        else:  # the session ended: all workers left with it
            for worker in list(since):
                leave(worker, event.seconds)
    for worker in list(since):
        leave(worker, end)
