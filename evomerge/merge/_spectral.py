"""Methods that look at the singular values of task vectors.

Functions take the base tensor, the task vectors `inputs` (source minus base) and the tensor's `role`, and return the
merged weights as a new tensor. Matrices are decomposed; vectors, embeddings, heads and routers get the mean of their
task vectors instead (a decomposition would mix tokens), times the same lambda. Signs of singular vectors are
arbitrary, so only products of them appear in results.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from evomerge.errors import MergeError
from evomerge.merge._reductions import divide_, mean, standard_deviation, sum_of, weighted_sum

# Singular values below this fraction of the largest are numerical zeros even in float64.
_RANK_TOLERANCE = 1e-10


def star(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    eta: Sequence[float],
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
    role: str,
) -> Tensor:
    """Return base + lambda * the mean of task vectors cut to their leading singular values and rescaled.

    Args:
        base: the base tensor.
        inputs: task vectors.
        eta: fraction of the sum of singular values that the kept ones must reach. 1 keeps all.
        weight: coefficients of the models.
        normalize: divide by the sum of weights.
        lambda_: scale of the merged delta.
        role: see the module.

    Source: STAR, Lee et al. 2025, arXiv:2502.10339.
    """
    total = sum(weight) if normalize else 1.0  # weights are relative if normalised
    if total == 0:
        raise MergeError(f"star: weights {list(weight)} sum to zero and cannot be normalized; change them")
    # vectors and vocabularies are averaged whole
    cut = [truncate_spectrum(x, e) for x, e in zip(inputs, eta, strict=True)] if _is_matrix(base, role) else inputs
    return base + weighted_sum(cut, [w / total for w in weight]) * lambda_


def truncate_spectrum(delta: Tensor, eta: float) -> Tensor:
    """Return a matrix with the fewest leading singular values that reach `eta` of their sum, its nuclear norm kept."""
    u, s, vt = _svd(delta)  # (out, r), (r,), (r, in)
    total = float(s.sum())
    if total == 0:
        return torch.zeros_like(delta)
    cumulative = s.double().cumsum(0)  # the last entry, not 1, is the total: no rounding can miss it
    count = min(int(torch.searchsorted(cumulative, eta * float(cumulative[-1]))) + 1, len(s))
    scale = total / float(s[:count].sum())  # the nuclear norm is kept, not the Frobenius norm
    return (u[:, :count] * (s[:count] * scale)) @ vt[:count]  # scales columns instead of building a diagonal matrix


def iso_c(base: Tensor, inputs: Sequence[Tensor], *, iso_rank: str, lambda_: float, role: str) -> Tensor:
    """Return base + lambda * the summed task vector with all its singular values replaced by their mean.

    `iso_rank` numeric leaves out singular values that are numerically zero, whose directions are arbitrary (the mean is
    still over all); full includes them, as the released code does. Matrices take the sum of task vectors, other tensors
    the mean, as released.

    Source: Iso-C, Marczak et al. 2025, arXiv:2502.04959.
    """
    if not _is_matrix(base, role):
        return base + _mean(inputs) * lambda_
    u, s, vt = _svd(sum_of(inputs))
    rank = _rank(s, base.shape) if iso_rank == "numeric" else len(s)  # zero singular values have arbitrary vectors
    return base + (u[:, :rank] @ vt[:rank]) * (s.mean() * lambda_)  # the mean is over all values, zeros too


def iso_cts(base: Tensor, inputs: Sequence[Tensor], *, common_fraction: float, lambda_: float, role: str) -> Tensor:
    """Return `iso_c` with part of the spectrum given to directions that single models have outside the common ones.

    Args:
        base: the base tensor.
        inputs: task vectors.
        common_fraction: fraction of the singular values that come from the summed task vector; the models share the
            others. 1 is Iso-C.
        lambda_: scale of the merged delta.
        role: see the module.

    Source: Iso-CTS, Marczak et al. 2025, arXiv:2502.04959. Where rounding would ask for more directions than there are
    (many models, narrow matrices), fewer are given to the models.
    """
    if not _is_matrix(base, role):
        return base + _mean(inputs) * lambda_
    n, rank = len(inputs), min(base.shape)
    per_model = min(round((rank - int(rank * common_fraction)) / n), rank // n)  # directions that each model adds
    common = rank - per_model * n  # whatever rounding leaves goes to the common part
    u, s, vt = _leading(sum_of(inputs), common)
    # outside the common column space only
    parts = [_leading(delta - u @ (u.mT @ delta), per_model) for delta in inputs] + [(u, s, vt)]
    left = polar(torch.cat([part[0] for part in parts], dim=1))  # (out, directions), orthogonal after concatenation
    values = torch.cat([part[1] for part in parts])
    right = polar(torch.cat([part[2] for part in parts], dim=0))  # (directions, in)
    return base + (left @ right) * (values.sum() / (common + n * per_model) * lambda_)


def tsv_m(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    rank_fraction: float,
    lambda_: float,
    role: str,
) -> Tensor:
    """Return base + lambda * the sum of low-rank task vectors after making their directions orthogonal to each other.

    Args:
        base: the base tensor.
        inputs: task vectors.
        weight: factor of each task vector, before the decomposition.
        rank_fraction: each of n models keeps max(1, int(r * rank_fraction / n)) of its r singular values.
        lambda_: scale of the merged delta.
        role: see the module.

    Source: TSV-Merge, Gargiulo et al. 2025, arXiv:2412.00081. Models with the same directions share them here, where an
    unguarded decomposition would fill in arbitrary ones.
    """
    scaled = [delta * w for delta, w in zip(inputs, weight, strict=True)]  # before the decomposition
    if not _is_matrix(base, role):
        return base + _mean(scaled) * lambda_
    rank = max(1, int(min(base.shape) * rank_fraction / len(inputs)))  # n models share the rank of one matrix
    return base + _orthogonal_sum(scaled, [rank] * len(inputs)) * lambda_


def r_tsvm(
    base: Tensor,
    inputs: Sequence[Tensor],
    *,
    weight: Sequence[float],
    outlier_sigma: float,
    strength: float,
    lambda_: float,
    role: str,
) -> Tensor:
    """Return `tsv_m` with models weighted by their outliers and given ranks by their sparsity.

    Args:
        base: the base tensor.
        inputs: task vectors.
        weight: factor of each task vector, before everything else.
        outlier_sigma: entries further than this many standard deviations from the mean are outliers.
        strength: exponent of the outlier weights; 0 switches them off.
        lambda_: scale of the merged delta.
        role: see the module.

    Source: R-TSVM, "Mix data or merge models?", Yang et al. 2025, arXiv:2502.06876. Details that its abstract leaves
    open are ours: an outlier weight is the fraction of the summed outlier magnitudes times the number of models, and
    sparsity the fraction of entries below a hundredth of the largest.
    """
    scaled = [delta * w for delta, w in zip(inputs, weight, strict=True)]  # before the decomposition
    if not _is_matrix(base, role):
        return base + _mean(scaled) * lambda_
    n, rank = len(inputs), min(base.shape)
    outliers = [_outlier_sum(delta, outlier_sigma) for delta in scaled]  # float64 sums, one per model
    total = sum(outliers)
    scaled = [
        delta * (n * o / total if total > 0 else 1.0) ** strength for delta, o in zip(scaled, outliers, strict=True)
    ]
    filled = [_filled_fraction(delta) for delta in scaled]  # dense task vectors need more directions
    mean_filled = sum(filled) / n
    ranks = [max(1, int(rank / n * fraction / mean_filled)) if mean_filled > 0 else 1 for fraction in filled]
    return base + _orthogonal_sum(scaled, ranks) * lambda_


def polar(matrix: Tensor) -> Tensor:
    """Return the orthogonal polar factor of a matrix: its singular values set to one, numerical zeros left out."""
    u, s, vt = _svd(matrix)
    rank = _rank(s, matrix.shape)
    return u[:, :rank] @ vt[:rank]


def _orthogonal_sum(deltas: Sequence[Tensor], ranks: Sequence[int]) -> Tensor:
    """Return the sum of the leading parts of matrices after making all their left, and right, vectors orthogonal."""
    parts = [_leading(delta, rank) for delta, rank in zip(deltas, ranks, strict=True)]
    left = polar(torch.cat([part[0] for part in parts], dim=1))
    right = polar(torch.cat([part[2] for part in parts], dim=0))
    return (left * torch.cat([part[1] for part in parts])) @ right  # left, (directions,) values, right


def _svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)  # reduced: r is the smaller side
    return u, s, vt


def _leading(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first `rank` singular triplets of a matrix, fewer where the rest are numerically zero.

    Directions of zero singular values are arbitrary, and making others orthogonal to them would change those.
    """
    u, s, vt = _svd(matrix)
    rank = min(rank, _rank(s, matrix.shape))
    return u[:, :rank], s[:rank], vt[:rank]


def _rank(singular_values: Tensor, shape: torch.Size) -> int:
    """Return the numerical rank.

    Noise of one rounding per entry has singular values near eps * sqrt(size) of the largest.
    """
    tolerance = max(_RANK_TOLERANCE, torch.finfo(singular_values.dtype).eps * max(shape) ** 0.5)
    largest = float(singular_values[0]) if len(singular_values) else 0.0
    return int((singular_values > tolerance * largest).sum()) if largest > 0 else 0


def _is_matrix(tensor: Tensor, role: str) -> bool:
    return role == "matrix" and tensor.ndim == 2  # biases have the role vector, convolutions more axes


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    return divide_(sum_of(tensors), len(tensors))


def _outlier_sum(delta: Tensor, sigma: float) -> float:
    far = (delta - mean(delta)).abs() > sigma * standard_deviation(delta)  # (out, in) bool
    return float((delta.abs() * far).sum(dtype=torch.float64))


def _filled_fraction(delta: Tensor) -> float:
    """Return the fraction of entries of at least a hundredth of the largest magnitude; 0 for a zero matrix."""
    magnitude = delta.abs()
    largest = magnitude.max()
    return float((magnitude >= largest * 1e-2).double().mean()) if largest > 0 else 0.0
