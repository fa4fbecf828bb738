"""Checkpoints on disk: layout, headers, tensors, adapters, licences, and where a model's name leads.

What `check` needs is read from small files and headers, without torch and without weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.checkpoints._atomic_directory import atomic_directory, check_free
    from evomerge.checkpoints._headers import WIDTHS, TensorInfo
    from evomerge.checkpoints._inspection import ModelFacts, facts_of, problems_between, warnings_between
    from evomerge.checkpoints._layout import (
        LAYER_COUNT_KEYS,
        Layout,
        Role,
        compare_layouts,
        config_difference,
        layer_count_key,
        read_json,
        read_layout,
        text_config,
        vocabulary_difference,
    )
    from evomerge.checkpoints._licence import licence_of, licence_warnings
    from evomerge.checkpoints._lint import lint_folder
    from evomerge.checkpoints._memory import (
        available_bytes,
        check_disk,
        check_memory,
        ranking_stride,
        resident_bytes,
        shared_bytes,
    )
    from evomerge.checkpoints._resolve import (
        ADAPTER_CONFIG,
        ADAPTER_WEIGHTS,
        CONFIG,
        locate,
        parse_reference,
        revision_of,
        short_name,
    )
    from evomerge.checkpoints._shards import SHARD_BYTES, ShardSlot, plan_shards, write_shards, write_text
    from evomerge.checkpoints._tensor_reader import CheckpointReader, count_nonfinite

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "CONFIG",
    "LAYER_COUNT_KEYS",
    "SHARD_BYTES",
    "WIDTHS",
    "CheckpointReader",
    "Layout",
    "ModelFacts",
    "Role",
    "ShardSlot",
    "TensorInfo",
    "atomic_directory",
    "available_bytes",
    "check_disk",
    "check_free",
    "check_memory",
    "compare_layouts",
    "config_difference",
    "count_nonfinite",
    "facts_of",
    "layer_count_key",
    "licence_of",
    "licence_warnings",
    "lint_folder",
    "locate",
    "parse_reference",
    "plan_shards",
    "problems_between",
    "ranking_stride",
    "read_json",
    "read_layout",
    "resident_bytes",
    "revision_of",
    "shared_bytes",
    "short_name",
    "text_config",
    "vocabulary_difference",
    "warnings_between",
    "write_shards",
    "write_text",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
