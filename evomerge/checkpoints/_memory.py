"""Memory and disk that a set of models needs, compared with what this machine has."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from evomerge.checkpoints._layout import Layout
from evomerge.errors import WeightsError

# Beside parents and model: float32 copies of one tensor from each parent, and what the forward pass needs, which the
# scorer measures itself.
_FLOAT32 = 4
_INDEX = 4  # bytes per ranked entry
_SPARSE = 64
_MOST_SHARED = 4 * 2**30  # bytes on a CPU, whose memory other processes use too


def resident_bytes(layouts: Sequence[Layout]) -> int:
    """Return the bytes that parents, the resident model and the merge of its largest tensor take.

    Args:
        layouts: of all models, the base first. Adapters on a model that is itself loaded share its tensors.
    """
    stored: dict[str, int] = {}
    adapters = 0
    for layout in layouts:
        stored[str(layout.folder.resolve())] = layout.bytes  # one entry per folder: adapters of one base share it
        if layout.local.adapter is not None:
            adapters += _adapted_bytes(layout)
    largest = max(info.elements for layout in layouts for info in layout.tensors.values())
    scratch = largest * _FLOAT32 * (len(layouts) + 3)  # base, one task vector per parent, the sum, its rounding
    return sum(stored.values()) + adapters + layouts[0].bytes + scratch


def available_bytes(device: str) -> int | None:
    """Return the free memory of a kind of device ('cpu', 'cuda'), or None where it cannot be known."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    if device != "cpu":
        return None
    return _available_main_memory()


def check_memory(layouts: Sequence[Layout], device: str) -> None:
    """Refuse before loading what cannot fit.

    Raises:
        WeightsError: with both numbers and what to do.
    """
    needed, free = resident_bytes(layouts), available_bytes(device)
    if free is not None and needed > free:
        raise WeightsError(
            f"{len(layouts)} models and the resident one need {_gib(needed)} on '{device}', {_gib(free)} are free. "
            "Use fewer models, LoRA adapters (which share their base), or a device with more memory"
        )


def ranking_stride(layouts: Sequence[Layout], device: str) -> int:
    """Return how many entries of a task vector share one entry of its ranking (`thresholds.rank`).

    1, the fastest, if rankings of all task vectors take at most half of the memory that is free now that the models are
    loaded; else few enough to take next to nothing.
    """
    needed = sum(_INDEX * layout.parameters for layout in layouts[1:])
    free = available_bytes(device)
    return 1 if free is None or 2 * needed <= free else _SPARSE  # half: candidates need memory too


def shared_bytes(device: str) -> int:
    """Return how much memory activations that candidates share may take: a quarter of what is free."""
    free = available_bytes(device)
    quarter = _MOST_SHARED // 4 if free is None else free // 4
    return quarter if device == "cuda" else min(quarter, _MOST_SHARED)


def check_disk(folder: Path, needed: int) -> None:
    """Refuse before writing what cannot fit on the disk of an existing folder.

    Raises:
        WeightsError: with both numbers.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(f"'{folder}': the merged model needs {_gib(needed)} of disk, {_gib(free)} are free")


def _adapted_bytes(layout: Layout) -> int:
    from evomerge.checkpoints._lora_adapter import Adapter

    assert layout.local.adapter is not None
    return sum(layout.tensors[name].bytes for name in Adapter(layout.local.adapter, layout).changed)


def _available_main_memory() -> int | None:
    try:
        # what Linux could free without swapping; free pages alone would leave out its file cache
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        machine = int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError):
        try:
            machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError, AttributeError):
            return None
    limit = _container_limit()
    return machine if limit is None else min(machine, limit)


def _container_limit() -> int | None:
    """Return what a Linux control group still allows this process, None without one."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        cache = int(stat.get("file", 0))  # given back when memory is wanted
        return None if limit == "max" else max(int(limit) - used + cache, 0)
    except (OSError, ValueError):
        return None


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
