"""A fitness function of the user's own: found by its import path, called with the model, checked in what it returns."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from evomerge.candidate import Response
from evomerge.errors import CandidateError, InfrastructureError, InputError, TaskError, near
from evomerge.scoring._rng import temporary_seed
from evomerge.scoring.metrics._metric import Measure, ModelInterface

SCORE = "score"
WHOLE = "whole"  # metric, 1 per item: the score is one number for all items together
SEED = 1234  # seeds the global generators while a function runs, so that it gives the same number twice


@dataclass(frozen=True)
class Asked:
    """What a fitness function is given; the model must be left as it was found."""

    model: Any  # transformers model with the candidate's weights, in evaluation mode, gradients off
    tokenizer: Any  # the merged model's tokenizer
    items: tuple[str, ...]  # names of what is asked, in order; one where no prompts or items are declared
    prompts: tuple[str, ...] = ()  # one per item, where the search file names prompts
    texts: tuple[str, ...] = ()  # the model's greedy answers to them


@dataclass(frozen=True)
class Function:
    """An imported function, with the hash of the file that it came from."""

    call: Callable[[Asked], Any]
    file: str
    digest: str


_imported: dict[tuple[str, str], Function] = {}  # keyed by path and folder; imported again where the file has changed


def version(settings: Mapping[str, Any]) -> list[str]:
    """Return the digest of the function's file, which is part of the measure's version."""
    return [read_function(settings["function"], settings["folder"]).digest]


def read_function(path: str, folder: str) -> Function:
    """Return the function 'package.module:function'; modules beside the search file, in `folder`, come first.

    Raises:
        TaskError: the path has another form, or module or function do not exist, or importing fails.
    """
    known = _imported.get((path, folder))
    if known is None or _digest(known.file) != known.digest:
        known = _imported[path, folder] = _import(path, folder)
    return known


def _import(path: str, folder: str) -> Function:
    module_name, colon, name = path.partition(":")
    if not (colon and name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise TaskError(f"python must be package.module:function, as in my_fitness:score, got {path!r}")
    try:
        with _importing_from(folder):
            module = _module(module_name, folder)
    except ModuleNotFoundError as error:
        raise TaskError(f"python {path!r}: no module {error.name!r}, neither in {folder} nor installed") from error
    except Exception as error:  # the user's code runs while it is imported and may raise anything
        raise TaskError(f"python {path!r}: importing failed with {type(error).__name__}: {error}") from error
    call = getattr(module, name, None)
    if not callable(call):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise TaskError(f"python {path!r}: {module_name} has no function {name!r}. {near(name, known)}")
    _check_signature(path, call)
    file = str(module.__file__)
    return Function(call, file, _digest(file))


def _digest(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # built in, or in an archive
        return file


def ask(
    measure: Measure, items: Sequence[str], documents: Sequence[Mapping[str, Any]], interface: ModelInterface
) -> list[Response]:
    """Return what the user's function says of the resident model.

    One number for everything is kept with each item, marked as whole; numbers per item are kept as they are.

    Raises:
        CandidateError: the function raised, or a number is not finite; the traceback is in the cause.
        TaskError: what it returned is neither a number nor one number per item.
    """
    settings = measure.settings
    prompts = tuple(document["prompt"] for document in documents) if settings["prompts"] else ()
    written = interface.write(measure.name, prompts, settings["max_tokens"], settings["until"]) if prompts else []
    asked = Asked(interface.model, interface.tokenizer, tuple(items), prompts, tuple(answer.text for answer in written))
    function = read_function(settings["function"], settings["folder"])
    result = _called(settings["function"], function.call, asked, settings["folder"])
    numbers = _numbers(settings["function"], result, asked.items)
    whole = _number(result) is not None
    texts = asked.texts or ("",) * len(items)
    responses = [
        Response(measure.name, item, SCORE, numbers[item], text[:200]) for item, text in zip(items, texts, strict=True)
    ]
    return responses + [Response(measure.name, item, WHOLE, 1.0) for item in items if whole]


def _called(path: str, call: Callable[[Asked], Any], asked: Asked, folder: str) -> Any:
    import torch

    try:
        with temporary_seed(SEED, SEED, SEED), _importing_from(folder), torch.no_grad():
            return call(asked)
    except (CandidateError, InfrastructureError, InputError, MemoryError, torch.OutOfMemoryError):
        raise  # the function's author chose a kind, or the machine is at fault
    except Exception as error:  # anything that the user's code raises belongs to this candidate
        raise CandidateError(f"python {path!r} raised {type(error).__name__}: {error}") from error
    finally:
        asked.model.eval()


def _numbers(path: str, result: Any, items: Sequence[str]) -> dict[str, float]:
    """Return a finite number per item."""
    whole = _number(result)
    if whole is not None:
        values = dict.fromkeys(items, whole)
    elif isinstance(result, Mapping):
        given = {str(key): _number(value) for key, value in result.items()}
        if set(given) != set(items):
            raise TaskError(
                f"python {path!r} returned scores for {len(given)} items, expected those of asked.items: "
                f"{', '.join(list(items)[:3])}, ... ({len(items)})"
            )
        values = _complete(path, given)
    else:
        values = _complete(path, dict(zip(items, _listed(path, result, len(items)), strict=True)))
    for item, value in values.items():
        if not math.isfinite(value):
            raise CandidateError(f"python {path!r} returned {value} for item {item!r}, not a finite number")
    return values


def _listed(path: str, result: Any, count: int) -> list[float | None]:
    listed = result.tolist() if hasattr(result, "tolist") else result
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        raise TaskError(
            f"python {path!r} must return a number, a list with one number per item, or a mapping from item to number; "
            f"got {type(result).__name__}"
        )
    if len(listed) != count:
        raise TaskError(
            f"python {path!r} returned {len(listed)} scores for {count} items; return one number for all, or one per "
            "item of asked.items (declare them in the search file with items: N or prompts: FILE)"
        )
    return [_number(value) for value in listed]


def _complete(path: str, given: Mapping[str, float | None]) -> dict[str, float]:
    for item, value in given.items():
        if value is None:
            raise TaskError(f"python {path!r}: the score of item {item!r} is not a number")
    return {item: value for item, value in given.items() if value is not None}


def _number(value: Any) -> float | None:
    """Return a number of Python, NumPy or torch as float; None for anything else."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        plain = value.item()
        return float(plain) if isinstance(plain, (bool, int, float)) else None
    return None


def _check_signature(path: str, call: Callable[..., Any]) -> None:
    try:
        inspect.signature(call).bind(object())
    except TypeError:
        raise TaskError(
            f"python {path!r} must take one argument (see evomerge.scoring.metrics._python_function.Asked)"
        ) from None
    except ValueError:  # a built-in without a signature
        return


def _module(name: str, folder: str) -> ModuleType:
    """Return a module; one beside the search file is read afresh, since its text may have changed in a notebook."""
    file = Path(folder, *name.split(".")).with_suffix(".py")
    if "." in name or not file.is_file():
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        return importlib.import_module(name)
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module  # dataclasses and pickle look a module up by its name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is not None:
            sys.modules[name] = before
        else:
            del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importing_from(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
