"""Reads a checkpoint's tensors one at a time, from memory-mapped safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evomerge.checkpoints._layout import Layout, read_layout
from evomerge.checkpoints._lora_adapter import Adapter
from evomerge.errors import ExtraMissing, WeightsError

if TYPE_CHECKING:
    from torch import Tensor


class CheckpointReader:
    """The tensors of one model, under the names of its layout, with its adapter (if any) merged in.

    Nothing is kept but open files. The first read of a tensor checks that it holds numbers. A context manager; several
    threads may read.
    """

    def __init__(self, model: str | Layout) -> None:
        try:
            import safetensors  # noqa: F401
            import torch  # noqa: F401
        except ImportError as error:
            raise ExtraMissing(error.name or "torch", "hf") from error
        self.layout = read_layout(model) if isinstance(model, str) else model
        self._adapter = Adapter(self.layout.local.adapter, self.layout) if self.layout.local.adapter else None
        self._files: dict[str, Any] = {}
        self._checked: set[str] = set()

    def tensor(self, name: str) -> Tensor:
        """Return a tensor in its stored dtype, on the CPU. It may share memory with the file: do not write to it.

        Raises:
            WeightsError: the model has no such tensor, or the tensor holds NaN or infinity.
        """
        # an adapter changes neither names nor shapes
        info = self.layout.tensors.get(name) or self.layout.buffers.get(name)
        if info is None:
            raise WeightsError(f"model '{self.layout.reference}' has no tensor '{name}'")
        tensor = self._stored(info.file, name)
        if self._adapter is not None:
            tensor = self._adapter.apply(name, tensor)  # before the check, so that a broken adapter is found too
        if name not in self._checked:
            self._check(name, tensor)
            self._checked.add(name)  # a file is not expected to change: once is enough
        return tensor

    def changed(self, name: str) -> bool:
        """Return whether the model's adapter changes a tensor; without an adapter nothing is changed."""
        return self._adapter is not None and name in self._adapter.changed

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the merged tensors (not the buffers) with their names, one at a time."""
        for name in self.layout.tensors:
            yield name, self.tensor(name)

    def close(self) -> None:
        """Close the files; tensors that share their memory stay valid, and the next read opens them again."""
        self._files.clear()  # dropping the handles unmaps the files

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _stored(self, file: str, name: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        path = self.layout.folder / file
        try:
            opened = self._files.get(file)  # another thread may open or let go of the same file meanwhile
            if opened is None:
                opened = self._files[file] = safe_open(path, framework="pt")
            return opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"'{path}': tensor '{name}' cannot be read: {error}; fetch or copy it again") from error

    def _check(self, name: str, tensor: Tensor) -> None:
        bad = count_nonfinite(tensor)
        if bad:
            raise WeightsError(
                f"tensor '{name}' of model '{self.layout.reference}' holds {bad} values that are NaN or infinite, of "
                f"{tensor.numel()}; a merge with it would be NaN too. Leave the model out or repair the checkpoint"
            )
        if name == self.layout.embedding:
            self._check_head()

    def _check_head(self) -> None:
        """Refuse a checkpoint whose stored head is not the embedding that its configuration ties it to."""
        if self.layout.stored_head is None or self.layout.embedding is None:
            return
        head, info = self.layout.stored_head
        embedding = self.layout.embedding
        # an adapter on the embedding moves the tied head with it, so the files are compared as they are
        stored, other = self._stored(self.layout.tensors[embedding].file, embedding), self._stored(info.file, head)
        if other.shape != stored.shape or not bool((other == stored).all()):
            raise WeightsError(
                f"model '{self.layout.reference}': config.json ties the output head to the embedding, but '{head}' and "
                f"'{embedding}' differ; set tie_word_embeddings to false in its config.json"
            )


def count_nonfinite(tensor: Tensor) -> int:
    """Return how many elements are NaN or infinite; one fast pass where there are none."""
    import torch

    if not tensor.is_floating_point() or tensor.numel() == 0:  # integers have no NaN
        return 0
    # NaN and infinity survive a sum, so a finite sum proves that there are none; a sum may also overflow by itself
    if bool(torch.isfinite(tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)))):
        return 0
    return tensor.numel() - int(torch.isfinite(tensor).sum())
