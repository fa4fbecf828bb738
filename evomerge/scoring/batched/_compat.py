"""Compatibility of a model with packing and caching: reasons to fall back to lm-eval's own adapter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from evomerge.errors import CandidateError
from evomerge.scoring.batched._generation import trial_steps
from evomerge.scoring.batched._likelihood import PackedBatches, plain_scores
from evomerge.scoring.batched._packing import Likelihood, pack_sequences

# Settings of a model's generation config that change greedy answers, with the values that do not.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "max_new_tokens": (None,),
    "max_time": (None,),
    "bad_words_ids": (None,),
    "suppress_tokens": (None,),
    "begin_suppress_tokens": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "sequence_bias": (None,),
    "guidance_scale": (None, 1.0),
    "penalty_alpha": (None, 0.0),
    "prompt_lookup_num_tokens": (None,),
    "watermarking_config": (None,),
    "stop_strings": (None,),
}
TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}  # relative, of a log likelihood; others below
COARSE = 2e-2  # for bfloat16 and float16
UNBOUNDED = 1 << 30  # tokens: the trial is one row
TRIAL_STEPS = 3  # tokens that are written to compare cached steps with plain passes
# Exceptions of models that do not support masks, positions or caches of this form.
_REFUSALS = (TypeError, ValueError, AttributeError, IndexError, RuntimeError, NotImplementedError)


def architecture_fallback_reason(model: Any, longest: int) -> str | None:
    """Return why a model's architecture rules out shared prefixes over `longest` tokens, or None."""
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    if getattr(model.config, "is_encoder_decoder", False):
        return "encoder-decoder model"
    kind = getattr(config, "_attn_implementation", None)
    if kind not in (None, "sdpa", "eager"):
        return f"attention implementation {kind!r} takes no mask of its own"
    layers = set(getattr(config, "layer_types", None) or ())
    strange = layers - {"full_attention", "sliding_attention"}
    if strange:
        return f"layers of type {', '.join(sorted(strange))}"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in layers if layers else getattr(config, "use_sliding_window", True)
    if window and slides and longest > window:
        return f"texts of {longest} tokens exceed the sliding window of {window}"
    return None


def packing_fallback_reason(model: Any, sequences: Sequence[Likelihood], device: torch.device) -> str | None:
    """Return how a model's packed answers differ from its plain ones, or None where they agree.

    The longest, the shortest and a middle sequence are asked both ways.

    Raises:
        CandidateError: the plain answers are not finite; nothing can be said about the model's make then.
    """
    by_length = sorted(sequences, key=lambda sequence: len(sequence.inputs))
    chosen = list(dict.fromkeys([by_length[-1], by_length[0], by_length[len(by_length) // 2]]))
    plain = plain_scores(model, chosen, device)
    _demand_finite(plain)
    try:
        packed = PackedBatches(pack_sequences(_with_neighbours(chosen), UNBOUNDED, UNBOUNDED), device).score(model)
    except _REFUSALS as error:
        return f"the model does not take packed sequences ({type(error).__name__}: {str(error).splitlines()[0]})"
    bound = TOLERANCE.get(model.dtype, COARSE)
    for sequence, expected, (value, _) in zip(chosen, plain, packed, strict=False):
        if not abs(value - expected) <= bound * (1 + abs(expected) + 0.1 * len(sequence.targets)):
            return f"packed sequences give log likelihood {value:.6g} where plain ones give {expected:.6g}"
    return None


def generation_fallback_reason(model: Any, arguments: Mapping[str, Any]) -> str | None:
    """Return why greedy writing here would differ from the model's own `generate`, or None."""
    if arguments.get("do_sample"):
        return "answers are sampled"
    ignored = {"do_sample", "temperature", "top_p", "top_k", "min_p", "typical_p"}  # for sampling only
    for name, value in arguments.items():
        if name not in ignored and value not in NEUTRAL.get(name, ()):
            return f"generation argument {name}={value!r}"
    config = getattr(model, "generation_config", None)
    if config is None or getattr(config, "eos_token_id", None) is None:
        return "the model's generation config names no end-of-text token"
    for name, neutral in NEUTRAL.items():
        if name not in arguments and getattr(config, name, None) not in neutral:
            return f"the model's generation config sets {name}={getattr(config, name)!r}"
    return None


def caching_fallback_reason(model: Any, prompts: Sequence[Sequence[int]], device: torch.device) -> str | None:
    """Return how a model's cached, padded steps differ from plain passes, or None where they agree.

    The longest, the shortest and a middle prompt are continued together for a few tokens; every step's largest
    logit is compared with that of a pass over the whole text, one prompt at a time.

    Raises:
        CandidateError: logits are not finite; nothing can be said about the model's make then.
    """
    by_length = sorted(map(tuple, prompts), key=len)
    chosen = list(dict.fromkeys([by_length[-1], by_length[0], by_length[len(by_length) // 2]]))
    bound = TOLERANCE.get(model.dtype, COARSE)
    try:
        for texts, cached in trial_steps(model, chosen, TRIAL_STEPS, device):
            with torch.inference_mode():
                plain = [
                    float(model(input_ids=torch.tensor([text], device=device), use_cache=False).logits[0, -1].max())
                    for text in texts
                ]
            _demand_finite(plain)
            for expected, value in zip(plain, cached, strict=True):
                if not abs(value - expected) <= bound * (1 + abs(expected)):
                    return f"cached steps give a logit of {value:.6g} where plain passes give {expected:.6g}"
    except _REFUSALS as error:
        return f"the model's cache cannot be shared ({type(error).__name__}: {str(error).splitlines()[0]})"
    return None


def _demand_finite(values: Sequence[float]) -> None:
    if not all(math.isfinite(value) for value in values):
        raise CandidateError("the model's logits are NaN or infinite")


def _with_neighbours(sequences: Sequence[Likelihood]) -> list[Likelihood]:
    """Return the sequences and, for each, a sibling of its last token that it must not see."""
    siblings = [
        Likelihood((*sequence.inputs[:-1], 0 if sequence.inputs[-1] else 1), sequence.targets[-1:])
        for sequence in sequences
    ]
    return [*sequences, *siblings]
