"""Entry scales folded into weights, so that a route with scales is an ordinary checkpoint.

Let s_k be the scale on entering layer k and S_k = s_1 ... s_k. Divide the stream of hidden states behind layer k by
S_k. The scale itself is then gone: what enters layer k is what left layer k - 1. What a branch (attention, MLP) adds to
the stream must be divided by S_k, which its last linear map does, or the norm behind it. What a branch reads is S_k
times smaller than before: a norm in front of it does not notice, and without one its first linear maps are multiplied
by S_k. The final norm does not notice S_L. So for S > 0 both models compute the same function, up to

- the epsilon of the norms: RMSNorm and LayerNorm of x / S with epsilon e are those of x with S^2 e. It matters where
  the mean square of the hidden states is not much larger than S^2 e, as it may be before the first layers;
- one more rounding of the folded weights: nothing in float32, visible in 16-bit weights unless S is a power of two.

Both are measured when a model is written (`route_check`). A sign cannot be folded: norms keep it, and so would the
head.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evomerge.checkpoints import Layout, text_config
from evomerge.engine._merge_plan import Fold, TensorOp
from evomerge.engine.route._routes import LayerCall
from evomerge.errors import WeightsError, near


@dataclass(frozen=True)
class Branches:
    """Tensors that carry scale into and out of the branches of a family's layers, as patterns of names."""

    outputs: tuple[str, ...] = ()  # last linear maps, with their biases
    norms: tuple[str, ...] = ()  # norms behind a branch
    offset: float = 0.0  # such a norm multiplies by weight + offset
    inputs: tuple[str, ...] = ()  # first linear maps of branches without a norm in front
    filters: tuple[str, ...] = ()  # parts of names that pick `outputs` and nothing else, as mergekit's filters do


_GATED = Branches(
    outputs=(r"\.self_attn\.o_proj\.", r"\.mlp\.down_proj\."), filters=("self_attn.o_proj", "mlp.down_proj")
)
_EXPERTS = Branches(outputs=(*_GATED.outputs, r"\.(experts\.(\d+\.)?|shared_expert\.)(down_proj|w2)(\.|$)"))
_BEHIND = (r"\.post_attention_layernorm\.weight", r"\.post_feedforward_layernorm\.weight")
_GEMMA = Branches(norms=_BEHIND, offset=1.0)
FAMILIES: dict[str, Branches] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma"), _GATED),
    **dict.fromkeys(("mixtral", "qwen3_moe"), _EXPERTS),
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA),
    "gpt2": Branches(outputs=(r"\.attn\.c_proj\.", r"\.mlp\.c_proj\."), filters=("attn.c_proj", "mlp.c_proj")),
    "gpt_neox": Branches(outputs=(r"\.attention\.dense\.", r"\.mlp\.dense_4h_to_h\.")),
    "olmo2": Branches(norms=_BEHIND, inputs=(r"\.self_attn\.[qkv]_proj\.weight", r"\.mlp\.(gate|up)_proj\.weight")),
}


def cumulative(hops: Sequence[LayerCall]) -> list[float]:
    """Return the cumulative scales S_k, (hops,).

    Raises:
        WeightsError: a scale is zero or negative.
    """
    found, product = [], 1.0
    for index, hop in enumerate(hops):
        if hop.scale <= 0:
            what = (
                "zeroes the hidden state"
                if hop.scale == 0
                else ("flips the sign of the hidden state, which norms preserve")
            )
            raise WeightsError(
                f"route, hop {index}: an entry scale of {hop.scale:g} {what}; only positive scales can be "
                "folded into the weights of an ordinary checkpoint. Search with positive scales, or "
                "export the recipe (--as recipe)"
            )
        product *= hop.scale
        found.append(product)
    return found


def folded(steps: Sequence[TensorOp], hops: Sequence[LayerCall], layout: Layout) -> list[TensorOp]:
    """Return the merge plan, (tensors,), of a route's checkpoint with its entry scales folded in.

    Args:
        steps: of the materialised route, layers numbered in its order.
        hops: the route.
        layout: of the model that lends the names.

    Raises:
        WeightsError: a scale is not positive, or the family's layers are not known here.
    """
    if all(hop.scale == 1.0 for hop in hops):  # no family needs to be known then
        return list(steps)
    products = cumulative(hops)  # (hops,)
    family = str(text_config(layout.config).get("model_type") or layout.config.get("model_type"))
    if family not in FAMILIES:
        raise WeightsError(
            f"route: entry scales cannot be folded into a {family} model, whose layers are not known to be "
            f"scale invariant. {near(family, FAMILIES)}. Search without scales, or export the recipe (--as "
            "recipe)"
        )
    found = []
    for step in steps:
        slot = layout.layer_of(step.name)  # the route's own numbering: one layer per hop
        fold = None if slot is None or not step.method else fold_of(FAMILIES[family], step.name, products[slot])
        found.append(step if fold is None else replace(step, fold=fold))
    return found


def fold_of(branches: Branches, name: str, product: float) -> Fold | None:
    """Return how a layer's tensor changes when the hidden states behind it are divided by `product`, or None."""
    if product == 1.0:
        return None
    if any(re.search(pattern, name) for pattern in branches.outputs):
        return Fold(1.0 / product)  # an output map divides, since it adds to a stream that was divided
    if any(re.search(pattern, name) for pattern in branches.norms):
        return Fold(1.0 / product, branches.offset)
    # an input map multiplies back what no norm restores
    return Fold(product) if any(re.search(pattern, name) for pattern in branches.inputs) else None
