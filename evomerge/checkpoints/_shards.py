"""Writes safetensors files whose tensors arrive in blocks, in any order and from several threads.

A model of any size passes through the memory of one block per thread.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.checkpoints._headers import WORDS, TensorInfo
from evomerge.checkpoints._layout import INDEX_FILE, SINGLE_FILE

if TYPE_CHECKING:
    from torch import Tensor

SHARD_BYTES = 5 * 10**9  # as transformers splits checkpoints
_ALIGNMENT = 8  # the data starts at a multiple of this, so that tensors can be mapped into memory


@dataclass(frozen=True)
class Shard:
    """One file to write, and the tensors that go into it, in the order of their bytes."""

    file: str
    tensors: tuple[tuple[str, TensorInfo], ...]


def plan_shards(tensors: Mapping[str, TensorInfo], shard_bytes: int) -> list[Shard]:
    """Return the files of a checkpoint: one, or numbered shards of at most `shard_bytes` (larger only for one tensor).

    Wide elements come first within a file, so that every tensor is aligned to its own width.
    """
    groups: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if groups[-1] and size + info.bytes > shard_bytes:  # a tensor larger than a shard gets one of its own
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += info.bytes
    count = len(groups)
    files = [SINGLE_FILE] if count == 1 else [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    return [
        Shard(file, tuple((name, tensors[name]) for name in sorted(names, key=lambda n: -_width(tensors[n]))))
        for file, names in zip(files, groups, strict=True)
    ]


class ShardSlot:
    """Byte range of one tensor in a file being written; a `parallel.Target`."""

    def __init__(self, descriptor: int, offset: int, name: str, info: TensorInfo) -> None:
        self.name = name
        self._descriptor = descriptor
        self._offset = offset
        self._info = info

    def block(self, start: int, stop: int) -> Tensor:
        """Return fresh memory, (stop - start,), for the elements from `start` to `stop`."""
        import torch

        return torch.empty(stop - start, dtype=getattr(torch, self._info.dtype))

    def filled(self, start: int, block: Tensor) -> None:
        """Write a block, (n,), to its byte range in the file; called by any thread.

        Raises:
            OSError: the disk is full, or whatever else the system says.
        """
        import torch

        # NumPy has no bfloat16, so bytes are taken
        raw = block.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        offset = self._offset + start * _width(self._info)
        while raw:
            # positional: threads share one descriptor without a lock
            written = os.pwrite(self._descriptor, raw, offset)
            raw, offset = raw[written:], offset + written  # the system may write less than it was given


def write_shards(folder: Path, shards: Sequence[Shard], fill: Callable[[Sequence[ShardSlot]], None]) -> int:
    """Write a checkpoint's weights files into a folder and return their size in bytes.

    Each file is on the disk (fsync) when this returns. Several shards get an index file, as transformers writes it.

    Args:
        folder: exists, and holds no files of these names.
        shards: from `plan_shards`.
        fill: writes the tensors of one file to their slots, every element of each.
    """
    total = sum(_write(folder / shard.file, shard, fill) for shard in shards)
    if len(shards) > 1:
        weight_map = {name: shard.file for shard in shards for name, _ in shard.tensors}
        size = sum(info.bytes for shard in shards for _, info in shard.tensors)
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        write_text(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n")
    return total


def write_text(path: Path, text: str) -> None:
    """Write a small file and bring it to the disk."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _write(path: Path, shard: Shard, fill: Callable[[Sequence[ShardSlot]], None]) -> int:
    header = _header(shard)
    with path.open("wb") as file:
        file.write(header)
        file.flush()  # the header leaves Python's buffer before pwrite goes around it
        slots, offset = [], len(header)
        for name, info in shard.tensors:
            slots.append(ShardSlot(file.fileno(), offset, name, info))
            offset += info.bytes
        fill(slots)
        os.fsync(file.fileno())  # a full disk may show only here
    return offset


def _header(shard: Shard) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, info in shard.tensors:
        entries[name] = {
            "dtype": WORDS[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, offset + info.bytes],
        }
        offset += info.bytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)  # the format allows trailing spaces
    return struct.pack("<Q", len(text)) + text


def _width(info: TensorInfo) -> int:
    return info.bytes // max(info.elements, 1)  # bytes per element; 0 for an empty tensor
