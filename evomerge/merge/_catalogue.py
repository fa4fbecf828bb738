"""Catalogue of merge methods: names, parameters, ranges and papers.

Reading the catalogue needs no torch, so search files can be checked on a machine without it. A method's function is
imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from evomerge.errors import MergeError, near
from evomerge.merge._parameters import Parameter

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Method:
    """One merge method: inputs, parameters, properties that decide how it can be computed, and source."""

    name: str  # the mergekit YAML word where mergekit has the method
    family: str  # the module of evomerge.merge that holds the function, which has the method's name
    inputs: Literal["deltas", "weights"]  # task vectors (source - base), or the models' own weights
    base: Literal["required", "optional", "none"]  # whether the merge names a common ancestor
    models: tuple[int, int | None]  # fewest and most inputs; the base is not counted
    parameters: tuple[Parameter, ...]  # what the YAML may set
    linearity: str  # L, L|m, S, R or N: how the result depends on the coefficients
    summary: str  # one sentence
    paper: str  # authors, year, arXiv id
    random: bool = False  # needs one mask key per input
    elementwise: bool = True  # a block of the result needs that block of the inputs and whole-tensor statistics only
    blockwise: bool = False  # not even those: merging a flat block of each tensor gives that block of the result
    by_role: bool = False  # treats matrices, vectors and vocabularies differently: needs the tensor's role
    in_mergekit: bool = False  # mergekit 0.1.5 has it under this name
    ignored: tuple[str, ...] = ()  # words that mergekit accepts for this method and that change nothing

    @property
    def function(self) -> Callable[..., Tensor]:
        """The plain function of base, inputs, parameters by keyword, `keys` if random and `role` if by_role."""
        return getattr(import_module(f"evomerge.merge._{self.family}"), self.name)


def _weight(
    default: float | None = None, search: tuple[float, float] = (0.0, 1.5), extension: bool = False
) -> Parameter:
    return Parameter("weight", default, True, search=search, summary="coefficient of each model", extension=extension)


def _density(default: float = 1.0, search: tuple[float, float] = (0.1, 1.0)) -> Parameter:
    return Parameter(
        "density", default, True, 0.0, 1.0, search=search, summary="fraction of the task vector's entries kept"
    )


def _flag(name: str, default: bool, summary: str, extension: bool = False) -> Parameter:
    return Parameter(name, default, False, summary=summary, extension=extension)


def _normalize(default: bool) -> Parameter:
    return _flag("normalize", default, "divide by the sum of weights, which makes them relative")


def _rescale(default: bool) -> Parameter:
    return _flag("rescale", default, "rescale kept entries to compensate for dropped ones")


def _lambda(extension: bool = False, default: float = 1.0, search: tuple[float, float] = (0.5, 1.5)) -> Parameter:
    return Parameter(
        "lambda", default, False, search=search, summary="scale of the merged task vector", extension=extension
    )


def _variant(summary: str, *others: str) -> Parameter:
    return Parameter("variant", "mergekit", False, choices=("mergekit", *others), summary=summary, extension=True)


_RESCALE_NORM = Parameter(
    "rescale_norm",
    "l1",
    False,
    choices=("l1", "inv"),
    summary="l1: bring back the tensor's L1 norm (mergekit); inv: divide by the chance of being kept (the papers)",
    extension=True,
)
_EPSILON = Parameter(
    "epsilon", 0.15, True, 0.0, 0.5, search=(0.0, 0.1), summary="half the spread of keep probabilities"
)
_GAMMA = Parameter("gamma", 0.01, True, 0.0, 1.0, search=(0.0, 0.05), summary="fraction of largest entries dropped")
_ACTIVE = Parameter("epsilon", 1e-5, False, 0.0, search=(1e-7, 1e-3), summary="smallest change that counts as one")
# DARE's weights are absolute in mergekit: normalize defaults to false
_DARE = (_weight(), _density(), _normalize(False), _rescale(True), _RESCALE_NORM, _lambda())
_BREADCRUMBS = (
    _weight(),
    _density(),
    _GAMMA,
    _normalize(False),
    _rescale(False),
    _lambda(),
    _variant("mergekit cuts per tensor; reference, the paper's code, per row", "reference"),
)


def _della(normalize: bool) -> tuple[Parameter, ...]:
    return (_weight(), _density(), _EPSILON, _normalize(normalize), _rescale(True), _RESCALE_NORM, _lambda())


_ANY = (1, None)
_MASK = ("int8_mask",)

_METHODS = (
    # averages and interpolation
    Method(
        "linear", "interpolate", "weights", "none", _ANY, (_weight(search=(0.0, 1.0)), _normalize(True)), "R",
        "weighted average of the models", "Model soups, arXiv:2203.05482", blockwise=True, in_mergekit=True,
    ),
    Method(
        "slerp", "interpolate", "weights", "required", (1, 1),  # mergekit's base is the point t = 0, not an ancestor
        (Parameter("t", None, False, search=(0.0, 1.0), summary="0 is the base, 1 the other model"),), "N",
        "spherical interpolation between the base and one model", "Shoemake 1985, per tensor", in_mergekit=True,
    ),
    Method(
        "nuslerp", "interpolate", "weights", "optional", (2, 2),
        (
            _weight(),
            _flag("nuslerp_flatten", True, "one angle for the whole tensor"),
            _flag("nuslerp_row_wise", False, "not flattened: one angle per vector of the first axis, not of the last"),
        ), "N", "spherical interpolation of two models, or of their task vectors", "NuSLERP, mergekit",
        elementwise=False, in_mergekit=True,
    ),
    Method(
        "multislerp", "interpolate", "weights", "optional", _ANY,
        (
            _weight(),
            _flag("normalize_weights", True, "divide weights by their sum"),
            Parameter("eps", 1e-8, False, 0.0, summary="smallest norm that has a direction"),
        ), "N", "mean direction of several models at their mean norm", "Multi-SLERP, mergekit", in_mergekit=True,
    ),
    Method(
        "karcher", "interpolate", "weights", "none", _ANY,
        (
            _weight(1.0, extension=True),
            Parameter("max_iter", 10, False, 0, summary="most steps"),
            Parameter("tol", 1e-5, False, 0.0, summary="step, angle and norm that count as zero"),
        ), "N", "Riemannian mean of the models' directions at their mean norm", "Karcher 1977, arXiv:2603.04972",
        in_mergekit=True,
    ),
    Method(
        "model_stock", "interpolate", "deltas", "required", (2, None),  # one model has no angle to another
        (
            _flag("filter_wise", False, "one ratio per row"),
            _flag("clamp", False, "keep the ratio in [0, 1]: never away from the models", extension=True),
            _lambda(True),
        ), "S", "towards the models' mean, as far as their task vectors agree", "Model Stock, arXiv:2403.19522",
        elementwise=False, in_mergekit=True,
    ),
    Method(
        "nearswap", "interpolate", "weights", "required", (1, 1),  # per entry, so any block can be merged alone
        (Parameter("t", None, False, 0.0, search=(1e-4, 1e-2), summary="largest change of an entry"),), "N",
        "the base moved towards a model by a bounded step", "NearSwap, mergekit", blockwise=True, in_mergekit=True,
    ),
    Method(
        "passthrough", "interpolate", "weights", "none", (1, 1),
        (Parameter("scale", 1.0, False, search=(0.5, 1.5), summary="factor of the copied tensor"),), "L",
        "one model's tensor, unchanged or scaled", "mergekit, arXiv:2403.13257", blockwise=True, in_mergekit=True,
    ),
    Method(
        "layer_swap", "interpolate", "weights", "none", (2, 2),
        (Parameter("share", None, False, search=(0.0, 1.0), summary="0 is the first model, 1 the second"),), "L",
        "each layer from one of two models; see depth.layer_swap", "Layer swapping, arXiv:2410.01335", blockwise=True,
    ),
    Method(
        "sma", "averages", "weights", "none", _ANY, (), "L",  # the order of inputs is that of training for these three
        "plain mean of checkpoints", "Model merging in pre-training, arXiv:2505.12082", blockwise=True,
    ),
    Method(
        "wma", "averages", "weights", "none", _ANY, (), "L",
        "mean of checkpoints, later ones weighing more", "Model merging in pre-training, arXiv:2505.12082",
        blockwise=True,
    ),
    Method(
        "ema", "averages", "weights", "none", _ANY,
        (Parameter("decay", 0.2, False, 0.0, 1.0, search=(0.05, 0.9), summary="weight lost per step of age"),), "N",
        "mean of checkpoints, exponential in their age", "Model merging in pre-training, arXiv:2505.12082",
        blockwise=True,
    ),
    # task arithmetic
    Method(
        "task_arithmetic", "arithmetic", "deltas", "required", _ANY, (_weight(), _normalize(False), _lambda()), "L",
        "base plus a weighted sum of task vectors", "Task Arithmetic, arXiv:2212.04089",
        blockwise=True, in_mergekit=True, ignored=("density", "rescale", "int8_mask"),  # mergekit accepts them unused
    ),
    Method(
        "negation", "arithmetic", "deltas", "required", _ANY, (_weight(1.0), _lambda()), "L",
        "base minus a weighted sum of task vectors: forgets", "Task Arithmetic, arXiv:2212.04089", blockwise=True,
    ),
    Method(
        "resta", "arithmetic", "deltas", "required", (2, 3),
        (
            Parameter("density", 1.0, False, 0.0, 1.0, search=(0.1, 1.0), summary="fraction kept of the first"),
            _lambda(search=(0.0, 2.0)),
        ), "L|m", "adds a safety vector (aligned minus unaligned)", "RESTA, arXiv:2402.11746", random=True,
    ),
    Method(
        "metagpt", "arithmetic", "deltas", "required", _ANY,  # the norm is the whole model's, given by the engine
        (
            Parameter("squared_norm", -1.0, True, summary="of the whole task vector; negative: of this tensor",
                      statistic="squared_norm"),
            _lambda(),
        ), "S", "task arithmetic with weights from the task vectors' norms", "MetaGPT, arXiv:2406.11385",
    ),
    Method(
        "ties", "arithmetic", "deltas", "required", _ANY,
        (
            _weight(),
            _density(),
            _normalize(True),
            _rescale(False),
            _lambda(),
            _variant("trim scope, count, ties and mean of mergekit or of the paper's code (reference)", "reference"),
            Parameter("threshold", -1.0, True, summary="reference: smallest magnitude kept; negative: from this tensor",
                      extension=True, statistic="global_threshold"),
        ), "R", "trim, elect a sign, average the entries that agree", "TIES-Merging, arXiv:2306.01708",
        in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "dare_linear", "sparsified", "deltas", "required", _ANY, _DARE, "L|m",
        "drop entries at random, rescale the rest, sum", "DARE, arXiv:2311.03099",
        random=True, in_mergekit=True, ignored=_MASK,  # the mask key makes the drop reproducible
    ),
    Method(
        "dare_ties", "sparsified", "deltas", "required", _ANY, _DARE, "R",
        "drop entries at random, rescale the rest, elect a sign, sum what agrees", "DARE, arXiv:2311.03099",
        random=True, in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "della_linear", "sparsified", "deltas", "required", _ANY, _della(False), "L|m",
        "drop entries at random, small ones more often, rescale, sum", "DELLA-Merging, arXiv:2406.11617",
        random=True, elementwise=False, in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "della", "sparsified", "deltas", "required", _ANY, _della(True), "R",
        "drop entries at random, small ones more often, rescale, elect a sign", "DELLA-Merging, arXiv:2406.11617",
        random=True, elementwise=False, in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "breadcrumbs", "sparsified", "deltas", "required", _ANY, _BREADCRUMBS, "L|m",
        "drop the largest and the smallest entries, sum", "Model Breadcrumbs, arXiv:2312.06795",
        elementwise=False, in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "breadcrumbs_ties", "sparsified", "deltas", "required", _ANY, _BREADCRUMBS, "R",
        "drop the largest and the smallest entries, elect a sign", "Model Breadcrumbs, arXiv:2312.06795",
        elementwise=False, in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "cabs", "sparsified", "deltas", "required", _ANY,
        (
            _weight(),
            Parameter("n", 64, True, 1, search=(16, 128), summary="entries kept per group"),
            Parameter("m", 256, False, 1, summary="length of a group"),
            Parameter("order", 0.0, True, search=(0.0, 1.0), summary="lower values select first"),
            _flag("overlap", False, "fill groups from entries that others took"),
            _lambda(),
        ), "L|m", "models select the largest free entries in turn", "CABS, arXiv:2503.01874", elementwise=False,
    ),
    Method(
        "compeft", "sparsified", "deltas", "required", _ANY,
        (
            _weight(),
            _density(0.2, (0.05, 0.5)),
            Parameter("alpha", 1.0, True, 0.0, search=(0.5, 10.0), summary="kept entries, in standard deviations"),
            _flag("elect", False, "elect a sign instead of summing"),
            _normalize(False),
            _lambda(),
        ), "L|m", "sum of task vectors compressed to signs and one scale", "ComPEFT, arXiv:2311.13171",
    ),
    # choosing entries
    Method(
        "sce", "masked", "deltas", "required", _ANY,
        (
            Parameter("select_topk", 1.0, False, 0.0, 1.0, search=(0.05, 1.0), summary="fraction of varying entries"),
            _variant("mergekit merges selected entries only, reference (FuseChat) all", "reference"),
            _lambda(True),
        ), "N", "select what varies, weigh by energy, erase minority signs", "FuseChat, arXiv:2408.07990",
        in_mergekit=True, ignored=_MASK,
    ),
    Method(
        "ram", "masked", "deltas", "required", _ANY, (_ACTIVE, _lambda(True)), "S",
        "mean over the models that changed an entry", "Reinforced Agent Merging, arXiv:2601.13572",
        blockwise=True, in_mergekit=True,
    ),
    Method(
        "ramplus_tl", "masked", "deltas", "required", _ANY,
        (
            Parameter("r", 0.1, False, search=(0.0, 0.5), summary="strength of the amplification"),
            Parameter("alpha", 0.2, False, 0.0, search=(0.0, 1.0), summary="bound of the amplification"),
            _ACTIVE,
            _lambda(True),
        ), "N", "ram with entries that one model changed amplified", "Reinforced Agent Merging, arXiv:2601.13572",
        in_mergekit=True,
    ),
    Method(
        "arcee_fusion", "masked", "weights", "required", (1, 1),
        (
            Parameter("iqr_factor", 1.5, False, search=(0.0, 3.0), summary="how far to stand out", extension=True),
            _lambda(True),
        ), "N", "the most important changes of one model", "Arcee Fusion, mergekit",
        elementwise=False, in_mergekit=True,
    ),
    Method(
        "magmax", "masked", "deltas", "required", _ANY,
        (_weight(1.0), _lambda(search=(0.0, 1.0))), "R",
        "the largest change, entry by entry", "MagMax, arXiv:2407.06322", blockwise=True,
    ),
    Method(
        "consensus", "masked", "deltas", "required", _ANY,
        (
            Parameter("alpha", 0.4, False, search=(0.1, 1.0), summary="scale of the summed task vector"),
            Parameter("mu", 0.4, False, 0.0, search=(0.2, 0.6), summary="fraction of the others to exceed"),
            Parameter("k", 2, False, 0, search=(1, 3), summary="models that must find an entry useful"),
            _lambda(),
        ), "N", "summed task vectors where enough models need them", "TALL masks, arXiv:2405.07813", blockwise=True,
    ),
    Method(
        "pcb", "masked", "deltas", "required", _ANY,
        (
            _weight(1.0, (0.8, 1.3)),
            _density(0.1, (0.05, 0.5)),
            Parameter("clip", 1e-4, False, 0.0, 0.5, summary="fraction of extreme magnitudes clipped at either end"),
            Parameter("variant", "released", False, choices=("released", "vision"), summary="which released code"),
            _lambda(),
        ), "L|m", "task vectors weighted by competition within and between models", "PCB-Merging, arXiv:2410.02396",
    ),
    # singular values
    Method(
        "star", "spectral", "deltas", "required", _ANY,
        (
            Parameter("eta", 0.4, True, 0.0, 1.0, search=(0.1, 1.0), summary="fraction of the nuclear norm kept"),
            _weight(1.0),
            _normalize(True),
            _lambda(),
        ), "L|m", "leading singular values only, rescaled, averaged", "STAR, arXiv:2502.10339",
        elementwise=False, by_role=True,
    ),
    Method(
        "iso_c", "spectral", "deltas", "required", _ANY,
        (
            Parameter("iso_rank", "numeric", False, choices=("numeric", "full"), summary="full: null space too"),
            _lambda(search=(0.0, 3.0)),
        ), "S", "summed task vectors with an even spectrum", "Iso-C, arXiv:2502.04959", elementwise=False, by_role=True,
    ),
    Method(
        "iso_cts", "spectral", "deltas", "required", _ANY,
        (
            Parameter("common_fraction", 0.8, False, 0.0, 1.0, search=(0.0, 1.0), summary="fraction that is common"),
            _lambda(search=(0.0, 3.0)),
        ), "S", "even spectrum over common and task-specific directions", "Iso-CTS, arXiv:2502.04959",
        elementwise=False, by_role=True,
    ),
    Method(
        "tsv_m", "spectral", "deltas", "required", _ANY,
        (
            _weight(1.0),
            Parameter("rank_fraction", 1.0, False, 0.0, search=(0.2, 2.0), summary="rank per model, in equal parts"),
            _lambda(search=(0.0, 3.0)),
        ), "S", "low-rank task vectors made orthogonal to each other", "TSV-Merge, arXiv:2412.00081",
        elementwise=False, by_role=True,
    ),
    Method(
        "r_tsvm", "spectral", "deltas", "required", _ANY,
        (
            _weight(1.0),
            Parameter("outlier_sigma", 3.0, False, 0.0, search=(2.0, 6.0), summary="threshold of outliers"),
            Parameter("strength", 1.0, False, 0.0, 1.0, search=(0.0, 1.0), summary="exponent of the outlier weights"),
            _lambda(search=(0.0, 3.0)),
        ), "S", "TSV-Merge with outlier weights and sparsity-dependent ranks", "R-TSVM, arXiv:2502.06876",
        elementwise=False, by_role=True,
    ),
)  # fmt: skip

CATALOGUE: Mapping[str, Method] = MappingProxyType({entry.name: entry for entry in _METHODS})


def method(name: str) -> Method:
    """Return the catalogue's entry for a method name; an unknown name is a MergeError that lists near ones.

    >>> method("ties").name
    'ties'
    """
    if name not in CATALOGUE:
        raise MergeError(f"unknown merge method {name!r}. {near(name, CATALOGUE)}")
    return CATALOGUE[name]
