"""A merged model as a LoRA adapter on its base: what the merge changed, factorised, with the error that this leaves.

Matrices of linear layers and embeddings become pairs of factors, by singular values, which is the best approximation
of a rank (Eckart and Young 1936). Norms and biases are small and are stored whole. What PEFT cannot hold is left out
and counted as error. Nothing is trained. Source of the idea: mergekit-extract-lora and kohya-ss/sd-scripts.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evomerge.checkpoints import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Layout,
    atomic_directory,
    check_free,
    parse_reference,
    write_text,
)
from evomerge.engine._assemble import assemble
from evomerge.engine._merge_plan import TensorOp, donor_of
from evomerge.engine._parents import Parents, find_parents, structure_difference
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

# 'auto' keeps, per matrix, the fewest singular values that hold this fraction of the sum of their squares.
AUTO_ENERGY = 0.99
REPORT_FILE = "reconstruction.json"
_PREFIX = "base_model.model."
# Above this width all singular values of a matrix take minutes; a given rank is found from random
# projections instead (Halko, Martinsson and Tropp 2011, arXiv:0909.4061). The error is computed all the same.
_EXACT_WIDTH = 2048
_OVERSAMPLING, _POWER_STEPS = 16, 6

Kind = Literal["factors", "embedding factors", "stored whole", "left out"]


@dataclass(frozen=True)
class Reconstruction:
    """Approximation error of one tensor of the merged model: factors (out, rank) and (rank, in), or a whole tensor."""

    tensor: str
    kind: Kind
    rank: int  # 0 where there are no factors
    change: float  # Frobenius norm of merged - base
    error: float  # Frobenius norm of (base + adapter) - merged


@dataclass(frozen=True)
class LoraReport:
    """What was written."""

    folder: Path
    bytes: int  # size of the adapter's weights
    tensors: tuple[Reconstruction, ...]  # one per tensor that the merge changed

    @property
    def relative_error(self) -> float:
        """Norm of all errors over the norm of all changes; 0 is exact, 1 is as far off as the base alone."""
        change = math.sqrt(sum(tensor.change**2 for tensor in self.tensors))
        return math.sqrt(sum(tensor.error**2 for tensor in self.tensors)) / change if change else 0.0

    @property
    def left_out(self) -> tuple[str, ...]:
        """Changed tensors that the adapter does not hold."""
        return tuple(tensor.tensor for tensor in self.tensors if tensor.kind == "left out")

    def to_mapping(self) -> dict[str, Any]:
        """Return the report as plain data, as it is written beside the adapter."""
        tensors = {entry.pop("tensor"): entry for entry in map(asdict, self.tensors)}
        return {"relative_error": self.relative_error, "bytes": self.bytes, "tensors": tensors}


@dataclass(frozen=True)
class _Module:
    """The part of the model that a tensor of the checkpoint belongs to."""

    name: str  # as PEFT counts them
    parameter: str  # weight or bias
    kind: str  # class of the module; 'Embedding' for all that are one


def export_lora(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    rank: int | Literal["auto"] = "auto",
    card: Callable[[LoraReport], str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LoraReport:
    """Merge a recipe and write what it changed on its base as an adapter folder that PEFT loads onto the base.

    One tensor at a time is in memory, and the factors.

    Args:
        recipe: what to merge; its base model is the adapter's.
        out: the folder to make; must not exist, or be empty.
        rank: of every matrix's factors, or 'auto': per matrix, by AUTO_ENERGY.
        card: makes the text of README.md from the report.
        progress: called with (tensors done, tensors in all).

    Raises:
        WeightsError: the recipe has no base, changes its base's structure, or has stacked experts, which PEFT holds
            in no such adapter; or the folder cannot be written.
    """
    if rank != "auto" and (not isinstance(rank, int) or isinstance(rank, bool) or rank < 1):
        raise WeightsError(f"rank must be 'auto' or a whole number of at least 1, got {rank!r}")
    check_free(Path(out))
    parents = find_parents(recipe.references(), dict(recipe.revisions))
    base = _base_of(recipe, parents)
    made = _Extraction(parents.layouts[base], rank)
    steps = [step for step in parents.steps(recipe) if step.method]  # buffers are equal in base and merge
    readers = parents.readers(recipe)
    try:
        for number, step in enumerate(steps):
            merged = assemble(step, lambda model, name: readers[model].tensor(name), parents.revisions)
            made.add(step, merged, readers[base].tensor(step.name))
            if progress is not None:
                progress(number + 1, len(steps))
    finally:
        for reader in readers.values():
            reader.close()
    return _write(Path(out), made, recipe, parents, base, card)


def rank_of(text: int | str | None) -> int | Literal["auto"]:
    """Parse a rank: a whole number, 'auto', or None, which means 'auto'.

    Raises:
        WeightsError: it is something else.
    """
    if text is None or text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise WeightsError(f"rank must be 'auto' or a whole number of at least 1, got {text!r}") from None


class _Extraction:
    """The adapter under construction; mutated by `add`."""

    def __init__(self, layout: Layout, rank: int | Literal["auto"]) -> None:
        self._modules = _modules(layout)
        self._tied = layout.tied
        self._layout = layout
        self._rank = rank
        self.weights: dict[str, Tensor] = {}  # under PEFT's names
        self.ranks: dict[str, int] = {}  # module -> rank
        self.transposed = False  # weights stored (in, out)
        self.whole: list[str] = []  # modules that are stored whole
        self.biases: dict[str, Tensor] = {}  # module -> bias
        self.report: list[Reconstruction] = []

    def add(self, step: TensorOp, merged: Tensor, base: Tensor) -> None:
        """Add the change merged - base of a step's tensor, (out, in) or (n,), to the adapter."""
        import torch

        delta = merged.to(torch.float32) - base.to(torch.float32)
        change = float(torch.linalg.vector_norm(delta, dtype=torch.float64))
        if change == 0:
            return
        module = self._modules.get(step.name)
        role = self._layout.role_of(step.name)
        if module is None:
            raise WeightsError(
                f"tensor '{step.name}': transformers joins it with others while loading, as it does with experts; PEFT "
                "has no adapter for such a part. Export the whole model instead (--as hf)"
            )
        if module.parameter == "weight" and delta.ndim == 2 and role != "router":
            if role == "vocab" and self._tied:
                # PEFT would change the embedding and leave the head that is tied to it as it was
                self.report.append(Reconstruction(step.name, "left out", 0, change, change))
                return
            self._factorise(step.name, module, delta, change, merged.dtype)
        elif module.parameter == "bias":
            self.biases[module.name] = merged
            self.report.append(Reconstruction(step.name, "stored whole", 0, change, 0.0))
        else:
            self.whole.append(module.name)
            self.weights[f"{_PREFIX}{module.name}.{module.parameter}"] = merged
            self.report.append(Reconstruction(step.name, "stored whole", 0, change, 0.0))

    def _factorise(self, name: str, module: _Module, delta: Tensor, change: float, dtype: Any) -> None:
        import torch

        embedding = module.kind == "Embedding"
        flipped = embedding or module.kind == "Conv1D"  # stored (in, out)
        left, right = _factors(delta.T if flipped else delta, self._rank)
        left, right = left.to(dtype).contiguous(), right.to(dtype).contiguous()  # (out, r), (r, in)
        made = left.to(torch.float32) @ right.to(torch.float32)
        error = float(torch.linalg.vector_norm((made.T if flipped else made) - delta, dtype=torch.float64))
        names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
        for part, factor in zip(names, (right, left), strict=True):
            self.weights[f"{_PREFIX}{module.name}.{part}"] = factor
        self.ranks[module.name] = left.shape[1]
        self.transposed |= module.kind == "Conv1D"
        kind: Kind = "embedding factors" if embedding else "factors"
        self.report.append(Reconstruction(name, kind, left.shape[1], change, error))

    def all_weights(self) -> dict[str, Tensor]:
        """Return the adapter's tensors by PEFT's names: A (r, in), B (out, r), whole tensors and biases."""
        biases = {
            f"{_PREFIX}{name}.{'base_layer.' if name in self.ranks else ''}bias": bias
            for name, bias in self.biases.items()
        }
        return {**self.weights, **biases}


def _factors(delta: Tensor, rank: int | Literal["auto"]) -> tuple[Tensor, Tensor]:
    """Return the factors (out, r) and (r, in) of a matrix, each with the root of every singular value."""
    import torch

    narrow = min(delta.shape)
    if rank != "auto" and narrow > _EXACT_WIDTH and rank + _OVERSAMPLING < narrow // 4:
        generator = torch.random.get_rng_state()
        try:
            torch.manual_seed(0)  # svd_lowrank takes no generator; the caller's is put back
            u, s, v = torch.svd_lowrank(delta, q=rank + _OVERSAMPLING, niter=_POWER_STEPS)
        finally:
            torch.random.set_rng_state(generator)
        vt = v.T
    else:
        u, s, vt = torch.linalg.svd(delta, full_matrices=False)
    if rank == "auto":
        energy = torch.cumsum(s.double() ** 2, 0)  # (singular values,), ascending
        kept = int((energy < AUTO_ENERGY * energy[-1]).sum()) + 1
    else:
        kept = min(rank, narrow)
    root = s[:kept].sqrt()  # split evenly, so that both factors have like norms
    return u[:, :kept] * root, vt[:kept] * root[:, None]


def _base_of(recipe: Recipe, parents: Parents) -> str:
    """Return the model that the adapter is for, after checking that the result has its structure."""
    if recipe.base is None:
        raise WeightsError(
            "an adapter changes a base: give the recipe a base_model, or export the whole model (--as hf)"
        )
    base = donor_of(recipe)
    if parents.layouts[base].local.adapter is not None:
        raise WeightsError(
            f"base '{base}' has an adapter itself, and an adapter on an adapter is not one of the base; export the "
            "whole model (--as hf)"
        )
    difference = structure_difference(recipe, parents, base)
    if difference is not None:
        raise WeightsError(
            f"the result's architecture differs from '{base}' ({difference}), so it cannot be an adapter; "
            "export the whole model"
        )
    return base


def _modules(layout: Layout) -> dict[str, _Module]:
    """Return the model's module for every tensor of the checkpoint that is one of its parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from evomerge.engine._parameter_map import parameter_slices

    config = AutoConfig.from_pretrained(layout.folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    # Gemma's embedding is a class of its own, derived from the usual one
    kinds = {
        name: "Embedding" if isinstance(module, torch.nn.Embedding) else type(module).__name__
        for name, module in model.named_modules()
    }
    found = {}
    for tensor, part in parameter_slices(model, layout).items():
        name, _, parameter = part.parameter.rpartition(".")
        if not part.joined:
            found[tensor] = _Module(name, parameter, kinds[name])
    return found


def _write(
    target: Path,
    made: _Extraction,
    recipe: Recipe,
    parents: Parents,
    base: str,
    card: Callable[[LoraReport], str] | None,
) -> LoraReport:
    from safetensors.torch import save_file

    if not made.ranks:
        raise WeightsError(f"the merge changes no matrix of '{base}', so the adapter would be empty")
    weights = made.all_weights()
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    report = LoraReport(target, size, tuple(made.report))
    complete = recipe.with_revisions(parents.revisions)
    with atomic_directory(target) as folder:
        save_file(weights, folder / ADAPTER_WEIGHTS, {"format": "pt"})
        _sync(folder / ADAPTER_WEIGHTS)
        texts: Mapping[str, Any] = {
            ADAPTER_CONFIG: _config(made, base, parents.layouts[base].local.revision),
            REPORT_FILE: report.to_mapping(),
            "recipe.json": complete.to_mapping(),
        }
        for name, document in texts.items():
            write_text(folder / name, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        if card is not None:
            write_text(folder / "README.md", card(report))
    return report


def _config(made: _Extraction, base: str, commit: str | None) -> dict[str, Any]:
    """Return adapter_config.json. Alpha is the rank everywhere, so the factors' product is added as it is."""
    reference = parse_reference(base)
    common = max(set(made.ranks.values()), key=list(made.ranks.values()).count)
    others = {name: rank for name, rank in made.ranks.items() if rank != common}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": reference.path,
        "revision": reference.revision or commit,
        "r": common,
        "lora_alpha": common,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(made.ranks),
        "modules_to_save": sorted(made.whole) or None,
        "bias": "all" if made.biases else "none",
        "fan_in_fan_out": made.transposed,
        "lora_dropout": 0.0,
        "use_rslora": False,
        "inference_mode": True,
    }


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
