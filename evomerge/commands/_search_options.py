# ruff: noqa: RUF009  (a field made by `option` is immutable)
"""The options of `search`, `resume` and `submit`: the command line and Python take them from the same fields.

Each option is written once, as a field with its help. The command line derives `--kebab-case` options from the fields,
and `accepts` turns the fields into the keyword arguments of a Python function. This module imports nothing heavy, so
that `evomerge --help` starts fast.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from evomerge.errors import InputError

if TYPE_CHECKING:
    from evomerge.loop import Progress
    from evomerge.workers import Pool, WorkerSpec

_CODE = "confirm_run_unsafe_code"  # lm-eval's argument
_CODE_ENVIRONMENT = "HF_ALLOW_CODE_EVAL"  # read by the metric behind tasks that run code
LOG_NAME = "ray.log"  # file in the run folder that holds the messages of Ray's own processes

_Parameters = ParamSpec("_Parameters")
_Options = TypeVar("_Options")
_Result = TypeVar("_Result")


def option(about: str, *, default: Any = None, metavar: str | None = None, group: str | None = None) -> Any:
    """Return a dataclass field that is an option of the command line and a keyword in Python.

    Args:
        about: the help text, shown by `--help` and in the Python docstring.
        default: value where the option is not given.
        metavar: placeholder of the value in `--help`; flags have none.
        group: heading under which `--help` lists the option.
    """
    return field(default=default, metadata={"help": about, "metavar": metavar, "group": group})


class Reporter:
    """Receives the progress of a search; this one is silent."""

    def note(self, text: str) -> None:
        """Show the current step, before or after the search proper.

        Args:
            text: one line.
        """

    def say(self, text: str) -> None:
        """Show a message that should stay readable; may be called from other threads.

        Args:
            text: one line.
        """
        self.note(text)

    def update(self, progress: Progress) -> None:
        """Show how far the search is.

        Args:
            progress: candidates, best, failures, busy share, time.
        """

    def close(self) -> None:
        """Leave the terminal as it was."""


@dataclass(frozen=True, kw_only=True)
class SearchLimits:
    """Budget that replaces limits of the search file; every limit counts from the very start of the run."""

    candidates: int | None = option("most candidates to evaluate in all; replaces the file's budget", metavar="N")
    hours: float | None = option("most hours of active time in all; replaces the file's", metavar="H")
    gpu_hours: float | None = option("most GPU-hours in all, whether busy or idle", metavar="H")
    deadline: str | None = option(
        "date and time at which the run must have ended, as in 2030-06-01T18:00:00+02:00", metavar="TIME"
    )
    cost: float | None = option("most money to spend in all, at the given price per GPU-hour", metavar="X")
    price: float | None = option("price of one GPU-hour, in the currency of the cost limit", metavar="X")

    def given(self) -> dict[str, Any]:
        """Return the limits that were given, by name."""
        limits = {part.name: getattr(self, part.name) for part in fields(SearchLimits)}
        return {name: value for name, value in limits.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where candidates are evaluated, where the archive is copied to, and whether generated code may run."""

    workers: int | None = option(
        "number of Ray workers; default: no Ray, candidates are evaluated in this process", metavar="N"
    )
    address: str | None = option(
        "Ray cluster: 'auto' or host:port; default: Ray on this machine where workers are given", metavar="ADDR"
    )
    gpus_per_worker: float | None = option(
        "GPUs of each worker, a fraction or a whole number; default: 1, or an equal share of this machine",
        metavar="F",
        group="workers under Ray",
    )
    cpus_per_worker: float | None = option(
        "CPUs of each worker; default: an equal share of this machine, 1 on a cluster",
        metavar="F",
        group="workers under Ray",
    )
    use_head: bool = option(
        "start workers on the cluster's head node too, where there are other nodes",
        default=False,
        group="workers under Ray",
    )
    mirror: str | None = option(
        "folder or URI (s3://..., sftp://...) to which the archive is copied while the search runs", metavar="URI"
    )
    allow_code_execution: bool = option("allow tasks to run code that models write; use a sandbox", default=False)

    def pool(self, spec: WorkerSpec, folder: Path) -> Pool:
        """Return the pool: this process, Ray on this machine, or a cluster, whose messages go to the run folder.

        Args:
            spec: what a worker evaluates with.
            folder: the run folder.

        Raises:
            InputError: options for Ray without Ray, or no workers.
        """
        if self.workers is None and self.address is None:
            if self.gpus_per_worker is not None or self.cpus_per_worker is not None or self.use_head:
                raise InputError("shares per worker and the head node are for Ray; give --workers or --address too")
            from evomerge.workers import LocalPool

            return LocalPool(spec)
        if self.workers is not None and self.workers < 1:
            raise InputError(
                f"--workers must be at least 1, got {self.workers}; leave it out to use this process alone"
            )
        from evomerge.workers import start_ray_pool

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

    def allow_code(self, lm_eval: Mapping[str, Any]) -> dict[str, Any]:
        """Return lm-eval's arguments with the permission to run generated code, which only an option can give.

        Args:
            lm_eval: the arguments of a search file.

        Raises:
            InputError: the arguments of a file ask for it, and the option was not given.
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


def command_line(options: Mapping[str, Any]) -> list[str]:
    """Return options as words of the command line; those that are None, False or empty are left out.

    >>> command_line({"gpus_per_worker": 1.0, "seed": None, "log": ["wandb:me"], "resume": True})
    ['--gpus-per-worker', '1', '--log', 'wandb:me', '--resume']
    """
    words = []
    for name, value in options.items():
        text = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words += [text] if value else []
        elif isinstance(value, (list, tuple)):
            words += [word for entry in value for word in (text, str(entry))]
        elif value is not None:
            words += [text, str(int(value) if isinstance(value, float) and value.is_integer() else value)]
    return words


def key_names(spec: WorkerSpec) -> list[str]:
    """Return the environment variables in which a run's judges look for their keys."""
    return [measure.settings["key_env"] for measure in spec.measures if measure.settings.get("key_env")]


@dataclass(frozen=True, kw_only=True)
class ResumeOptions(SearchLimits, Execution):
    """Everything that `evomerge resume` takes beside the run folder."""

    log: Sequence[str] = option(
        "show the search while it runs in tensorboard[:FOLDER], wandb[:[TEAM/]PROJECT] or mlflow[:URI]; may be given "
        "several times; a resumed search continues its logs, and 'none' stops them",
        default=(),
        metavar="TOOL[:PLACE]",
    )
    progress: Reporter | None = None  # Python only: receives the progress; None is silent


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ResumeOptions):
    """Everything that `evomerge search` takes beside the search file."""

    out: str | os.PathLike[str] | None = option("run folder to create; default: runs/<file name>", metavar="DIR")
    seed: int | None = option("random seed; replaces the file's", metavar="N")


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(SearchLimits):
    """Everything that `evomerge submit` hands on to the search that it starts."""

    out: str | None = option("run folder there; default: the cluster file's runs/<file name>", metavar="DIR")
    workers: int | None = option("number of Ray workers; replaces the cluster file's", metavar="N")
    address: str | None = option("Ray's job server; replaces the cluster file's", metavar="URL")
    seed: int | None = option("random seed; replaces the search file's", metavar="N")
    env: Sequence[str] = option(
        "name of an environment variable to pass on to the job; may be given several times", default=(), metavar="NAME"
    )
    log: Sequence[str] = option(
        "show the search in a tool, as `search --log` does; its key goes with --env, as in --env WANDB_API_KEY",
        default=(),
        metavar="TOOL[:PLACE]",
    )
    resume: bool = option("continue the run in the run folder, if there is one", default=False)


def accepts(
    options: Callable[_Parameters, _Options],
) -> Callable[[Callable[[str | Path, _Options], _Result]], Callable[Concatenate[str | Path, _Parameters], _Result]]:
    """Return a decorator that lets a function of one file and one options value take the options as keywords.

    >>> @accepts(SubmitOptions)
    ... def send(file: str | Path, options: SubmitOptions) -> str:
    ...     return f"{file} on {options.workers} workers"
    >>> send("mine.yaml", workers=2)
    'mine.yaml on 2 workers'

    Args:
        options: a dataclass of options.
    """

    def decorate(
        function: Callable[[str | Path, _Options], _Result],
    ) -> Callable[Concatenate[str | Path, _Parameters], _Result]:
        first, second = inspect.signature(function).parameters.values()

        @functools.wraps(function)
        def call(*file: Any, **keywords: Any) -> Any:
            file = (*file, keywords.pop(first.name)) if first.name in keywords else file
            return function(*file, options(**keywords))  # type: ignore[call-arg]

        own = inspect.signature(options).parameters.values()
        call.__signature__ = inspect.signature(function).replace(parameters=[first, *own])  # type: ignore[attr-defined]
        call.__doc__ = _documented(inspect.getdoc(function) or "", second.name, options)
        return call

    return decorate


def _documented(text: str, name: str, options: Any) -> str:
    """Return a docstring in which the entry of the options value is replaced by one entry for each option."""
    entries = [f"    {part.name}: {part.metadata.get('help', 'receives the progress')}." for part in fields(options)]
    lines = text.splitlines()
    place = next((index for index, line in enumerate(lines) if line.startswith(f"    {name}:")), len(lines))
    return "\n".join([*lines[:place], *entries, *lines[place + 1 :]])
