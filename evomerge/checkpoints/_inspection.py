"""Facts about a model, read from its small files and its headers: shown by `check` before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.checkpoints._layout import Layout, text_config
from evomerge.checkpoints._licence import licence_of
from evomerge.checkpoints._lora_adapter import adapter_ranks

# Names that families give to one thing in their configurations.
_HEADS = ("num_attention_heads", "n_head", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")
_WIDTH = ("hidden_size", "n_embd", "d_model")


@dataclass(frozen=True)
class ModelFacts:
    """One model. None where its configuration does not say."""

    parameters: int
    layers: int
    dtype: str  # the one that most bytes have
    dtypes: tuple[str, ...]  # all that occur
    bytes: int  # on disk
    architecture: str | None
    width: int | None
    heads: int | None
    kv_heads: int | None
    head_dim: int | None
    context: int | None  # tokens
    rope: str | None  # base frequency and scaling, as text to be compared
    window: int | None  # sliding attention, in tokens
    rows: int | None  # rows of the embedding
    tokens: int | None  # size of the tokenizer's vocabulary
    tied: bool
    adapter_ranks: tuple[int, ...]  # all ranks in its LoRA adapter; empty without one
    licence: str | None

    def to_mapping(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def facts_of(layout: Layout) -> ModelFacts:
    """Return what is known of a model from its headers, configuration, tokenizer and licence."""
    config = text_config(layout.config)
    heads, width = _first(config, _HEADS), _first(config, _WIDTH)
    architectures = layout.config.get("architectures") or [layout.config.get("model_type")]
    vocabulary = layout.vocabulary()
    return ModelFacts(
        parameters=layout.parameters,
        layers=layout.layers,
        dtype=layout.dtype,
        dtypes=tuple(sorted({info.dtype for info in layout.tensors.values()})),
        bytes=layout.bytes,
        architecture=architectures[0],
        width=width,
        heads=heads,
        kv_heads=_first(config, _KV_HEADS) or heads,
        head_dim=config.get("head_dim") or (width // heads if width and heads else None),
        context=_first(config, _CONTEXT),
        rope=_rope(config),
        window=config.get("sliding_window") if config.get("use_sliding_window", True) else None,
        rows=None if layout.embedding is None else layout.tensors[layout.embedding].shape[0],
        tokens=None if vocabulary is None else len(vocabulary),
        tied=layout.tied,
        adapter_ranks=() if layout.local.adapter is None else adapter_ranks(layout.local.adapter),
        licence=licence_of(layout.folder),
    )


def problems_between(facts: Mapping[str, ModelFacts]) -> list[str]:
    """Return why weights of equal shapes would still mean different things, one sentence each. The base comes first."""
    base_name, base = next(iter(facts.items()))
    found = []
    for name, other in list(facts.items())[1:]:
        for label, ours, theirs in (
            ("attention heads", base.heads, other.heads),
            ("key-value heads", base.kv_heads, other.kv_heads),
            ("size of a head", base.head_dim, other.head_dim),
        ):
            if ours is not None and theirs is not None and ours != theirs:
                found.append(
                    f"{label}: base '{base_name}' has {ours}, '{name}' has {theirs}; their weights do not match"
                )
    return found


def warnings_between(facts: Mapping[str, ModelFacts]) -> list[str]:
    """Return differences that do not keep models from being merged but should be known. The base comes first."""
    base_name, base = next(iter(facts.items()))
    found = []
    for name, other in list(facts.items())[1:]:
        for label, ours, theirs in (
            ("architecture", base.architecture, other.architecture),
            ("rotary embedding", base.rope, other.rope),
            ("context", base.context, other.context),
            ("attention window", base.window, other.window),
            ("dtype", base.dtype, other.dtype),
        ):
            if ours is not None and theirs is not None and ours != theirs:
                found.append(f"{label}: '{base_name}' has {ours}, '{name}' has {theirs}; the result has the base's")
        if len(other.dtypes) > 1:
            found.append(f"'{name}' stores several dtypes: {', '.join(other.dtypes)}")
    return found


def _first(config: Mapping[str, Any], keys: Sequence[str]) -> int | None:
    return next((int(config[key]) for key in keys if isinstance(config.get(key), int)), None)


def _rope(config: Mapping[str, Any]) -> str | None:
    """Return base frequency and scaling in one spelling: old configurations keep them apart, new ones together."""
    together = config.get("rope_parameters")
    parts = dict(together) if isinstance(together, Mapping) else {}
    scaling = config.get("rope_scaling")
    parts |= dict(scaling) if isinstance(scaling, Mapping) else {}
    kind = parts.pop("rope_type", parts.pop("type", "default"))
    theta = parts.pop("rope_theta", config.get("rope_theta"))
    if theta is None and kind == "default" and not parts:
        return None
    rest = "".join(f", {key} {value}" for key, value in sorted(parts.items(), key=lambda item: item[0]))
    return f"{kind}" + (f", theta {float(theta):g}" if theta is not None else "") + rest
