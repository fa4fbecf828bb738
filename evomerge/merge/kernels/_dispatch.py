"""Dispatch to the compiled loops: available where numba is installed and tensors lie in main memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evomerge.merge._reductions import SERIAL_CHUNK, chunks

if TYPE_CHECKING:
    from evomerge.merge.kernels._thresholds import Cut

# bfloat16 has no name in NumPy; a kind is what `compiled` calls a dtype
_KINDS = {torch.float32: 0, torch.bfloat16: 1}


def _exponents(bits: int, width: int) -> npt.NDArray[np.int64]:
    """Return the exponent's bits of each number of `width` bits in a word of 64, four of them, some perhaps equal."""
    return np.array([(bits << shift % 64) for shift in range(0, 4 * width, width)], np.uint64).view(np.int64)


# All exponent bits set: NaN or infinity.
_EXPONENTS = {
    torch.float32: _exponents(0x7F800000, 32),
    torch.bfloat16: _exponents(0x7F80, 16),
    torch.float16: _exponents(0x7C00, 16),
}
_KEPT_ROWS = 8  # rows of SERIAL_CHUNK float32: half a mebibyte of scratch
_DOUBLE = _exponents(0x7FF0000000000000, 64)

Kernel = Callable[[Tensor, int], None]  # writes the stretch of a result whose first element has this index


@lru_cache(maxsize=1)
def compiled() -> ModuleType | None:
    """Return the module of compiled loops, or None without numba or where torch rounds in another way than they do."""
    # torch multiplies and adds in one rounding only where it was built for these instructions; so do the loops
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None  # older processors lack fused multiply-add
    try:
        from evomerge.merge.kernels import _numba_loops as module
    except ImportError:  # numba is an optional package
        return None
    return module


def available() -> bool:
    """Return whether the compiled loops can be used on this machine."""
    return compiled() is not None


def taken(*tensors: Tensor) -> bool:
    """Return whether the compiled loops can work on these tensors."""
    return available() and all(
        tensor.device.type == "cpu" and tensor.dtype in _KINDS and tensor.is_contiguous() for tensor in tensors
    )


def adder(
    base: Tensor | None,
    inputs: Sequence[Tensor],
    weight: Sequence[float],
    divisor: float | None = None,
    lambda_: float = 1.0,
    fused: bool = False,
) -> Kernel:
    """Return what `kernels.sum_block` would write, the base subtracted from the inputs; `fused` as for `linear`."""
    loop, values = _loops().add_up, (_singles(weight), _single(divisor), np.float32(lambda_), fused)
    return _kernel(loop, base, inputs, values)


def trimmer(
    base: Tensor,
    inputs: Sequence[Tensor],
    cuts: Sequence[Cut],
    weight: Sequence[float],
    normalize: bool,
    lambda_: float,
) -> Kernel:
    """Return what `kernels.ties_block` would write, the base subtracted from the inputs."""
    bounds = _singles([cut.value for cut in cuts])
    # entries of the bound's own size stay up to `last`: all of them where everything is kept
    last = np.array([base.numel() if cut.keeps_all else cut.last for cut in cuts], np.int64)
    values = (_filled_up(weight), bounds, last, normalize, np.float32(lambda_))
    return _kernel(_loops().trim, base, inputs, values)


def dropper(
    base: Tensor,
    inputs: Sequence[Tensor],
    weight: Sequence[float],
    density: Sequence[float],
    factor: Sequence[float],
    keys: Sequence[int],
    elect: bool,
    normalize: bool,
    divisor: float | None,
    lambda_: float,
) -> Kernel:
    """Return what `kernels.dare_block` would write, the base subtracted from the inputs; from even indices on."""
    thinning = (_filled_up(weight), _singles(density), _singles(factor), np.array(keys, np.uint64))
    return _kernel(_loops().drop, base, inputs, (*thinning, elect, normalize, _single(divisor), np.float32(lambda_)))


def kept_sum(base: Tensor, source: Tensor, density: float, key: int) -> float:
    """Return the L1 norm of what DARE keeps of source - base, float64, not rescaled; summed in the plain order."""
    loop, addresses = _loops().kept_magnitudes, (*_address(base), *_address(source))
    rows = torch.empty(_KEPT_ROWS, SERIAL_CHUNK)
    count, total = source.numel(), 0.0
    for part in chunks(count, rows.numel()):
        stretch = rows.view(-1)[: part.stop - part.start]  # the last chunk is shorter
        loop(stretch.numpy(), *addresses, part.start, stretch.numel(), np.float32(density), np.uint64(key))
        whole = stretch.numel() // SERIAL_CHUNK
        sums = rows[:whole].sum(1, dtype=torch.float64).tolist()  # each row as if it were summed alone
        rest = stretch[whole * SERIAL_CHUNK :]
        for value in [*sums, *([float(rest.sum(dtype=torch.float64))] if rest.numel() else [])]:
            total += value
    return total


def thin_by_rank(
    out: Tensor,
    source: Tensor,
    base: Tensor,
    start: int,
    ranks: Tensor,
    length: int,
    spread: tuple[float, float, float],
    key: int,
    own: bool,
) -> None:
    """Write what `row_ranks.Chances.thin` writes; `source`, `base` and float32 `out` are stretches from `start` on."""
    addresses = (*_address(source), *_address(base), out.numel(), start)
    # the loop reads 2 or 4 bytes per rank
    rank = (ranks.data_ptr(), ranks.element_size(), np.float32(length - 1), *(np.float32(value) for value in spread))
    _loops().thin_by_rank(out.data_ptr(), *addresses, *rank, np.uint64(key), own)


def variances(out: Tensor, sources: Sequence[Tensor], base: Tensor) -> None:
    """Write `selective.variance_over_models` of the flat task vectors source - base into float32 `out`."""
    # numba takes arrays, not lists of tensors
    addresses, kinds = zip(*(_address(tensor) for tensor in sources), strict=True)
    every = (np.array(addresses, np.int64), np.array(kinds, np.int64))
    _loops().variances(out.data_ptr(), *_address(base), *every, base.numel())


def ranked(base: Tensor, source: Tensor) -> Tensor:
    """Return the order that `thresholds.rank` finds in source - base, int32."""
    return torch.from_numpy(_loops().ranked(*_address(base), *_address(source), source.numel()))


def select(base: Tensor, source: Tensor, kept: int) -> tuple[float, int]:
    """Return value and last index of the cut that keeps `kept` entries of source - base; 0 < kept < all."""
    value, last = _loops().select(*_address(base), *_address(source), source.numel(), kept)
    return float(value), int(last)


def hash_rows(tensor: Tensor, keys: Tensor, shift: int, sums: Tensor) -> bool:
    """Write the fingerprint's row sums of a contiguous tensor into `sums`; return whether all its values are finite."""
    size, exponents = tensor.numel() * tensor.element_size(), _EXPONENTS.get(tensor.dtype, _DOUBLE)
    return bool(_loops().hash_rows(tensor.data_ptr(), size, keys.numpy(), shift, exponents, sums.numpy()))


def finish_hash(sums: Tensor, shift: int, stream: int) -> int:
    """Return the hash of a tensor from the sums of its rows, a signed 64-bit integer."""
    return int(_loops().finish_hash(sums.numpy(), shift, stream))


def _kernel(
    loop: Callable[..., None], base: Tensor | None, inputs: Sequence[Tensor], values: tuple[Any, ...]
) -> Kernel:
    addresses, kinds = zip(*(_address(tensor) for tensor in inputs), strict=True)
    sources = (*_address(base), np.array(addresses, np.int64), np.array(kinds, np.int64))
    alive = (base, *inputs)  # the loop knows their addresses only

    def kernel(out: Tensor, start: int) -> None:
        loop(*_address(out), start, out.numel(), *sources, *values)
        assert alive

    return kernel


def _loops() -> ModuleType:
    module = compiled()
    assert module is not None  # callers check `taken` or `available` first
    return module


def _address(tensor: Tensor | None) -> tuple[int, int]:
    return (0, 0) if tensor is None else (tensor.data_ptr(), _KINDS[tensor.dtype])


def _singles(values: Sequence[float]) -> npt.NDArray[np.float32]:
    return np.array(values, np.float32)


def _filled_up(weight: Sequence[float]) -> npt.NDArray[np.float32]:
    return _singles([*weight, *[0.0] * (4 - len(weight))])  # the loops work on four models at a time


def _single(divisor: float | None) -> np.float32:
    return np.float32(1 if divisor is None else divisor)  # dividing by one leaves the bits as they are
