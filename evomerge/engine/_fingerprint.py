"""Fingerprint: a hash of the exact bits of a set of weights.

A candidate's score is only worth something if the weights that were scored are the recipe's. The fingerprint is taken
from the model's own memory after a merge, and from the files after an export; equal fingerprints mean equal bits.

Each tensor is hashed by integer arithmetic modulo 2**64, which is associative: the same on a CPU and a GPU, for any
number of threads and any block size. It guards against mistakes, not against an adversary.

Source: multilinear hashing, Lemire and Kaser 2014, "Strongly universal string hashing is fast", arXiv:1202.4961.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from evomerge.checkpoints import count_nonfinite
from evomerge.merge.kernels import available, finish_hash, hash_rows

FINGERPRINT_DIGITS = 32

_ROW = 4096  # words of 8 bytes that share one row of keys; part of the fingerprint's definition
ROW_BYTES = 8 * _ROW
_SHIFT = 29
_CPU_ROWS = 32  # rows per step: 1 MiB, stays in a core's cache
_DEVICE_ROWS = 8192  # 256 MiB: enough to fill a GPU
_MASK64 = (1 << 64) - 1


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Return the fingerprint of named tensors, 32 hexadecimal digits; their order does not matter.

    Every name, dtype, shape and bit counts, and where each bit stands. Tensors are read once and not modified.
    """
    return combine((name, describe(tensor)) for name, tensor in tensors)


def combine(parts: Iterable[tuple[str, str]]) -> str:
    """Return the fingerprint of tensors whose `describe` texts are known, by name."""
    total = hashlib.sha256()
    for name, text in sorted(parts):  # sorted, so that the order of tensors does not matter
        total.update(f"{name}\0{text}\n".encode())  # separators that names cannot hold
    return total.hexdigest()[:FINGERPRINT_DIGITS]


def describe(tensor: Tensor) -> str:
    """Return the dtype, shape and hash of a tensor of any shape and dtype as text: `float32[2, 3]:<16 digits>`."""
    return description(str(tensor.dtype).removeprefix("torch."), tensor.shape, row_sums(tensor))


def description(dtype: str, shape: Sequence[int], sums: Tensor) -> str:
    """Return the `describe` text of a tensor from its `row_sums`, (rows,) int64; `dtype` is torch's word."""
    return f"{dtype}{list(shape)}:{finish(sums):016x}"


def row_sums(tensor: Tensor) -> Tensor:
    """Return the first half of the hash, one int64 number per row of ROW_BYTES bytes.

    It is the sum over the row's 8-byte words of (word + word >> 29) times an odd key of the word's index, modulo 2**64.
    The shifted word is added so that the top bit (every other float32's sign) also moves lower bits: times an odd key,
    the top bit alone stays the top bit, and two flipped signs would cancel. The shift is 29, not 32, because the signs
    of the two float32 numbers of one word, 32 bits apart, would cancel again.

    A tensor may be hashed in pieces: the sums of consecutive pieces are those of the whole if every piece but the last
    fills its rows.
    """
    device = tensor.device
    rows = -(-tensor.numel() * tensor.element_size() // ROW_BYTES)
    sums = torch.empty(rows, dtype=torch.int64, device=device)
    keys = _row_keys(str(device))
    if device.type == "cpu" and tensor.is_contiguous() and available():
        hash_rows(tensor, keys, _SHIFT, sums)
        return sums
    words = _words(tensor)
    step = _CPU_ROWS if device.type == "cpu" else _DEVICE_ROWS
    whole = words.numel() // _ROW
    table = words[: whole * _ROW].view(whole, _ROW)
    # scratch for one step of rows, reused
    mixed = torch.empty(min(step, max(whole, 1)), _ROW, dtype=torch.int64, device=device)
    for first in range(0, whole, step):
        block = table[first : first + step]
        sums[first : first + len(block)] = _weigh(block, keys, mixed[: len(block)])
    if whole < rows:  # the last row is shorter than the others
        tail = words[whole * _ROW :].unsqueeze(0)
        sums[whole:] = _weigh(tail, keys[: tail.shape[1]], torch.empty_like(tail))
    return sums


def examine(block: Tensor) -> tuple[Tensor, int]:
    """Return a flat block's `row_sums`, (rows,) int64, and how many of its values are NaN or infinite."""
    if block.device.type == "cpu" and available():
        sums = torch.empty(-(-block.numel() * block.element_size() // ROW_BYTES), dtype=torch.int64)
        finite = hash_rows(block, _row_keys("cpu"), _SHIFT, sums)
        return sums, 0 if finite else count_nonfinite(block)
    return row_sums(block), count_nonfinite(block)  # two passes, where the compiled loop needs one


def finish(sums: Tensor) -> int:
    """Return the hash of a tensor, in [0, 2**64), from its `row_sums`, (rows,) int64."""
    if sums.numel() == 0:
        return 0
    if sums.device.type == "cpu" and available():
        return finish_hash(sums, _SHIFT, 1 << 40) & _MASK64
    mixed = sums + (sums >> _SHIFT)
    # keys come in powers of two, so that few tensors of keys are cached
    return int((mixed * _last_keys(len(sums).bit_length(), str(sums.device))[: len(sums)]).sum()) & _MASK64


def _weigh(block: Tensor, keys: Tensor, scratch: Tensor) -> Tensor:
    """Return one sum per row of `block`, (rows, words) -> (rows,); integer overflow wraps, which is what is wanted."""
    torch.bitwise_right_shift(block, _SHIFT, out=scratch)
    return scratch.add_(block).mul_(keys).sum(1)


def _words(tensor: Tensor) -> Tensor:
    """Return a tensor's bytes as int64 words, (n,), the last one filled up with zeros."""
    flat = tensor.detach().contiguous().reshape(-1)
    raw = flat.view(torch.uint8)
    if raw.numel() % 8 == 0 and raw.data_ptr() % 8 == 0 and raw.storage_offset() % 8 == 0:
        return raw.view(torch.int64)
    # a short tensor, an odd length or an odd offset in a file: copy to where words can be read
    padded = torch.zeros(-(-raw.numel() // 8) * 8, dtype=torch.uint8, device=raw.device)
    padded[: raw.numel()] = raw
    return padded.view(torch.int64)


@lru_cache(maxsize=32)
def _row_keys(device: str) -> Tensor:
    return _odd_keys(_ROW, 0, torch.device(device))


@lru_cache(maxsize=128)
def _last_keys(bits: int, device: str) -> Tensor:
    """Return the keys of up to 2**bits row sums, (2**bits,) int64; fewer keys are the first of more."""
    return _odd_keys(1 << bits, 1, torch.device(device))


def _odd_keys(count: int, stream: int, device: torch.device) -> Tensor:
    """Return `count` odd int64 keys: SplitMix64 (Steele et al. 2014) of a counter, the same on every device."""
    keys = torch.arange(1, count + 1, dtype=torch.int64, device=device) + (stream << 40)
    keys.mul_(_signed(0x9E3779B97F4A7C15))
    for shift, multiplier in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        # int64 shifts copy the sign; the mask makes them the unsigned shifts of the source
        keys.bitwise_xor_((keys >> shift).bitwise_and_((1 << (64 - shift)) - 1)).mul_(_signed(multiplier))
    return keys.bitwise_or_(1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
