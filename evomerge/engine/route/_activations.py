"""Cache of layer outputs: candidates whose routes begin with the same layers share their activations.

Routes of one population form a trie: nodes are layers (their weights) with the scale on entering them. An output is
kept under a hash of everything that determined it: the hidden states that entered the stack, and for every layer from
there on its weights, its scale, its masks and positions, and what its cache held. So a hit is the very tensor that the
layer would compute again, and whatever cannot be hashed is computed. What a layer has put into its cache is named after
the key under which it ran, and so is not hashed while an answer is written token by token.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from evomerge.engine._fingerprint import describe

# Caches whose tensors are replaced and not written into, so that they can be shared.
_GROWING = ("DynamicLayer", "DynamicSlidingWindowLayer")
# Bytes up to which one call of hashlib is faster on a CPU than the many of `describe`.
_SMALL = 1 << 20
_PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)


@dataclass(frozen=True)
class Kept:
    """Output (..., tokens, width) of one layer, and the keys and values that it added to its cache, if any."""

    output: Any
    added: tuple[torch.Tensor, torch.Tensor] | None = None  # keys and values of the tokens of the pass
    state: Mapping[str, Any] | None = None  # all of the cache layer, where it holds fewer tokens than the pass had

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return bytes_of(self.output) + bytes_of(self.added) + bytes_of(self.state)


class ActivationStore:
    """Outputs (..., tokens, width) by key, bounded in bytes; evicts the least recently used, never this candidate's.

    That exception keeps the store useful when it is smaller than one candidate's outputs: what fits stays and is found
    by the next candidate, instead of every entry being driven out shortly before it is wanted.
    """

    def __init__(self, limit: int) -> None:
        """Set the bound, in bytes."""
        self.limit = limit
        self.bytes = 0
        self._kept: OrderedDict[str, tuple[Kept, int]] = OrderedDict()
        self._candidate = 0

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self) -> None:
        """Begin the next candidate."""
        self._candidate += 1

    def find(self, key: str) -> Kept | None:
        """Return the output (..., tokens, width) under a key, or None."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept[key] = (found[0], self._candidate)
        self._kept.move_to_end(key)  # an OrderedDict's end is the most recently used
        return found[0]

    def keep(self, key: str, kept: Kept) -> None:
        """Store an output if it fits, after dropping outputs of earlier candidates."""
        size = kept.bytes
        if size > self.limit:  # nothing would be gained by emptying the store for it
            return
        while self.bytes + size > self.limit:
            oldest = next(iter(self._kept))
            if self._kept[oldest][1] == self._candidate:
                return
            self.bytes -= self._kept.pop(oldest)[0].bytes
        self._kept[key] = (kept, self._candidate)
        self.bytes += size

    def touch(self, keys: Iterable[str]) -> None:
        """Make keys the most recently used, the last one most of all."""
        for key in keys:
            if key in self._kept:
                self._kept.move_to_end(key)

    def clear(self) -> None:
        """Drop all outputs."""
        self._kept.clear()
        self.bytes = 0


class Digests:
    """Hashes of tensors of any shape and dtype, each computed once while the tensor lives."""

    def __init__(self) -> None:
        self._passing: dict[int, tuple[torch.Tensor, str]] = {}  # this pass's tensors, held so that ids stay unique
        self._lasting: dict[int, tuple[weakref.ref[torch.Tensor], str]] = {}  # tensors inside caches

    def begin_pass(self) -> None:
        """Forget the hashes of the last pass's inputs."""
        self._passing.clear()  # tensors of the last pass are freed

    def of(self, value: Any) -> str | None:
        """Return a text that is equal only for equal values; None for values that cannot be hashed."""
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, _PLAIN):
            return repr(value)
        if isinstance(value, (tuple, list)):
            return self._joined("sequence", [self.of(part) for part in value])
        if isinstance(value, Mapping):
            keys = sorted(value, key=str)
            return self._joined(repr([str(key) for key in keys]), [self.of(value[key]) for key in keys])
        return None

    def of_cache(self, layer: Any) -> str | None:
        """Return such a text for one layer of a key-value cache, keys and values (batch, heads, tokens, head size)."""
        if layer is None:
            return "empty"
        if type(layer).__name__ not in _GROWING:  # written in place: a hash taken now would soon be wrong
            return None
        if not layer.is_initialized:
            return "empty"
        counts = [getattr(layer, name, None) for name in ("cumulative_length", "sliding_window")]
        return f"{counts} {self._lasts(layer.keys)} {self._lasts(layer.values)}"

    def name_cache(self, layer: Any, key: str) -> None:
        """Name one layer of a cache by the key of the pass that has just extended it, instead of hashing it."""
        if type(layer).__name__ in _GROWING and layer.is_initialized:
            self._remember(layer.keys, f"keys after {key}")
            self._remember(layer.values, f"values after {key}")

    @staticmethod
    def _joined(name: str, parts: list[str | None]) -> str | None:
        # one part without a hash leaves the whole without one
        return None if None in parts else f"{name}({','.join(str(part) for part in parts)})"

    def _tensor(self, tensor: torch.Tensor) -> str:
        known = self._passing.get(id(tensor))
        if known is None:
            known = self._passing[id(tensor)] = (tensor, _text_of(tensor))
        return known[1]

    def _lasts(self, tensor: torch.Tensor) -> str:
        known = self._lasting.get(id(tensor))
        if known is None or known[0]() is not tensor:
            return self._remember(tensor, _text_of(tensor))
        return known[1]

    def _remember(self, tensor: torch.Tensor, text: str) -> str:
        number = id(tensor)
        forget = weakref.ref(tensor, lambda gone: self._forget(number, gone))
        self._lasting[number] = (forget, text)
        return text

    def _forget(self, number: int, gone: weakref.ref[torch.Tensor]) -> None:
        # another tensor may have got the number of one that is gone, and have been remembered, before we hear of it
        if number in self._lasting and self._lasting[number][0] is gone:
            del self._lasting[number]


def _text_of(tensor: torch.Tensor) -> str:
    """Return dtype, shape and a hash of a tensor's bits as text."""
    if tensor.device.type != "cpu" or tensor.numel() * tensor.element_size() > _SMALL:
        return describe(tensor)
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()  # (bytes,)
    return f"{tensor.dtype}{list(tensor.shape)}:{hashlib.blake2b(raw.data, digest_size=16).hexdigest()}"


def chained(before: str, *facts: str) -> str:
    """Return the key of a trie node from its parent's key and the facts that determine its output."""
    return hashlib.blake2b("\0".join((before, *facts)).encode(), digest_size=20).hexdigest()


def bytes_of(value: Any) -> int:
    """Return the bytes of all tensors, of any shape and dtype, in a nested value."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(bytes_of(part) for part in value.values())
    return sum(bytes_of(part) for part in value) if isinstance(value, (tuple, list)) else 0
