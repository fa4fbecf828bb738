"""A PEFT LoRA adapter, added to its base one tensor at a time.

What comes out is what `PeftModel.merge_and_unload` gives, in float32 bit for bit on a CPU; the merged model is never
built. Source: LoRA, Hu et al. 2021, arXiv:2106.09685; rank-stabilised scaling, Kalajdzievski 2023, arXiv:2312.03732.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints._headers import read_header
from evomerge.checkpoints._layout import Layout, read_json
from evomerge.checkpoints._resolve import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from evomerge.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<embedding>[AB]))$")
# Variants of LoRA whose weights are not base + scale * B @ A.
_VARIANTS = (
    "use_dora",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "monteclora_config",
    "alora_invocation_tokens",
    "megatron_config",
)


@dataclass(frozen=True)
class _Factors:
    """The stored names of one module's two factors, and how their product becomes a delta of its weight."""

    a: str  # (r, in); for an embedding (r, vocabulary)
    b: str  # (out, r); for an embedding (width, r)
    scaling: float  # alpha / r, or alpha / sqrt(r)
    transposed: bool  # the weight is stored (in, out): GPT-2's Conv1D, or an embedding


class Adapter:
    """A LoRA adapter of a model whose layout is known; small, so its tensors are read on demand.

    Raises:
        WeightsError: the adapter is of another kind, or names modules that the model lacks.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder = folder
        self._config = read_json(folder / ADAPTER_CONFIG)
        self._check_kind()
        self._factors: dict[str, _Factors] = {}  # tensor of the model -> factors
        self._replacements: dict[str, str] = {}  # tensor of the model -> stored name of its full replacement
        self._sort(layout)

    @property
    def changed(self) -> frozenset[str]:
        """Names of the model's tensors that the adapter changes."""
        return frozenset((*self._factors, *self._replacements))

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """Return the model's tensor with the adapter merged in, in the dtype of `weight`; computed in float32.

        A tensor that the adapter leaves alone comes back as it is.
        """
        if name not in self.changed:
            return weight
        import torch

        dtype = weight.dtype
        if name in self._replacements:
            weight = self._stored(self._replacements[name])
        if name in self._factors:
            factors = self._factors[name]
            delta = self._stored(factors.b).to(torch.float32) @ self._stored(factors.a).to(torch.float32)
            if factors.transposed:
                delta = delta.T  # PEFT's product is (out, in), the stored weight (in, out)
            # adding in 16 bits would round small deltas away
            weight = weight.to(torch.promote_types(dtype, torch.float32)) + delta * factors.scaling
        return weight.to(dtype)

    def _stored(self, name: str) -> Tensor:
        from safetensors import safe_open

        with safe_open(self.folder / ADAPTER_WEIGHTS, framework="pt") as file:
            return file.get_tensor(name)

    def _check_kind(self) -> None:
        kind = self._config.get("peft_type")
        if kind != "LORA":
            raise WeightsError(
                f"adapter '{self.folder}': expected peft_type LORA, got {kind!r}; merge it with PEFT first"
            )
        variants = [key for key in _VARIANTS if self._config.get(key)]
        if variants:
            raise WeightsError(
                f"adapter '{self.folder}' uses {', '.join(variants)}, which is not plain LoRA; merge it with PEFT "
                "(merge_and_unload, save_pretrained) and use the result"
            )

    def _sort(self, layout: Layout) -> None:
        """Match every stored tensor with the model's tensor that it changes."""
        infos = read_header(self.folder / ADAPTER_WEIGHTS)
        pairs: dict[str, dict[str, str]] = {}
        for stored in infos:
            if match := _FACTOR.match(stored):
                letter = match["linear"] or match["embedding"]
                name = self._target(match["module"] + ".weight", layout, stored)
                pairs.setdefault(name, {})[letter] = stored
            else:
                self._replacements[self._target(stored, layout, stored)] = stored
        for name, pair in pairs.items():
            if set(pair) != {"A", "B"}:
                raise WeightsError(
                    f"adapter '{self.folder}': expected lora_A and lora_B of '{name}', found {sorted(pair)}"
                )
            shapes = {letter: infos[stored].shape for letter, stored in pair.items()}
            self._factors[name] = self._factors_of(name, pair, shapes, layout)
        for name, stored in self._replacements.items():
            if infos[stored].shape != layout.tensors[name].shape:  # modules_to_save replace a tensor whole
                raise self._misfit(name, infos[stored].shape, layout)

    def _factors_of(
        self, name: str, pair: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], layout: Layout
    ) -> _Factors:
        rank = shapes["A"][0]
        product = (shapes["B"][0], shapes["A"][1])
        expected = layout.tensors[name].shape
        embedding = "lora_embedding_" in pair["A"]
        # a square weight does not tell its orientation, so the adapter's own word comes first
        transposed = embedding or bool(self._config.get("fan_in_fan_out")) or product != expected
        if transposed and not embedding and product[::-1] != expected:
            transposed = False  # the adapter's word is about Conv1D; a linear head beside them is stored (out, in)
        if (product[::-1] if transposed else product) != expected or shapes["B"][1] != rank:
            raise self._misfit(name, product, layout)
        alpha = _by_pattern(self._config.get("alpha_pattern") or {}, pair["A"], self._config.get("lora_alpha", 8))
        scaling = alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)
        return _Factors(pair["A"], pair["B"], scaling, transposed)

    def _target(self, stored: str, layout: Layout, key: str) -> str:
        name = stored.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")
        # the hub's GPT-2 and its relatives store their tensors without the prefix that the model's modules have
        for candidate in (name, name.split(".", 1)[-1]):
            if candidate in layout.tensors:
                return candidate
        tied = " (its output head is tied to the embedding)" if layout.tied and "head" in name else ""
        raise WeightsError(
            f"adapter '{self.folder}': tensor '{key}' has no place in model '{layout.local.folder}'{tied}; "
            f"the adapter was made for '{self._config.get('base_model_name_or_path')}'"
        )

    def _misfit(self, name: str, shape: tuple[int, ...], layout: Layout) -> WeightsError:
        model = f"'{layout.local.folder}' is {layout.tensors[name].shape}"
        return WeightsError(f"tensor '{name}': {model}, adapter '{self.folder}' is {shape}")


def adapter_ranks(folder: Path) -> tuple[int, ...]:
    """Return the ranks that occur in an adapter, ascending, from its file's header."""
    infos = read_header(folder / ADAPTER_WEIGHTS)
    found = set()
    for name, info in infos.items():
        match = _FACTOR.match(name)
        if match and "A" in (match["linear"], match["embedding"]):
            found.add(info.shape[0])
    return tuple(sorted(found))


def _by_pattern(patterns: Mapping[str, Any], stored: str, default: float) -> float:
    """Return the value whose pattern fits the end of a module's name, as PEFT matches them."""
    module = _FACTOR.match(stored)["module"].removeprefix(_PREFIX)  # type: ignore[index]
    return float(next((v for key, v in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default))
