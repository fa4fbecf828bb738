"""Check by measurement that a checkpoint with folded entry scales computes what its route computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from evomerge.checkpoints import read_layout
from evomerge.engine._assemble import Read, assemble
from evomerge.engine._fingerprint import describe
from evomerge.engine._merge_plan import TensorOp
from evomerge.engine._parameter_map import map_parameters
from evomerge.engine.route._layer_calls import stack_of
from evomerge.engine.route._routes import LayerCall
from evomerge.errors import WeightsError

# Nats per token by which log likelihoods may differ: the order of what batch sizes and kernels change anyway.
TOLERANCE = {"float64": 1e-4, "float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}
TEXTS, TOKENS, SEED = 4, 64, 20240319  # random tokens: rare ones have the smallest embeddings


@dataclass(frozen=True)
class FoldReport:
    """How a folded checkpoint compares with its route."""

    error: float  # largest difference of a token's log likelihood, nats
    tokens: int  # log likelihoods compared
    hashes: Mapping[str, str]  # tensor name -> `describe` text before folding


def check_structure(folder: Path) -> None:
    """Refuse a checkpoint whose tensors' names or shapes do not match the network that its configuration describes.

    Raises:
        WeightsError: names the first tensor without a parameter, or the parameter without a tensor.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):  # shapes only: no memory is allocated
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    try:
        map_parameters(model, read_layout(str(folder)))
    except WeightsError as error:
        raise WeightsError(
            f"route: a {config.model_type} configuration cannot express this order of layers ({error}). "
            "Keep each type of layer where the configuration expects it, or export the recipe (--as "
            "recipe)"
        ) from error


def check_fold(
    folder: Path, steps: Sequence[TensorOp], hops: Sequence[LayerCall], read: Read, revisions: Mapping[str, str]
) -> FoldReport:
    """Compare the checkpoint in a folder with the route whose scales were folded into it.

    The checkpoint is loaded once; its logits are taken, then its folded tensors are made anew without the fold, the
    scales are put in front of the layers, and the logits are taken again.

    Args:
        folder: the checkpoint, complete.
        steps: all of it.
        hops: the route.
        read: gives a parent's tensor.
        revisions: as in `assemble`.

    Raises:
        WeightsError: log likelihoods differ by more than the tolerance of the checkpoint's dtype.
    """
    from transformers import AutoModelForCausalLM

    layout = read_layout(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, layout.dtype), trust_remote_code=False)
    model.eval().requires_grad_(False)
    tokens = _tokens(model)
    exported = _scores(model, tokens)  # (texts, tokens - 1, 2), with the scales inside the weights
    views, hashes = map_parameters(model, layout), {}
    for step in steps:
        if step.fold is not None:
            plain = assemble(replace(step, fold=None), read, revisions)  # the resident model's own bits
            views[step.name].copy_(plain)
            hashes[step.name] = describe(plain)
    for module, hop in zip(stack_of(model, layout)[0], hops, strict=True):
        if hop.scale != 1.0:
            module.register_forward_pre_hook(_scaling(hop.scale))
    routed = _scores(model, tokens)
    error = float((exported - routed).abs().max())
    bound = TOLERANCE[layout.dtype]
    if not error <= bound:  # `not <=` refuses NaN too
        scales = [hop.scale for hop in hops]
        raise WeightsError(
            f"route: with its entry scales ({min(scales):g} to {max(scales):g}) folded into the weights, "
            f"log likelihoods in {layout.dtype} differ by up to {error:.2g} nats, more than {bound:g}: the "
            "epsilon of the norms or the rounding of the weights is not small beside the hidden states. "
            "Use scales nearer 1 or a wider dtype, or export the recipe (--as recipe)"
        )
    return FoldReport(error, exported.numel(), hashes)


def _tokens(model: Any) -> torch.Tensor:
    config = model.config.get_text_config()
    rows = model.get_input_embeddings().weight.shape[0]
    context = getattr(config, "max_position_embeddings", None) or TOKENS
    generator = torch.Generator().manual_seed(SEED)
    return torch.randint(0, rows, (TEXTS, min(TOKENS, context)), generator=generator)


def _scores(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Return log likelihoods (texts, tokens - 1, 2), float64: of the next token, and of the most likely one."""
    with torch.inference_mode():
        logits = model(input_ids=tokens, use_cache=False).logits[:, :-1].double()  # (texts, tokens - 1, vocabulary)
    scores = torch.log_softmax(logits, dim=-1)
    following = scores.gather(-1, tokens[:, 1:].unsqueeze(-1))  # (texts, tokens - 1, 1)
    return torch.cat([following, scores.max(dim=-1, keepdim=True).values], dim=-1)


def _scaling(scale: float) -> Any:
    return lambda module, given: (given[0] * scale, *given[1:])  # hidden states are a layer's first argument
