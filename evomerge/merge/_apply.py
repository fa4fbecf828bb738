"""Merging one tensor: checks, the working dtype, and the call of the method's function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evomerge.errors import MergeError, near
from evomerge.merge._catalogue import Method, method
from evomerge.merge._masks import slice_key
from evomerge.merge._parameters import checked

ROLES = ("matrix", "vocab", "vector", "router", "experts")


def merge(
    name: str,
    base: Tensor | None,
    inputs: Sequence[Tensor],
    parameters: Mapping[str, Any],
    *,
    keys: Sequence[int] = (),
    role: str = "matrix",
) -> Tensor:
    """Return one tensor of the merged model: the full weights, not a delta.

    Args:
        name: a method of the catalogue.
        base: the base model's tensor, or None where the method has none.
        inputs: per model, its task vector or its weights, as `Method.inputs` says; shaped like the base.
        parameters: values by name; one value per input for per-model parameters, else one. Missing ones take defaults.
        keys: one mask key per input, for random methods (`masks.mask_key`).
        role: what the tensor is in its model: matrix, vocab, vector, router or experts. Stacked experts (three axes)
            are merged slice by slice along the first axis; the other roles matter to spectral methods only. mergekit
            knows no roles: pass "matrix" to do as it does.

    Returns:
        A new tensor of the inputs' shape, float32, or float64 if any input is. Inputs are not modified.

    Raises:
        MergeError: a name, count, shape, dtype or value does not fit.
    """
    entry = method(name)
    # accepted, without effect
    values = {word: value for word, value in parameters.items() if word not in entry.ignored}
    return _merge_checked(entry, base, inputs, checked(name, entry.parameters, values, len(inputs)), keys, role)


def _merge_checked(
    method: Method,
    base: Tensor | None,
    inputs: Sequence[Tensor],
    arguments: Mapping[str, Any],
    keys: Sequence[int],
    role: str,
) -> Tensor:
    """Return the merged weights of one tensor; see `merge`. `arguments` are checked already."""
    _check(method, base, inputs, keys, role)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in (*inputs, base) if t is not None) else torch.float32
    start = None if base is None else base.to(dtype)  # no copy where the dtype fits already
    sources = [tensor.to(dtype) for tensor in inputs]
    if method.base == "none":  # a recipe may name a base only for its tokenizer
        start = None
    extra: dict[str, Any] = {"keys": tuple(keys)} if method.random else {}
    shape = sources[0].shape
    if sources[0].numel() == 0:
        return torch.empty(shape, dtype=dtype, device=sources[0].device)  # order statistics of nothing do not exist
    if role == "experts" and len(shape) > 2:
        return _slice_by_slice(method, start, sources, arguments, keys)
    if method.by_role:
        # norms and biases have no singular values, whatever the caller calls them
        extra["role"] = "vector" if len(shape) < 2 else "matrix" if role == "experts" else role
    if not shape:  # a scalar is a vector of one
        start, sources = None if start is None else start.reshape(1), [tensor.reshape(1) for tensor in sources]
    merged = method.function(start, sources, **arguments, **extra).reshape(shape)
    # a method may hand back an input (one model, weight 1); the caller owns what it gets
    return (
        merged.clone() if any(merged.data_ptr() == t.data_ptr() for t in (*inputs, base) if t is not None) else merged
    )


def _slice_by_slice(
    method: Method, base: Tensor | None, inputs: Sequence[Tensor], arguments: Mapping[str, Any], keys: Sequence[int]
) -> Tensor:
    """Return stacked expert weights merged one expert at a time, as if each were a tensor of its own."""
    merged = torch.empty_like(inputs[0])  # (experts, out, in)
    for index in range(merged.shape[0]):
        start = None if base is None else base[index]
        sources = [tensor[index] for tensor in inputs]
        slice_keys = [slice_key(key, index) for key in keys]  # each expert draws a mask of its own
        merged[index] = _merge_checked(method, start, sources, arguments, slice_keys, "matrix")
    return merged


def _check(method: Method, base: Tensor | None, inputs: Sequence[Tensor], keys: Sequence[int], role: str) -> None:
    fewest, most = method.models
    if len(inputs) < fewest or (most is not None and len(inputs) > most):
        wanted = f"{fewest}" if fewest == most else f"{fewest} to {most}" if most else f"at least {fewest}"
        besides = "" if method.base == "none" else " besides the base"  # the base counts as no input
        raise MergeError(f"{method.name} merges {wanted} models{besides}, got {len(inputs)}")
    if base is None and method.base == "required":
        raise MergeError(f"{method.name} needs a base model's tensor, got none; name a base_model")
    if role not in ROLES:
        raise MergeError(f"unknown role {role!r} of a tensor. {near(role, ROLES)}")
    first = inputs[0] if base is None else base
    for index, tensor in enumerate(inputs):
        if tensor.shape != first.shape:
            raise MergeError(
                f"{method.name}: model {index + 1} has a tensor of shape {tuple(tensor.shape)}, "
                f"{'the base' if base is not None else 'model 1'} one of {tuple(first.shape)}; they must be equal"
            )
    for tensor in (*inputs, *(() if base is None else (base,))):
        if not tensor.is_floating_point():
            raise MergeError(
                f"{method.name} merges floating-point tensors, got {tensor.dtype}; copy such a buffer from the base"
            )
    if method.random and len(keys) != len(inputs):
        raise MergeError(
            f"{method.name} drops entries at random and needs one mask key per model: {len(inputs)}, got {len(keys)}"
        )
