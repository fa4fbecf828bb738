"""Export: a recipe's model as a folder in Hugging Face layout, streamed, all or nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.checkpoints import (
    CONFIG,
    SHARD_BYTES,
    CheckpointReader,
    ShardSlot,
    TensorInfo,
    atomic_directory,
    check_disk,
    check_free,
    lint_folder,
    plan_shards,
    write_shards,
    write_text,
)
from evomerge.engine._chat_template import TEMPLATE_FILE, chat_template_of
from evomerge.engine._merge_plan import TensorOp
from evomerge.engine._merged_config import merged_config
from evomerge.engine._parents import Parents, find_parents
from evomerge.engine.route._mergekit import route_to_mergekit
from evomerge.engine.route._routes import read_route, scale_name
from evomerge.errors import WeightsError
from evomerge.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge.engine.route._fold_check import FoldReport

# What belongs to a tokenizer and to generation; copied from the donor as they are.
COMPANION_FILES = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
_DONOR_FILES = ("generation_config.json",)
RECIPE_FILE = "recipe.json"
MERGEKIT_FILE = "mergekit_config.yml"
CARD_FILE = "README.md"
# The parents' files are mapped into memory; after this much of the result they are unmapped, so that what was read does
# not add up to whole models.
RELEASED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ExportReport:
    """What was written."""

    folder: Path
    fingerprint: str  # hash of the weights; equal to the resident model's after writing the same recipe
    bytes: int  # size of the weights files
    tensors: int
    findings: tuple[str, ...] = ()  # inconsistencies of the folder and notes, one sentence each
    resident_fingerprint: str = ""  # where it is another: of the resident model, which applies a route's scales itself


def export(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    shard_bytes: int = SHARD_BYTES,
    card: str | None = None,
    extra_files: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Merge a recipe into a new folder that `from_pretrained` loads.

    One block per thread is in memory, or one tensor where the method needs it whole. The folder appears under its
    name when it is complete, and not before; whatever goes wrong (an interrupt included), nothing of it is left behind.

    Args:
        recipe: what to merge.
        out: the folder to make; must not exist, or be empty.
        shard_bytes: a weights file is not larger than this, save for a single larger tensor.
        card: text of the model card, README.md; None: none.
        extra_files: further text files, name -> text.
        progress: called with (tensors done, tensors in all).

    Raises:
        WeightsError: the folder is taken, the disk full or read-only, or the models do not fit each other.
        CandidateError: the merged weights hold NaN or infinity.
    """
    target = Path(out)
    extra = dict(extra_files or {})
    for name in extra:
        if Path(name).name != name:  # a name with a separator could leave the folder
            raise WeightsError(f"extra_files: expected plain file names, got {name!r}")
    check_free(target)  # before any work; checked again when the folder is renamed
    choice = recipe.tokenizer_choice
    parents = find_parents((*recipe.references(), *(choice.models() if choice else ())), dict(recipe.revisions))
    steps = parents.steps(recipe)
    texts = {**_own_files(recipe, parents), **extra, **({CARD_FILE: card} if card is not None else {})}
    alignment = parents.alignment(recipe)
    companions = _companions(recipe, parents, replaced=texts)
    # known before any weight is read, so the disk is checked first
    infos = {step.name: TensorInfo(step.shape, step.dtype, "") for step in steps}
    with atomic_directory(target) as folder:
        check_disk(folder, sum(info.bytes for info in infos.values()))
        for path in companions:
            shutil.copyfile(path, folder / path.name)
        if alignment is not None and alignment.tokenizer is not None:
            alignment.tokenizer.save_pretrained(folder)
        for name, text in texts.items():
            write_text(folder / name, text)
        merged = _Merge(steps, parents.readers(recipe), parents.revisions, progress)
        try:
            size = write_shards(folder, plan_shards(infos, shard_bytes), merged.fill)
            fold = None if recipe.route is None else _check_route(recipe, parents, folder, steps, merged)
        finally:
            merged.close()
    findings = (*(alignment.notes if alignment is not None else ()), *lint_folder(target))
    if fold is None:
        return ExportReport(target, merged.fingerprint(), size, len(steps), findings)
    note = (
        f"the route's entry scales are folded into the weights; of {fold.tokens} log likelihoods, measured both ways, "
        f"none differs by more than {fold.error:.2g} nats"
    )
    hops = enumerate(read_route(recipe, parents.layouts))
    scales = {scale_name(slot): repr(hop.scale) for slot, hop in hops if hop.scale != 1.0}
    own = merged.fingerprint({**fold.hashes, **scales})  # the resident model keeps weights unscaled and scales apart
    return ExportReport(target, merged.fingerprint(), size, len(steps), (*findings, note), own)


def _check_route(
    recipe: Recipe, parents: Parents, folder: Path, steps: Sequence[TensorOp], merged: _Merge
) -> FoldReport | None:
    """Check that a route's checkpoint is a network that transformers builds, and what its scales, if any, became."""
    from evomerge.engine.route._fold_check import check_fold, check_structure

    check_structure(folder)
    if all(step.fold is None for step in steps):
        return None
    return check_fold(folder, steps, read_route(recipe, parents.layouts), merged.read, parents.revisions)


class _Merge:
    """Merges the tensors of one file after another, and remembers their hashes."""

    def __init__(
        self,
        steps: list[TensorOp],
        readers: Mapping[str, CheckpointReader],
        revisions: Mapping[str, str],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        from evomerge.engine._parallel import ParallelMerger
        from evomerge.merge.kernels import TensorStats

        self._steps = {step.name: step for step in steps}
        self.readers = readers
        self._revisions = revisions
        self._merger = ParallelMerger(self.read, revisions, TensorStats(keep=False))
        self._progress = progress
        self._hashes: dict[str, str] = {}
        self._done = 0
        self._bytes = 0  # result bytes since the parents' files were last unmapped

    def fill(self, slots: Sequence[ShardSlot]) -> None:
        """Merge the tensors of these slots."""
        from evomerge.engine._assemble import assemble

        work = []
        for slot in slots:
            step = self._steps[slot.name]
            if step.method:
                work.append((step, slot))
            else:
                slot.filled(0, assemble(step, self.read, self._revisions))  # buffers are small: written whole
                self._finished(step)
        self._hashes |= self._merger.run(work, self._finished)

    def fingerprint(self, changed: Mapping[str, str] | None = None) -> str:
        from evomerge.engine._fingerprint import combine

        return combine({**self._hashes, **(changed or {})}.items())

    def close(self) -> None:
        for reader in self.readers.values():
            reader.close()

    def read(self, model: str, tensor: str) -> Tensor:
        return self.readers[model].tensor(tensor)

    def _finished(self, step: TensorOp) -> None:
        self._bytes += TensorInfo(step.shape, step.dtype, "").bytes
        if self._bytes > RELEASED_BYTES:
            self._bytes = 0
            self.close()  # they open again when they are read; what was read of them leaves this process's memory
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, len(self._steps))


def _own_files(recipe: Recipe, parents: Parents) -> dict[str, str]:
    """Return the text files that describe the merge: configuration, recipe, mergekit's YAML, chat template."""
    import yaml

    complete = recipe.with_revisions(parents.revisions)
    files = {
        CONFIG: json.dumps(merged_config(recipe, parents.layouts_for(recipe)), indent=2, ensure_ascii=False) + "\n",
        RECIPE_FILE: json.dumps(complete.to_mapping(), indent=2, ensure_ascii=False) + "\n",
    }
    with contextlib.suppress(WeightsError):  # not every route can be said in mergekit's words
        document = recipe.to_mergekit() if recipe.route is None else route_to_mergekit(recipe, parents.layouts)
        files[MERGEKIT_FILE] = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    template = chat_template_of(recipe, parents)
    if template is not None:
        files[TEMPLATE_FILE] = template
    return files


def _companions(recipe: Recipe, parents: Parents, replaced: Mapping[str, str]) -> list[Path]:
    """Return the files that are copied: the tokenizer's from its model, the others from the donor."""
    alignment, choice = parents.alignment(recipe), recipe.tokenizer_choice
    donor = parents.donor(recipe).folder
    source = donor  # without an alignment every tokenizer of the merge is the donor's
    if alignment is not None:
        source = parents.layouts[alignment.donor].folder
    elif choice is not None and choice.source in parents.layouts:
        source = parents.layouts[choice.source].folder
    made_anew = alignment is not None and alignment.tokenizer is not None
    names = [name for name in COMPANION_FILES if name not in replaced]
    folders = {name: donor if name in _DONOR_FILES else source for name in names}
    if made_anew:  # the tokenizer writes its own files
        folders = {name: folder for name, folder in folders.items() if name in _DONOR_FILES}
    return [folder / name for name, folder in folders.items() if (folder / name).is_file()]
