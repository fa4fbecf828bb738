"""The catalogue of merge methods: names, parameters, ranges, papers, and the door through which one tensor is merged.

Reading the catalogue needs no torch, so search files can be checked on a machine without it. A method's function is
imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from evomerge.errors import MergeError, near
from evomerge.merge.parameters import Parameter, checked

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CATALOGUE", "Method", "Parameter", "merge", "method"]


@dataclass(frozen=True)
class Method:
    """One merge method: what it takes, what it costs, where it is from."""

    name: str  # the mergekit YAML word
    family: str  # the module of evomerge.merge that holds the function, which has the method's name
    inputs: Literal[
        "deltas", "weights"
    ]  # what `inputs` holds: task vectors (source - base), or the models' own weights
    base: Literal["required", "optional", "none"]
    models: tuple[int, int | None]  # fewest and most inputs; the base is not counted
    parameters: tuple[Parameter, ...]
    linearity: str  # L, L|m, S, R or N: how the result depends on the coefficients
    random: bool = False  # needs one mask key per input
    elementwise: bool = True  # a block of the result needs that block of the inputs and whole-tensor statistics only
    by_role: bool = False  # treats matrices, vectors and vocabularies differently: needs the tensor's role
    ignored: tuple[str, ...] = ()  # words that mergekit accepts for this method and that change nothing
    summary: str = ""
    paper: str = ""

    @property
    def function(self) -> Callable[..., Tensor]:
        """The plain function of base, inputs and every parameter by keyword, plus `keys` if random, `role` if by_role."""
        return getattr(import_module(f"evomerge.merge.{self.family}"), self.name)


def _weight(default: float | None = None, search: tuple[float, float] = (0.0, 1.5)) -> Parameter:
    return Parameter("weight", default, True, search=search, summary="coefficient of each model")


_DENSITY = Parameter(
    "density", 1.0, True, 0.0, 1.0, search=(0.1, 1.0), summary="fraction of the task vector's entries kept"
)
_LAMBDA = Parameter("lambda", 1.0, False, search=(0.5, 1.5), summary="scale of the merged task vector")
_RESCALE_NORM = Parameter(
    "rescale_norm",
    "l1",
    False,
    choices=("l1", "inv"),
    summary="l1: keep the tensor's L1 norm (mergekit); inv: divide by the probability of being kept (the papers)",
)


def _normalize(default: bool) -> Parameter:
    return Parameter("normalize", default, False, summary="divide by the sum of weights, making them relative")


def _rescale(default: bool) -> Parameter:
    return Parameter("rescale", default, False, summary="scale up what is kept to make up for what is dropped")


_DARE = (_weight(), _DENSITY, _normalize(False), _rescale(True), _RESCALE_NORM, _LAMBDA)

_METHODS = (
    Method(
        "linear",
        "interpolate",
        inputs="weights",
        base="none",
        models=(1, None),
        parameters=(_weight(search=(0.0, 1.0)), _normalize(True)),
        linearity="R",
        summary="weighted average of the models",
        paper="Model soups, arXiv:2203.05482",
    ),
    Method(
        "task_arithmetic",
        "arithmetic",
        inputs="deltas",
        base="required",
        models=(1, None),
        parameters=(_weight(), _normalize(False), _LAMBDA),
        linearity="L",
        ignored=("density", "rescale", "int8_mask"),
        summary="base plus a weighted sum of task vectors",
        paper="Task Arithmetic, arXiv:2212.04089",
    ),
    Method(
        "ties",
        "arithmetic",
        inputs="deltas",
        base="required",
        models=(1, None),
        parameters=(_weight(), _DENSITY, _normalize(True), _rescale(False), _LAMBDA),
        linearity="R",
        ignored=("int8_mask",),
        summary="trim to the largest entries, elect a sign, average those who agree",
        paper="TIES-Merging, arXiv:2306.01708",
    ),
    Method(
        "dare_linear",
        "arithmetic",
        inputs="deltas",
        base="required",
        models=(1, None),
        parameters=_DARE,
        linearity="L|m",
        random=True,
        ignored=("int8_mask",),
        summary="drop entries at random, rescale the rest, sum",
        paper="DARE, arXiv:2311.03099",
    ),
    Method(
        "dare_ties",
        "arithmetic",
        inputs="deltas",
        base="required",
        models=(1, None),
        parameters=_DARE,
        linearity="R",
        random=True,
        ignored=("int8_mask",),
        summary="drop entries at random, rescale the rest, elect a sign, sum those who agree",
        paper="DARE, arXiv:2311.03099",
    ),
    Method(
        "slerp",
        "interpolate",
        inputs="weights",
        base="required",
        models=(1, 1),
        parameters=(Parameter("t", None, False, search=(0.0, 1.0), summary="0 is the base, 1 the other model"),),
        linearity="N",
        summary="spherical interpolation between the base and one model",
        paper="Shoemake 1985; per tensor as in mergekit",
    ),
    Method(
        "passthrough",
        "interpolate",
        inputs="weights",
        base="none",
        models=(1, 1),
        parameters=(Parameter("scale", 1.0, False, search=(0.5, 1.5), summary="factor of the copied tensor"),),
        linearity="L",
        summary="one model's tensor, unchanged or scaled",
        paper="mergekit, arXiv:2403.13257",
    ),
)

CATALOGUE: Mapping[str, Method] = MappingProxyType({entry.name: entry for entry in _METHODS})


def method(name: str) -> Method:
    """Return the catalogue's entry for a method name; an unknown name is a MergeError that lists near ones."""
    if name not in CATALOGUE:
        raise MergeError(f"unknown merge method {name!r}. {near(name, CATALOGUE)}")
    return CATALOGUE[name]


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
    from evomerge.merge.door import merge_tensor  # torch is imported only to merge

    entry = method(name)
    return merge_tensor(entry, base, inputs, checked(entry.name, entry.parameters, parameters, len(inputs)), keys, role)
