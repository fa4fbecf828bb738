from __future__ import annotations

import pytest
import torch

from evomerge.engine import _fingerprint as module
from evomerge.engine._fingerprint import fingerprint, finish, row_sums

MASK = (1 << 64) - 1


def tensor_hash(tensor: torch.Tensor) -> int:
    """The whole hash, from its two halves."""
    return finish(row_sums(tensor))


def reference_hash(tensor: torch.Tensor) -> int:
    """The definition in whole numbers of Python, one word at a time."""

    def split_mix(counter: int) -> int:
        word = counter * 0x9E3779B97F4A7C15 & MASK
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
        word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
        return (word ^ word >> 31) | 1

    def mixed(word: int) -> int:
        signed = word - (1 << 64) if word >> 63 else word
        return signed + (signed >> 29)

    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    raw += b"\0" * (-len(raw) % 8)
    words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
    total = 0
    for row, first in enumerate(range(0, len(words), 4096)):
        row_sum = sum(mixed(word) * split_mix(1 + i) for i, word in enumerate(words[first : first + 4096])) & MASK
        total += mixed(row_sum) * split_mix(1 + row + (1 << 40))
    return total & MASK


@pytest.mark.parametrize("count", [0, 1, 2, 3, 8191, 8192, 8193, 3 * 8192 + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_equals_its_definition(count: int, dtype: torch.dtype) -> None:
    tensor = torch.randn(count, generator=torch.Generator().manual_seed(count)).to(dtype)
    assert tensor_hash(tensor) == reference_hash(tensor)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_block_size_and_threads_do_not_matter(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(300_001, generator=torch.Generator().manual_seed(0))
    expected = tensor_hash(tensor)
    monkeypatch.setattr(module, "_CPU_ROWS", rows)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert tensor_hash(tensor) == expected
    finally:
        torch.set_num_threads(before)


def test_order_of_tensors_does_not_matter_and_names_do() -> None:
    a, b = torch.randn(5), torch.randn(5)
    assert fingerprint([("a", a), ("b", b)]) == fingerprint([("b", b), ("a", a)])
    assert fingerprint([("a", a), ("b", b)]) != fingerprint([("a", b), ("b", a)])
    assert fingerprint([("a", a)]) != fingerprint([("c", a)])
    assert len(fingerprint([("a", a)])) == module.FINGERPRINT_DIGITS


def test_shape_and_dtype_count() -> None:
    zeros = torch.zeros(4, 2)
    others = [zeros.T.contiguous(), zeros.flatten(), zeros.to(torch.int32), zeros.to(torch.float64), torch.zeros(4, 3)]
    assert fingerprint([("a", zeros)]) not in {fingerprint([("a", other)]) for other in others}


def test_every_single_bit_counts() -> None:
    tensor = torch.randn(3000, generator=torch.Generator().manual_seed(1))
    seen = {tensor_hash(tensor)}
    places = [0, 1, 2998, 2999]
    for place in places:
        for bit in range(32):
            changed = tensor.clone()
            changed.view(torch.int32)[place] ^= -(1 << 31) if bit == 31 else 1 << bit
            seen.add(tensor_hash(changed))
    assert len(seen) == 1 + 32 * len(places)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_two_flipped_signs_are_seen(dtype: torch.dtype) -> None:
    """The top bits of words: where a plain sum of products modulo 2**64 is blind."""
    tensor = torch.randn(48, generator=torch.Generator().manual_seed(3)).to(dtype)
    seen = {tensor_hash(tensor)}
    for i in range(48):
        for j in range(i):
            changed = tensor.clone()
            changed[[i, j]] *= -1
            seen.add(tensor_hash(changed))
    assert len(seen) == 1 + 48 * 47 // 2


def test_swapping_two_elements_is_seen_near_and_far() -> None:
    tensor = torch.arange(20_000, dtype=torch.float32)
    seen = {tensor_hash(tensor)}
    pairs = [(0, 1), (0, 2), (1, 19_999), (0, 8192), (8191, 8192), (5, 8192 + 5), (8192 + 5, 2 * 8192 + 5)]
    for i, j in pairs:
        changed = tensor.clone()
        changed[[i, j]] = changed[[j, i]]
        seen.add(tensor_hash(changed))
    assert len(seen) == 1 + len(pairs)


def test_a_view_and_its_copy_agree() -> None:
    table = torch.randn(31, 17)
    for view in (table.T, table[1:, 3:], table[3], table.to(torch.bfloat16)[1:].flatten()[1:]):
        assert tensor_hash(view) == tensor_hash(view.clone())


def test_minus_zero_and_nan_payloads_are_bits_too() -> None:
    assert tensor_hash(torch.tensor([0.0])) != tensor_hash(torch.tensor([-0.0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_same_on_a_gpu() -> None:
    for count in (1, 8193, 5_000_003):
        tensor = torch.randn(count).to(torch.bfloat16)
        assert tensor_hash(tensor.cuda()) == tensor_hash(tensor)
