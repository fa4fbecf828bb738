"""Masks: pure functions of (key, element), and statistically like independent uniform numbers."""

import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merge import mask_key
from evomerge.merge._masks import bernoulli, draws, slice_key, uniform

from .fixtures import relaxed

COUNT = 200_000
KEYS = [mask_key(0, "a", "w"), mask_key(0, "b", "w"), 0, 1, 2, (1 << 64) - 1, 1 << 63]


def splitmix(key: int, number: int) -> int:
    """The published generator in unbounded integers: output `number` of the stream that starts at `key`."""
    mask = (1 << 64) - 1
    z = (key + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_known_outputs_of_splitmix64() -> None:
    """The first outputs for seed 1234567, as published with the reference implementation."""
    assert [splitmix(1234567, i) for i in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("key", KEYS)
def test_draws_equal_their_readable_twin(key: int) -> None:
    expected = []
    for element in range(1001):
        number = splitmix(key, element // 2)
        half = number >> 32 if element % 2 else number & 0xFFFFFFFF
        expected.append(half >> 8)
    assert draws(key, 1001).tolist() == expected
    assert draws(key, 90000)[-100:].tolist() == draws(key, 100, offset=89900).tolist()


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 40), st.lists(st.integers(0, 50), max_size=6))
@relaxed
def test_any_split_gives_the_same_numbers(key: int, start: int, lengths: list[int]) -> None:
    whole = uniform(key, sum(lengths), start)
    parts, offset = [torch.empty(0)], start
    for length in lengths:
        parts.append(uniform(key, length, offset))
        offset += length
    assert torch.equal(whole, torch.cat(parts))


def test_threads_and_order_do_not_matter() -> None:
    pieces = [(offset, 997) for offset in range(0, 99_700, 997)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda piece: uniform(5, piece[1], piece[0]), reversed(pieces)))
    assert torch.equal(torch.cat(found[::-1]), uniform(5, 99_700))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_the_accelerator_draws_the_same() -> None:
    assert torch.equal(uniform(7, 100_001, 3), uniform(7, 100_001, 3, device="cuda").cpu())


def test_keys_differ_by_seed_source_and_tensor() -> None:
    names = [(seed, source, tensor) for seed in (0, 1) for source in ("a", "b") for tensor in ("x", "xy")]
    keys = [mask_key(*name) for name in names] + [mask_key(0, "ax", "y"), slice_key(3, 0), slice_key(3, 1)]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 1 << 64 for key in keys)
    assert mask_key(0, "base-math", "model.embed_tokens.weight") == 13666647390541227352  # recorded: recipes rely on it


@pytest.mark.parametrize("key", KEYS)
def test_one_stream_looks_uniform(key: int) -> None:
    u = uniform(key, COUNT).double()
    assert 0 <= float(u.min()) < 1e-4
    assert 1 - 1e-4 < float(u.max()) < 1
    deviation = 1 / math.sqrt(COUNT)
    assert abs(float(u.mean()) - 0.5) < 5 * math.sqrt(1 / 12) * deviation
    assert abs(float(u.var()) - 1 / 12) < 5 * math.sqrt(1 / 180) * deviation
    counts = torch.histc(u, bins=256, min=0, max=1)
    chi_square = float(((counts - COUNT / 256) ** 2 / (COUNT / 256)).sum())
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)
    centred = u - u.mean()
    for lag in (1, 2, 3, 64, 4096):
        correlation = float((centred[lag:] * centred[:-lag]).mean()) * 12
        assert abs(correlation) < 5 * deviation
    pairs = torch.bincount((u[::2] * 16).long() * 16 + (u[1::2] * 16).long(), minlength=256).double()
    expected = COUNT / 2 / 256
    assert abs(float(((pairs - expected) ** 2 / expected).sum()) - 255) < 5 * math.sqrt(2 * 255)


def test_streams_of_different_keys_are_independent() -> None:
    streams = torch.stack([uniform(key, COUNT) for key in KEYS]).double()
    centred = streams - streams.mean(dim=1, keepdim=True)
    correlation = centred @ centred.T / COUNT * 12
    off_diagonal = correlation - torch.diag(correlation.diagonal())
    assert float(off_diagonal.abs().max()) < 5 / math.sqrt(COUNT)


def test_bernoulli_keeps_the_asked_share() -> None:
    for p in (0.0, 0.01, 0.3, 0.999, 1.0):
        share = float(bernoulli(9, COUNT, p).double().mean())
        assert abs(share - p) <= 5 * math.sqrt(p * (1 - p) / COUNT)
    each = torch.tensor([0.0, 1.0]).repeat(50)
    assert torch.equal(bernoulli(9, 100, each), each.bool())
