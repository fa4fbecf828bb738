"""Safetensors headers: which tensors a file holds and where, checked against the file's size. No weights are read.

The format: eight bytes (the header's length, little-endian), a JSON header, then the tensors' bytes.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import WeightsError

# safetensors word -> (torch's name, bytes per element)
DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
}
WORDS = {name: word for word, (name, _) in DTYPES.items()}
WIDTHS = dict(DTYPES.values())  # torch's name -> bytes per element
_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library's own limit


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint, as its file's header describes it."""

    shape: tuple[int, ...]
    dtype: str  # torch's name: float32, bfloat16, ...
    file: str  # name of the file inside the model's folder

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size of the tensor's data."""
        return self.elements * WIDTHS[self.dtype]

    @property
    def floating(self) -> bool:
        """True where the tensor can be merged: 16, 32 or 64-bit floating point."""
        return self.dtype in ("float64", "float32", "float16", "bfloat16")


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name.

    Raises:
        WeightsError: the file is not safetensors, is cut short, or its header contradicts itself.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0  # unsigned, little-endian
        if not 2 <= length <= _LONGEST_HEADER:
            raise WeightsError(f"'{path}' is not a safetensors file, or is damaged: {size} bytes, no readable header")
        text = file.read(length)
    if len(text) < length:  # an interrupted download
        raise _cut_short(path, 8 + length, size)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)  # free text of the writer, no tensor
        # shapes and dtypes only; bytes stay on the disk
        infos = {name: _info(entry, path) for name, entry in header.items()}
        spans = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"'{path}' has a damaged safetensors header: {error}; fetch or convert it again") from error
    _check_spans(path, spans, infos, header)
    expected = 8 + length + (spans[-1][1] if spans else 0)
    if size != expected:
        raise _cut_short(path, expected, size)
    return infos


def _info(entry: dict[str, Any], path: Path) -> TensorInfo:
    word = entry["dtype"]
    if word not in DTYPES:
        raise WeightsError(
            f"'{path}' holds tensors of dtype {word}, which is not supported; known: {', '.join(DTYPES)}"
        )
    return TensorInfo(tuple(int(length) for length in entry["shape"]), DTYPES[word][0], path.name)


def _check_spans(
    path: Path, spans: list[tuple[int, ...]], infos: dict[str, TensorInfo], header: dict[str, Any]
) -> None:
    for name, info in infos.items():
        first, end = header[name]["data_offsets"]
        if end - first != info.bytes:
            raise WeightsError(
                f"'{path}': tensor {name!r} of shape {info.shape} and dtype {info.dtype} needs {info.bytes} bytes, "
                f"its header gives it {end - first}; the file is damaged, fetch or convert it again"
            )
    ends = [0, *(end for _, end in spans)]  # each tensor must begin where the one before it ends
    if any(first != end for (first, _), end in zip(spans, ends, strict=False)):
        raise WeightsError(f"'{path}': tensors overlap or leave gaps; the file is damaged, fetch or convert it again")


def _cut_short(path: Path, expected: int, found: int) -> WeightsError:
    what = "is cut short" if found < expected else "has extra bytes at its end"
    return WeightsError(
        f"'{path}' {what}: its header describes {expected} bytes, found {found}; fetch or copy it again"
    )
