"""Writes safetensors files one tensor at a time; a model of any size passes through the memory of one tensor."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from evomerge.weights.headers import WORDS, TensorInfo
from evomerge.weights.layout import INDEX_FILE, SINGLE_FILE

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
        if groups[-1] and size + info.bytes > shard_bytes:
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


def write_shards(folder: Path, shards: Sequence[Shard], tensor_of: Callable[[str], Tensor]) -> int:
    """Write a checkpoint's weights files into a folder and return their size in bytes.

    Each file is on the disk (fsync) when this returns. Several shards get an index file, as transformers writes it.

    Args:
        folder: exists, and holds no files of these names.
        shards: from `plan_shards`.
        tensor_of: makes a tensor when its turn comes; it must have the planned shape and dtype.
    """
    total = sum(_write(folder / shard.file, shard, tensor_of) for shard in shards)
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


def _write(path: Path, shard: Shard, tensor_of: Callable[[str], Tensor]) -> int:
    with path.open("wb") as file:
        file.write(_header(shard))
        for name, info in shard.tensors:
            _write_tensor(file, tensor_of(name), name, info)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


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
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _write_tensor(file: BinaryIO, tensor: Tensor, name: str, info: TensorInfo) -> None:
    import torch

    if tuple(tensor.shape) != info.shape or str(tensor.dtype) != f"torch.{info.dtype}":
        raise RuntimeError(f"tensor '{name}' came as {tuple(tensor.shape)} {tensor.dtype}, planned was {info}")
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    file.write(raw.numpy().data)


def _width(info: TensorInfo) -> int:
    return info.bytes // max(info.elements, 1)
