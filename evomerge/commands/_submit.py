"""A search on another machine: its file and what that needs go to a Ray cluster as a job, and its output comes back."""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.commands._search_options import SubmitOptions, command_line
from evomerge.commands._upload_bundle import UploadBundle, pack
from evomerge.config import ClusterFile, passed_on
from evomerge.errors import InputError

if TYPE_CHECKING:
    from evomerge.workers import JobState, RayJobs

STOP_SECONDS = 30  # between asking a job to end and killing it; a search needs a moment to record its end
_STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"  # read by the process that watches over a job
RUN_KEY, FETCH_KEY = "evomerge_run", "evomerge_fetch"  # key in a job's metadata


@dataclass(frozen=True)
class JobRequest:
    """A job, ready to be sent; everything but the values of variables can be shown."""

    name: str  # the job's id
    address: str
    run: str  # run folder on the cluster
    entrypoint: str
    bundle: UploadBundle
    variables: Mapping[str, str]  # name -> value: secrets
    install: tuple[str, ...]
    files: str | None  # folder that all nodes share, where uploads stay; None: Ray's own, which ends with the cluster
    fetch: str | None

    def to_mapping(self) -> dict[str, Any]:
        """Return what `--dry-run` shows."""
        return {
            "job": self.name,
            "address": self.address,
            "run": self.run,
            "entrypoint": self.entrypoint,
            "files": list(self.bundle.files),
            "bytes": self.bundle.bytes,
            "must_exist_there": list(self.bundle.elsewhere),
            "variables": sorted(self.variables),
            "install": list(self.install),
            "fetch": self.fetch,
        }


def job_request(file: str | Path, cluster: ClusterFile, options: SubmitOptions) -> JobRequest:
    """Return the job that a search file becomes on a Ray cluster; nothing is sent.

    Raises:
        SearchFileError: the search file has mistakes, or names something relative that is not there.
        InputError: too much to upload, or a variable is not set here.
    """
    address = options.address or cluster.address
    assert address is not None  # the caller has chosen by the kind of cluster file
    stem = Path(file).stem
    run = options.out or f"{cluster.runs.rstrip('/')}/{stem}"
    if not run.startswith(("/", "~/")):
        raise InputError(f"--out must be absolute or begin with ~/, for it is a folder of the cluster; got {run!r}")
    bundle = pack(file)
    name = f"evomerge-{''.join(c if c.isalnum() else '-' for c in stem)[:40]}-{secrets.token_hex(4)}"
    command = search_command(bundle.search_file, run, cluster, options)
    variables = passed_on(cluster, tuple(options.env))
    fetch = cluster.fetch.format(run=run, name=stem) if cluster.fetch else None
    return JobRequest(name, address, run, command, bundle, variables, cluster.install, cluster.files, fetch)


def search_command(search_file: str, run: str, cluster: ClusterFile, options: SubmitOptions) -> str:
    """Return the shell command that runs a search on a node of a cluster.

    >>> search_command("my search.yaml", "~/runs/mine", ClusterFile("x", "ray", workers=8), SubmitOptions(resume=True))
    'python -m evomerge search \\'my search.yaml\\' --out "$HOME"/runs/mine --address auto --workers 8 --resume'
    """
    start = f"python -m evomerge search {shlex.quote(search_file)} --out {quoted(run)} --address auto"
    return " ".join([start, *map(shlex.quote, command_line(search_options(cluster, options)))])


def search_options(cluster: ClusterFile, options: SubmitOptions) -> dict[str, Any]:
    """Return the options of `evomerge search` that a cluster file and the options of `submit` give; the latter win."""
    return {
        "workers": options.workers or cluster.workers,
        "gpus_per_worker": cluster.gpus,
        "cpus_per_worker": cluster.cpus,
        **options.given(),
        "seed": options.seed,
        "log": options.log,
        "resume": options.resume,
    }


def send(jobs: RayJobs, job: JobRequest) -> None:
    """Upload a job's files and start it.

    Raises:
        InputError: the job server refuses it.
    """
    with tempfile.TemporaryDirectory(prefix="evomerge-submit-") as folder:
        digest = job.bundle.lay_out(folder)
        entrypoint = f"exec {job.entrypoint}"
        if job.files is not None:
            entrypoint = _kept(f"{job.files.rstrip('/')}/{digest}", entrypoint)
        variables = {_STOP_VARIABLE: str(STOP_SECONDS), **job.variables}
        runtime_env: dict[str, Any] = {"working_dir": folder, "env_vars": variables}
        if job.install:
            runtime_env["pip"] = list(job.install)
        metadata = {RUN_KEY: job.run, **({FETCH_KEY: job.fetch} if job.fetch else {})}
        jobs.submit(entrypoint, job.name, runtime_env, metadata)


def connect(address: str) -> RayJobs:
    """Return the job server at an address.

    Raises:
        ExtraMissing: ray[default] is not installed.
        InputError: no Ray cluster answers at the address.
    """
    from evomerge.workers import RayJobs

    return RayJobs(address)


def ending(state: JobState) -> str:
    """Return what there is to say of a job that has ended: how, where its run is, how to get it."""
    run, fetch = state.metadata.get(RUN_KEY), state.metadata.get(FETCH_KEY)
    lines = [f"job {state.status.lower()}" + (f": {state.message}" if state.status == "FAILED" else "")]
    if run:
        lines.append(f"  run folder  {run} on the cluster's head")
        lines.append(f"  fetch it    {fetch or f'rsync -a HEAD:{run}/ runs/{Path(run).name}/'}")
        if state.status != "SUCCEEDED":
            lines.append("  go on       submit again with --resume")
    return "\n".join(lines)


def exit_status(state: JobState) -> int:
    """Return the exit status that the search had on the cluster; 130 for one that was stopped."""
    if state.status == "SUCCEEDED":
        return 0
    if state.status == "STOPPED":
        return 130
    return state.exit_code if state.exit_code in (2, 3, 130) else 1


def quoted(path: str) -> str:
    """Return a path for the cluster's shell, whose home is not ours.

    >>> quoted("~/my runs/a"), quoted("/shared/runs")
    ('"$HOME"\\'/my runs/a\\'', '/shared/runs')
    """
    return '"$HOME"' + shlex.quote(path[1:]) if path.startswith("~/") else shlex.quote(path)


def _kept(folder: str, command: str) -> str:
    """Return a command that first copies its files to where they stay: a later resume finds its models there again."""
    place, part = quoted(folder), quoted(f"{folder}.partial")
    copy = f"{{ rm -rf {part} && mkdir -p {part} && cp -R . {part}/ && mv {part} {place}; }}"
    return f"{{ [ -e {place} ] || {copy}; }} && cd {place} && {command}"
