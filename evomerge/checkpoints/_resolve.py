"""Resolve model references: folder on this machine (or hub snapshot), adapter, and revision."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from evomerge._model_reference import HUB_ID, ModelReference, parse
from evomerge.checkpoints._file_hashes import file_hash
from evomerge.errors import ExtraMissing, WeightsError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

# What is fetched from a hub: weights that cannot run code, and the small files around them.
HUB_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")
_REVISION_DIGITS = 40
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class LocalModel:
    """Where a model lies on this machine. The folders are read, never written."""

    folder: Path
    adapter: Path | None = None
    revision: str | None = None  # commit of a hub snapshot; None for a folder
    adapter_revision: str | None = None


def parse_reference(text: str) -> ModelReference:
    """Return the parts of a model reference.

    Folders that exist may have `+` and `@` in their names, see `references`.

    Raises:
        WeightsError: empty, more than one adapter, or more than one revision of one part.

    >>> parse_reference("org/base@4f2a+org/lora")
    ModelReference(path='org/base', revision='4f2a', adapter='org/lora', adapter_revision=None)
    """
    reference = parse(text) if text else None
    if reference is None:
        raise WeightsError(
            f"model {text!r}: expected 'folder', 'org/name' or 'org/name@revision', and at most one adapter after "
            "it, as in 'model+adapter'"
        )
    return reference


def locate(reference: str, revision: str | None = None) -> LocalModel:
    """Return where a model lies: a folder as it is, a hub id through huggingface_hub's cache (downloading if allowed).

    Args:
        reference: as users write it.
        revision: commit to take where the reference is a hub id without one, such as the one that a recipe recorded.

    Raises:
        WeightsError: there is no such folder or hub id, or it holds no safetensors weights.
    """
    model = parse_reference(reference)
    folder, commit = _find(model.path, model.revision or _commit(revision, 0), f"model {reference!r}")
    _check_weights(folder, reference)  # before the adapter, so that the first mistake is named first
    if model.adapter is None:
        return LocalModel(folder, revision=commit)
    where = f"adapter of model {reference!r}"
    adapter, adapter_commit = _find(model.adapter, model.adapter_revision or _commit(revision, 1), where)
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (adapter / name).is_file():
            raise WeightsError(f"{where}: expected {name} in '{adapter}', found {_listing(adapter)}")
    return LocalModel(folder, adapter, commit, adapter_commit)


def revision_of(reference: str, local: LocalModel | None = None) -> str:
    """Return the identity of a model's weights, independent of their folder: a commit id, or 40 hex digits of a hash.

    For a hub id it is the commit; for a folder a SHA-256 over the names and contents of its configuration and
    weights files. With an adapter it is both, joined by '+'. Files are hashed once while they stay as they are
    (`file_hashes`).
    """
    local = local or locate(reference)
    revision = local.revision or _content_hash(_weights_files(local.folder))  # a commit needs no hashing
    if local.adapter is None:
        return revision
    adapter_files = [local.adapter / ADAPTER_CONFIG, local.adapter / ADAPTER_WEIGHTS]
    return f"{revision}+{local.adapter_revision or _content_hash(adapter_files)}"


def short_name(reference: str) -> str:
    """Return the name of a model for people and genes: its folder or repository, with its adapter's after a '+'.

    >>> short_name("org/base@4f2a+adapters/words")
    'base+words'
    """
    model = parse_reference(reference)
    name = Path(model.path).expanduser().resolve().name if Path(model.path).is_dir() else model.path.split("/")[-1]
    return name if model.adapter is None else f"{name}+{model.adapter.rstrip('/').split('/')[-1]}"


def _commit(revision: str | None, part: int) -> str | None:
    """Return the commit of the model (0) or adapter (1) inside a recorded revision, None where it is not known."""
    parts = (revision or "").split("+")  # base+adapter, as `revision_of` joins them
    return parts[part] if part < len(parts) and parts[part] else None


def _find(path: str, revision: str | None, where: str) -> tuple[Path, str | None]:
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder, None
    if folder.exists():
        raise WeightsError(f"{where}: expected a folder in Hugging Face layout, but '{path}' is a file")
    if not HUB_ID.fullmatch(path):
        raise WeightsError(f"{where}: no folder or hub id {path!r}; check the path")
    return _fetch(path, revision, where)


def _fetch(path: str, revision: str | None, where: str) -> tuple[Path, str]:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise ExtraMissing("huggingface_hub", "hf") from error
    try:
        folder = Path(snapshot_download(path, revision=revision, allow_patterns=list(HUB_PATTERNS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {revision!r}" if revision else ""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]  # the hub's messages span many lines
        raise WeightsError(
            f"{where}: no folder or hub id {path!r}{at}. If it is a folder, check the path; if it is on a hub, it is "
            f"neither in the local cache nor could it be fetched ({type(error).__name__}: {reason})"
        ) from error
    return folder, folder.name  # snapshots are kept in folders named after their commit


def _check_weights(folder: Path, reference: str) -> None:
    if not (folder / CONFIG).is_file():
        raise WeightsError(f"model {reference!r}: expected {CONFIG} in '{folder}', found {_listing(folder)}")
    if any(folder.glob("*.safetensors")):  # names and headers are checked by `read_layout`
        return
    if any(path for pattern in _PICKLED for path in folder.glob(pattern)):
        raise WeightsError(
            f"model {reference!r}: only safetensors weights are read, '{folder}' holds {_listing(folder)}. Convert it: "
            f'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}-safetensors')\""
        )
    raise WeightsError(f"model {reference!r}: expected *.safetensors in '{folder}', found {_listing(folder)}")


def _listing(folder: Path, most: int = 6) -> str:
    names = sorted(path.name for path in folder.iterdir())  # directory order is arbitrary
    return (", ".join(names[:most]) + (", ..." if len(names) > most else "")) or "an empty folder"


def _weights_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    return [folder / CONFIG, *([index] if index.is_file() else []), *folder.glob("*.safetensors")]


def _content_hash(files: Iterable[Path]) -> str:
    paths = sorted(files)  # the hash must not depend on directory order
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing releases the interpreter's lock
        lines = [f"{path.name}\0{found}\n" for path, found in zip(paths, pool.map(file_hash, paths), strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:_REVISION_DIGITS]
