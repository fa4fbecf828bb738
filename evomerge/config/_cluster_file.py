"""Cluster files: where a search runs, which run folder it writes, and which secrets it may see.

Four kinds of files describe a place, distinguished by their keys: evomerge's own (the model below), Ray's cluster YAML
(`ray up`), a KubeRay RayJob, and a Slurm batch script. Only the first is ours to check.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field

from evomerge.config._section_base import (
    AtLeastOne,
    Context,
    Section,
    Text,
    Whole,
    example,
    json_schema,
    read_section,
    setting,
    shown,
)
from evomerge.config._yaml_lines import read_document, read_text
from evomerge.errors import InputError, SearchFileError
from evomerge.space import Problem, located

Kind = Literal["here", "ray", "rayjob", "slurm"]
# Where the tunnel that `ray dashboard CLUSTER.yaml` opens ends on this machine.
TUNNEL = "http://127.0.0.1:8265"
RUNS = "~/runs"  # on clusters that Ray's cluster launcher made, which have one home per node
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"must begin with http:// or https:// and name Ray's job server (port 8265), got {value!r}")
    if "@" in parts.netloc:
        raise ValueError("must hold no user or password; set RAY_AUTH_TOKEN instead")
    return value


def _variable(value: str) -> str:
    if not VARIABLE.fullmatch(value):
        # the entry itself may be a secret written here by mistake, so the message does not repeat it
        text = "must be the name of an environment variable, as in HF_TOKEN; its value is never written to a file"
        raise ValueError(text)
    return value


def _command(value: str) -> str:
    try:
        value.format(run="r", name="n")
    except (KeyError, IndexError, ValueError):
        raise ValueError(f"may hold {{run}} and {{name}} in braces and nothing else, got {value!r}") from None
    return value


class ClusterSection(Section):
    """A cluster file of evomerge's own kind."""

    model_config = shown(address="http://head:8265", workers=8, runs="/shared/runs")
    address: Annotated[Text, AfterValidator(_address)] | None = setting(
        None, "of Ray's job server, as in http://head:8265; default: this machine", "URL"
    )
    workers: Whole | None = setting(None, "default: one per GPU, or per CPU where there are none", ge=1)
    gpus: float | None = setting(
        None, "per worker; 0.5 lets two workers share one; default: one each where there are any", ge=0
    )
    cpus: Whole | None = setting(None, "per worker, also its number of threads; default: 1 on a cluster", ge=1)
    runs: Text = setting("runs", "on the cluster, in which run folders are made", "folder")
    files: Text | None = setting(
        None, "that all nodes share, where uploads stay; default: until the cluster ends", "folder"
    )
    env: Annotated[tuple[Annotated[Text, Field(title="name"), AfterValidator(_variable)], ...], AtLeastOne] = setting(
        (), "names of variables to pass on from your environment", examples=[["HF_TOKEN"]]
    )
    install: Annotated[tuple[Annotated[Text, Field(title="requirement")], ...], AtLeastOne] = setting(
        (), "pip installs these on every node first", examples=[["evomerge[all]"]]
    )
    fetch: Annotated[Text, AfterValidator(_command)] | None = setting(
        None, "that copies a run folder to you; {run} and {name} are filled in", "command"
    )

    def rules(self, wrong: Set[str], context: Context) -> Iterator[Problem]:
        """Yield what does not fit this machine, or a cluster."""
        if "address" in wrong:
            return
        if self.address is None:
            for key in ("files", "env", "install", "fetch"):
                if getattr(self, key) or key in wrong:
                    yield Problem((key,), "is of a cluster, and this file has no address; leave it out")
            return
        if "runs" not in wrong and not self.runs.startswith(("/", "~/")):
            text = f"must be absolute or begin with ~/: a job's own folder is removed after it; got {self.runs!r}"
            yield Problem(("runs",), text)
        if self.files is not None and not self.files.startswith("/"):
            yield Problem(("files",), f"must be absolute: all nodes see it there, got {self.files!r}")


@dataclass(frozen=True)
class ClusterFile:
    """One place to run searches."""

    path: str
    kind: Kind
    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    cpus: int | None = None
    runs: str = "runs"
    files: str | None = None
    env: tuple[str, ...] = ()  # names; values are never in a file
    install: tuple[str, ...] = ()
    fetch: str | None = None


def load_cluster_file(path: str | os.PathLike[str]) -> ClusterFile:
    """Return what a cluster file says.

    Raises:
        SearchFileError: the file is missing or is none of the four kinds, or, where it is ours, has mistakes; all of
            them are listed, with lines.
    """
    name = os.fspath(path)
    text = read_text(name, "; see clusters/ for examples")
    if text.startswith("#!"):
        if "#SBATCH" not in text:
            raise SearchFileError(name, ["line 1: a script without #SBATCH lines is no Slurm batch script"])
        return ClusterFile(name, "slurm")
    for part in _parts(text):
        if isinstance(part, Mapping) and part.get("kind") == "RayJob":
            return _of_kuberay(name, part)
    document = read_document(text)
    problems = list(document.problems)
    if document.value is None and not problems:
        return ClusterFile(name, "here")  # an empty file, or comments alone: this machine with every default
    if isinstance(document.value, Mapping) and "cluster_name" in document.value:
        return _of_ray(name, document.value)
    if not isinstance(document.value, Mapping):
        if document.value is not None:
            text = f"must be a mapping, as in {example(json_schema(ClusterSection))}, got {document.value!r}"
            problems.append(Problem((), text))
        raise SearchFileError(name, located(problems, document.lines))
    content = read_section(ClusterSection, document.value, "", problems)
    if problems:
        raise SearchFileError(name, located(problems, document.lines))
    return ClusterFile(name, "ray" if content.address else "here", **dict(content))


def _of_kuberay(name: str, content: Mapping[str, Any]) -> ClusterFile:
    """Return what a RayJob says: as many workers as its pods can have GPUs, none of which may be up yet."""
    gpus = 0
    with suppress(AttributeError, TypeError, KeyError, ValueError, IndexError):  # Kubernetes says what is wrong with it
        for group in content["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            gpus += int(limits.get("nvidia.com/gpu", 0)) * int(group["maxReplicas"])
    return ClusterFile(name, "rayjob", None, gpus or None, 1.0 if gpus else None)


def _of_ray(name: str, content: Mapping[str, Any]) -> ClusterFile:
    """Return what Ray's cluster YAML says: as many workers as its nodes can have GPUs, none of which may be up yet."""
    gpus = 0
    with suppress(AttributeError, TypeError):  # `ray up` says what is wrong with it
        for kind in content["available_node_types"].values():
            gpus += int(kind.get("resources", {}).get("GPU", 0)) * int(kind.get("max_workers", 0))
    fetch = f"ray rsync-down {name} '{{run}}/' runs/{{name}}/"
    return ClusterFile(name, "ray", TUNNEL, gpus or None, 1.0 if gpus else None, runs=RUNS, fetch=fetch)


def passed_on(cluster: ClusterFile, extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Return the variables that a cluster file, and `--env`, pass on, with their values from this environment.

    Raises:
        InputError: one is not set here, or is no name.
    """
    names = dict.fromkeys([*cluster.env, *extra])
    if any(not VARIABLE.fullmatch(name) for name in names):
        raise InputError("--env must be the name of an environment variable, as in HF_TOKEN, without a value")
    if missing := [name for name in names if name not in os.environ]:
        raise InputError(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set here, and {cluster.path} or --env "
            "passes them on; export them, or leave them out"
        )
    return {name: os.environ[name] for name in names}


def _parts(text: str) -> list[Any]:
    """Return the documents of a YAML stream, or nothing where it is none: `read_document` then says what is wrong."""
    try:
        return list(yaml.safe_load_all(text))
    except (yaml.YAMLError, RecursionError):
        return []
