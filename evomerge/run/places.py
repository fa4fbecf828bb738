"""Where a run works and where it is kept: its pool of workers, its run folder, the copies of its archive."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.archive import FILE_NAME, Archive
from evomerge.archive.lock import WriterLock
from evomerge.archive.mirror import URI_FILE, Beside, Keep, Keeper, Mirror, mirror_of, restore
from evomerge.archive.recovery import recover
from evomerge.archive.schema import ArchiveDamaged, on_network
from evomerge.errors import InputError
from evomerge.pool.protocol import Pool
from evomerge.pool.worker import WorkerSpec

Note = Callable[[str], None]

_CODE = "confirm_run_unsafe_code"  # lm-eval's argument
_CODE_ENVIRONMENT = "HF_ALLOW_CODE_EVAL"  # what the metric behind such tasks asks for
LOG_NAME = "ray.log"  # in the run folder: what Ray's own processes say


@dataclass(frozen=True)
class Places:
    """Who works, and where the archive is mirrored to."""

    workers: int | None = None  # None with an address: as many as the cluster has room for
    address: str | None = None  # of a Ray cluster; None without workers: this process alone
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None
    use_head: bool = False  # let the cluster's head node work too
    mirror: str | None = None  # folder or fsspec URI
    allow_code_execution: bool = False  # of code that models write

    def pool(self, spec: WorkerSpec, folder: Path) -> Pool:
        """Return the pool: this process, Ray on this machine, or a cluster, whose messages go to the run folder."""
        if self.workers is None and self.address is None:
            if self.gpus_per_worker is not None or self.cpus_per_worker is not None or self.use_head:
                raise InputError("shares per worker and the head node are for Ray; give --workers or --address too")
            from evomerge.pool.runner import LocalPool

            return LocalPool(spec)
        if self.workers is not None and self.workers < 1:
            raise InputError(
                f"--workers must be at least 1, got {self.workers}; leave it out to use this process alone"
            )
        from evomerge.pool.ray_pool import start_ray_pool

        return start_ray_pool(
            replace(spec, shared=True),
            workers=self.workers,
            address=self.address,
            cpus=self.cpus_per_worker,
            gpus=self.gpus_per_worker,
            use_head=self.use_head,
            secrets=[*key_names(spec), *([_CODE_ENVIRONMENT] if self.allow_code_execution else [])],
            log=folder / LOG_NAME,
        )

    def consent(self, lm_eval: Mapping[str, Any]) -> dict[str, Any]:
        """Return lm-eval's arguments with the permission to run what models write, which only a flag can give.

        Raises:
            InputError: the arguments of a file ask for it, and the flag was not given.
        """
        if not self.allow_code_execution:
            if lm_eval.get(_CODE):
                raise InputError(
                    f"lm_eval.{_CODE}: a file alone cannot allow that code which a model writes is run on this "
                    "machine; add --allow-code-execution, in a sandbox without secrets"
                )
            return dict(lm_eval)
        os.environ[_CODE_ENVIRONMENT] = "1"  # read by the metric's own code when it is loaded
        return {**lm_eval, _CODE: True}


def key_names(spec: WorkerSpec) -> list[str]:
    """Return the environment variables in which a run's judges look for their keys."""
    return [measure.settings["key_env"] for measure in spec.measures if measure.settings.get("key_env")]


def reopened(folder: Path, mirror: str | None, note: Note) -> Archive:
    """Return a run's archive, for writing: as it is, recovered where it is damaged, or fetched from its mirror.

    Raises:
        RunError: there is none, another process is at it, or nothing of it is left.
    """
    mirror = mirror or mirror_of(folder)
    if mirror is not None and not (folder / FILE_NAME).exists():
        restore(mirror, folder)
        note(f"fetched the archive from {mirror}")
    try:
        return Archive.open(folder, read_only=False)
    except ArchiveDamaged:
        lock = WriterLock(folder)
        try:
            recovered = recover(folder, FILE_NAME, mirror)
        finally:
            lock.release()
        note(recovered.text())
        return Archive.open(folder, read_only=False)


@contextmanager
def kept(archive: Archive, mirror: str | None, note: Note) -> Iterator[None]:
    """Copy the archive while the search runs: beside itself, and to its mirror if it has one.

    Raises:
        InputError: the mirror cannot be used.
        RunError: the mirror cannot be written from the start; later trouble is only noted.
    """
    folder = archive.path.parent
    mirror = mirror or mirror_of(folder)
    if on_network(archive.path):
        text = "the run folder is on a network file system: the archive uses a rollback journal, which is slower"
        archive.put_event("note", None, {"text": text})
        note(text)
    keeps: list[Keep] = [Beside()]
    if mirror is not None:
        keeps.append(Mirror(mirror))
        keeps[-1].put(archive.path)
        (folder / URI_FILE).write_text(f"{mirror}\n", encoding="utf-8")
    keeper = Keeper(archive.path, keeps)
    try:
        with keeper:
            yield
    finally:
        for problem in keeper.problems:
            note(problem)
