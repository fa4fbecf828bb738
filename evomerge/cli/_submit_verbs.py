"""The verb that runs a search somewhere else: submit, follow, stop."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from evomerge.cli._argparse_options import add_options, given
from evomerge.cli._search_verbs import run_search
from evomerge.cli._verb import DONE, INTERRUPTED, verb
from evomerge.commands import SubmitOptions
from evomerge.errors import InputError


def add_submit(verbs: Any) -> None:
    """Add the verb `submit`."""
    parser = verb(
        verbs,
        "submit",
        "run a search where a cluster file says: here, on a Ray cluster, or by Slurm or Kubernetes",
        """
evomerge submit mine.yaml --cluster clusters/laptop.yaml
evomerge submit mine.yaml --cluster clusters/my_cluster.yaml        upload, start, follow
evomerge submit mine.yaml --cluster clusters/my_cluster.yaml --no-follow
evomerge submit --follow JOB --cluster clusters/my_cluster.yaml     look again
evomerge submit --stop JOB --cluster clusters/my_cluster.yaml       everything measured is saved
evomerge submit mine.yaml --cluster clusters/my_cluster.yaml --resume
evomerge submit mine.yaml --cluster clusters/slurm.sh               says what to type
evomerge submit mine.yaml --cluster clusters/kuberay.yaml | kubectl apply -f -
""",
        _run_submit,
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="search file (YAML)")
    parser.add_argument("--cluster", metavar="C", required=True, help="cluster file; see clusters/ for one per place")
    add_options(parser, SubmitOptions)
    parser.add_argument(
        "--dry-run", action="store_true", help="print the job that would be submitted, and submit nothing"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--no-follow", action="store_true", help="return once the job is submitted, without following its output"
    )
    kind.add_argument("--follow", metavar="JOB", help="show the output of a submitted job until it ends")
    kind.add_argument("--stop", metavar="JOB", help="stop a job, and wait until it has saved its results and ended")


def _run_submit(arguments: argparse.Namespace) -> int:
    from evomerge.config import load_cluster_file

    cluster = load_cluster_file(arguments.cluster)
    if arguments.follow or arguments.stop:
        return _look_after(arguments, cluster)
    if arguments.file is None:
        raise InputError("FILE is missing: a search file, or --follow JOB or --stop JOB in its place")
    options = SubmitOptions(**given(arguments, SubmitOptions))
    if cluster.kind == "slurm":
        from evomerge.commands import slurm_command

        print(slurm_command(cluster, arguments.file, options))
        _say("type this on a login node; afterwards `squeue --me` looks, and `scancel JOB` stops")
        return DONE
    if cluster.kind == "rayjob":
        from evomerge.commands import rayjob_manifest

        print(rayjob_manifest(cluster, arguments.file, options), end="")
        _say("pipe this into `kubectl apply -f -`; `kubectl get rayjob` looks, `kubectl delete rayjob NAME` stops")
        return DONE
    if cluster.kind == "here" and arguments.address is None:
        return _search_here(arguments, cluster, options)
    return _send(arguments, cluster, options)


def _search_here(arguments: argparse.Namespace, cluster: Any, options: SubmitOptions) -> int:
    from pathlib import Path

    from evomerge.commands import search_options

    if arguments.no_follow or arguments.dry_run or options.env:
        raise InputError(
            f"{cluster.path} has no address, so the search runs in this process, with its environment: leave out "
            "--no-follow, --dry-run and --env, or start Ray here (ray start --head) and add --address http://127.0.0.1:8265"
        )
    found = search_options(cluster, options)
    found["out"] = options.out or f"{cluster.runs.rstrip('/')}/{Path(arguments.file).stem}"
    resume = found.pop("resume")
    return run_search(arguments.file, found, resume=resume)


def _send(arguments: argparse.Namespace, cluster: Any, options: SubmitOptions) -> int:
    from evomerge.commands import connect, job_request, send

    job = job_request(arguments.file, cluster, options)
    if arguments.dry_run:
        print(json.dumps(job.to_mapping(), indent=2))
        return DONE
    for path in job.bundle.elsewhere:
        _say(f"not uploaded, must exist on the cluster: {path}")
    jobs = connect(job.address)
    send(jobs, job)
    _say(f"{job.name} started, {len(job.bundle.files)} files uploaded ({job.bundle.bytes / 2**20:.1f} MiB)")
    _hint(arguments, job.name)
    if arguments.no_follow:
        print(job.name)
        return DONE
    return _follow(arguments, jobs, job.name)


def _look_after(arguments: argparse.Namespace, cluster: Any) -> int:
    """Follow or stop a job that was submitted before."""
    from evomerge.commands import STOP_SECONDS, connect, ending

    address = arguments.address or cluster.address
    if address is None:
        client = {"slurm": "squeue, scancel", "rayjob": "kubectl get rayjob, kubectl delete rayjob"}.get(cluster.kind)
        raise InputError(
            f"{cluster.path} is of no Ray cluster that could be asked for a job"
            + (f"; use {client}" if client else "; a search here ends with Ctrl-C")
        )
    jobs = connect(address)
    if arguments.follow:
        return _follow(arguments, jobs, arguments.follow)
    if not jobs.stop(arguments.stop):
        _say(f"{arguments.stop} had ended before")
    state = jobs.wait(arguments.stop, STOP_SECONDS + 15)
    print(ending(state))
    return DONE if state.ended else 1


def _follow(arguments: argparse.Namespace, jobs: Any, name: str) -> int:
    """Show the output of a job; Ctrl-C detaches and asks whether to cancel the job."""
    from evomerge.commands import ending, exit_status

    try:
        state = jobs.follow(name, _write)
    except KeyboardInterrupt:
        if not _wants_to_stop(name):
            _say(f"{name} goes on")
            _hint(arguments, name)
            return INTERRUPTED
        jobs.stop(name)
        state = jobs.follow(name, lambda text: None)
    print(ending(state))
    return exit_status(state)


def _wants_to_stop(name: str) -> bool:
    """Ask whether to cancel the job, in an interactive shell only; a second Ctrl-C means no."""
    if not sys.stdin.isatty():
        return False
    try:
        return input(f"\nstop {name} as well? [y/N] ").strip().lower() in ("y", "yes")
    except (KeyboardInterrupt, EOFError):
        return False


def _hint(arguments: argparse.Namespace, name: str) -> None:
    where = f"--cluster {arguments.cluster}" + (f" --address {arguments.address}" if arguments.address else "")
    _say(f"look again:  evomerge submit --follow {name} {where}")
    _say(f"stop it:     evomerge submit --stop {name} {where}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    print(f"evomerge: {text}", file=sys.stderr, flush=True)
