"""Random masks that are a pure function of (mask seed, source, tensor, element).

A generator with a state gives an element the number drawn at its position in some loop. Here element `i` of
a tensor gets a hash of its key and `i`, so a mask does not depend on the worker, the order of tensors, how a tensor is
cut into blocks, the number of threads, or the device.

Source: the mixing function is SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators",
used as a counter-based generator.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from evomerge.merge._reductions import chunks

# Draws are multiples of 2**-24: every one of them is an exact float32.
DRAW_BITS = 24
# Hashes per chunk: three int64 buffers of this length stay inside a processor's second-level cache.
_CHUNK = 1 << 15

_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))


def mask_key(mask_seed: int, source: str, tensor: str) -> int:
    """Return the 64-bit key of one source's mask on one tensor, in [0, 2**64).

    Args:
        mask_seed: the recipe's seed of masks.
        source: name of the fine-tuned model, as in the recipe.
        tensor: name of the tensor in the checkpoint.
    """
    # a separator that names cannot hold keeps different triples apart
    text = "\x00".join((str(int(mask_seed)), source, tensor))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def slice_key(key: int, index: int) -> int:
    """Return the key of slice `index` of a stacked tensor whose own key is `key` (fused mixture-of-experts weights)."""
    return int.from_bytes(hashlib.sha256(f"{key}\x00{index}".encode()).digest()[:8], "little")


def draws(key: int, count: int, offset: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Return the integers in [0, 2**24) of elements `offset` to `offset + count`, `(count,)` int32.

    One 64-bit hash serves two neighbouring elements: element `i` takes the low half of hash `i // 2` when `i` is even
    and the high half when it is odd, and keeps the upper 24 bits of that half.
    """
    first, last = offset // 2, (offset + count + 1) // 2  # hashes, two elements each
    hashes = torch.empty(max(last - first, 0), dtype=torch.int64, device=device)
    for part in chunks(hashes.numel(), _CHUNK):
        _fill_hashes(hashes[part], key, first + part.start)
    halves = hashes.view(torch.int32)  # low half first: torch runs on little-endian machines
    halves.bitwise_right_shift_(32 - DRAW_BITS).bitwise_and_((1 << DRAW_BITS) - 1)
    return halves[offset - 2 * first :][:count]  # an odd offset skips the low half of the first hash


def uniform(key: int, count: int, offset: int = 0, device: torch.device | str | None = None) -> Tensor:
    """Return the uniform numbers in [0, 1) of elements `offset` to `offset + count`, `(count,)` float32.

    `uniform(key, a + b)` is `uniform(key, a)` followed by `uniform(key, b, offset=a)`, on every device.

    >>> uniform(7, 4).tolist() == uniform(7, 2).tolist() + uniform(7, 2, offset=2).tolist()
    True
    """
    return draws(key, count, offset, device).to(torch.float32).mul_(2.0**-DRAW_BITS)


def bernoulli(
    key: int, count: int, probability: float | Tensor, offset: int = 0, device: torch.device | str | None = None
) -> Tensor:
    """Return which elements are kept, `(count,)` bool: true where the element's uniform number is below `probability`.

    Args:
        key: from `mask_key`.
        count: number of elements.
        probability: of keeping; one number, or one per element as a flat tensor on `device`.
        offset: flat index of the first element inside its tensor.
        device: where the mask is made.
    """
    return uniform(key, count, offset, device) < probability


def _fill_hashes(out: Tensor, key: int, first: int) -> None:
    """Write SplitMix64 outputs number `first`, `first + 1`, ... of the stream that starts at `key` into `out`."""
    # int64 arithmetic wraps around like the unsigned arithmetic of the paper; only shifts need care with the sign bit.
    torch.add(_steps(out.device)[: out.numel()], _signed(key + (first + 1) * _GOLDEN), out=out)
    shifted = torch.empty_like(out)  # one scratch buffer for three rounds
    for shift, multiplier in _MIX:
        torch.bitwise_right_shift(out, shift, out=shifted)
        out.bitwise_xor_(shifted.bitwise_and_((1 << (64 - shift)) - 1))
        if multiplier is not None:
            out.mul_(_signed(multiplier))


@lru_cache
def _steps(device: torch.device) -> Tensor:
    """Return multiples of the generator's increment, from 0, `(_CHUNK,)` int64: the same for every key."""
    return torch.arange(_CHUNK, device=device).mul_(_signed(_GOLDEN))  # adding a key gives that key's stream


def _signed(value: int) -> int:
    """Return the int64 with the same 64 bits as `value`."""
    value &= _MASK64
    return value - (1 << 64) if value >> 63 else value
