"""Slurm and Kubernetes: what to hand to their own clients. They know your account and context, and we do not ask."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from evomerge.commands._search_options import SubmitOptions, command_line
from evomerge.commands._submit import search_command
from evomerge.commands._upload_bundle import pack
from evomerge.config import ClusterFile
from evomerge.errors import InputError, SearchFileError

CONFIG_MAP = "evomerge-search"  # the manifest's ConfigMap that holds the search file
SEARCH_KEY, MOUNT = "search.yaml", "/search"  # its key, and where the head sees it
MOST_CONFIG_BYTES = 2**20 - 4096  # Kubernetes' limit for a ConfigMap is 1 MiB, names included


def slurm_command(cluster: ClusterFile, file: str | Path, options: SubmitOptions) -> str:
    """Return the sbatch command for a search file.

    A job that Slurm starts again resumes: the script passes --resume.

    Raises:
        SearchFileError: the search file has mistakes.
        InputError: --env, which is for Ray clusters.
    """
    _refuse_env(options, "sbatch passes the whole environment on; export the variable before you type the command")
    pack(file)  # everything that it names is there: Slurm's nodes see the same folders
    stem = Path(file).stem
    words = ["sbatch", f"--job-name=evomerge-{stem}", cluster.path, str(file), options.out or f"runs/{stem}"]
    return shlex.join([*words, *_options(options)])


def rayjob_manifest(cluster: ClusterFile, file: str | Path, options: SubmitOptions) -> str:
    """Return a KubeRay manifest with a search file in its ConfigMap and the search as its entrypoint.

    Raises:
        SearchFileError: the search file has mistakes, or the manifest lacks what is filled in.
        InputError: the search needs files that a ConfigMap cannot carry.
    """
    _refuse_env(options, f"put it into the secret that {cluster.path} names")
    bundle = pack(file)
    if others := [name for name in bundle.files if name != bundle.search_file]:
        raise InputError(
            f"{file} names {len(others)} files by relative paths ({others[0]}, ...), and a ConfigMap carries the "
            "search file alone: name models by hub id, and tasks by their path in the image or on the volume"
        )
    text = Path(file).read_text(encoding="utf-8-sig")
    if len(text.encode()) > MOST_CONFIG_BYTES:
        raise InputError(f"{file} is longer than the {MOST_CONFIG_BYTES} bytes that a ConfigMap can carry")
    parts: list[Any] = [part for part in yaml.safe_load_all(Path(cluster.path).read_text(encoding="utf-8")) if part]
    config = next((part for part in parts if _is(part, "ConfigMap", CONFIG_MAP)), None)
    job = next(part for part in parts if part.get("kind") == "RayJob")
    if config is None:
        raise SearchFileError(cluster.path, [f"there is no ConfigMap {CONFIG_MAP!r} to put the search file into"])
    stem = "".join(c if c.isalnum() else "-" for c in Path(file).stem.lower()).strip("-")[:30] or "search"
    run = options.out or f"/runs/{stem}"
    config["metadata"]["name"] = job["metadata"]["name"] = f"{CONFIG_MAP}-{stem}"
    config["data"] = {**config.get("data", {}), SEARCH_KEY: text}
    for mention in _mentions(job, CONFIG_MAP):
        mention["name"] = f"{CONFIG_MAP}-{stem}"
    # a pod that is lost starts again
    options = replace(options, resume=True)
    job["spec"]["entrypoint"] = search_command(f"{MOUNT}/{SEARCH_KEY}", run, cluster, options)
    return yaml.safe_dump_all(parts, sort_keys=False, allow_unicode=True, width=1000)


def _options(options: SubmitOptions) -> list[str]:
    return command_line({"workers": options.workers, **options.given(), "seed": options.seed, "log": options.log})


def _refuse_env(options: SubmitOptions, instead: str) -> None:
    if options.env:
        raise InputError(f"--env {options.env[0]} is for Ray clusters; here, {instead}")


def _is(part: Any, kind: str, name: str) -> bool:
    return isinstance(part, Mapping) and part.get("kind") == kind and part.get("metadata", {}).get("name") == name


def _mentions(node: Any, name: str) -> list[dict[str, Any]]:
    """Return every mapping below a node that refers to the ConfigMap by name."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = [mention for child in children for mention in _mentions(child, name)]
    if isinstance(node, dict) and isinstance(node.get("configMap"), dict) and node["configMap"].get("name") == name:
        found.append(node["configMap"])
    return found
