"""Resident model: parents on the device, and one transformers model whose parameters are written in place.

A candidate costs one pass over memory and no disk. Every write starts from the parents, never from the last
candidate, so what is written depends on the recipe alone and rounding never adds up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge._tokenizer import TokenizerChoice
from evomerge.checkpoints import Layout, check_memory, ranking_stride, shared_bytes
from evomerge.engine._chat_template import chat_template_of
from evomerge.engine._merge_plan import merged_part
from evomerge.engine._parameter_map import map_parameters
from evomerge.engine._parents import Parents, find_parents, structure_difference
from evomerge.engine._vocabulary import merge_of
from evomerge.engine.route._routes import MERGED, LayerCall, merged_origins, read_route
from evomerge.errors import ExtraMissing, WeightsError
from evomerge.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from evomerge.engine._merge_plan import TensorOp
    from evomerge.engine.route._routed_model import Routes
    from evomerge.engine.route._stack import LayerEvaluations


class ResidentModel:
    """Parents in memory and one model that holds the last recipe written; meant to be mutated, by `write` only.

    It owns the memory of parents and model. Not for use from several threads. Before the first `write`, and after
    a `write` that raised, the model's weights are unknown: `written` is None and nothing may be scored.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        base: str | None = None,
        device: str | None = None,
        revisions: Mapping[str, str] | None = None,
        tokenizer: TokenizerChoice | None = None,
        shared: bool = False,
        share_bytes: int | None = None,
    ) -> None:
        """Load the parents once, at their stored precision, and build an empty model.

        Args:
            models: every model that a recipe may name.
            base: whose configuration and tokenizer the model takes; None: the first.
            device: torch's word for it; None: the GPU that this process may use, else the CPU.
            revisions: model -> revision that it must have.
            tokenizer: as the recipes say; None: the base's, to which the other vocabularies are aligned.
            shared: on the CPU, use the parents where their files are mapped, so that all processes of a machine hold
                them once; the files must not be written to meanwhile. False: copies of our own.
            share_bytes: most memory for activations that recipes with a route share; None: chosen from what is free.

        Raises:
            WeightsError: a model is missing, damaged or does not fit the others, or memory does not suffice.
        """
        try:
            import torch
            import transformers  # noqa: F401
        except ImportError as error:
            raise ExtraMissing(error.name or "transformers", "hf") from error
        from evomerge.engine._parallel import ParallelMerger
        from evomerge.merge.kernels import TensorStats

        self.base = base or models[0]  # lends configuration and tokenizer
        named = () if tokenizer is None else tokenizer.models()
        self.parents: Parents = find_parents(dict.fromkeys((self.base, *models, *named)), revisions)
        self._home = merge_of(models, self.base, tokenizer)  # a recipe of all models: its alignment serves every merge
        alignment = self.parents.alignment(self._home)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_memory(list(self.parents.layouts.values()), self.device.type)
        self.written: tuple[str, str] | None = None  # (digest of the recipe, fingerprint of its weights)
        self._tensors = _load(self.parents, self._home, self.device, shared)
        layout = self._layout = self.parents.layouts_for(self._home)[self.base]
        self.model: Any = _empty_model(layout, self.device)
        self._parameters = map_parameters(self.model, layout)
        stats = TensorStats(keep=True, stride=ranking_stride(list(self.parents.layouts.values()), self.device.type))
        self._merger = ParallelMerger(self._parent, self.parents.revisions, stats, device=self.device)
        self._held: dict[str, tuple[TensorOp, str]] = {}  # tensor -> (the step that made it, its hash)
        self.tokenizer: Any = _tokenizer(layout if alignment is None else self.parents.layouts[alignment.donor])
        if alignment is not None and alignment.tokenizer is not None:
            self.tokenizer = alignment.tokenizer
        self._template = getattr(self.tokenizer, "chat_template", None)
        self._share_bytes = share_bytes
        self._routes: Routes | None = None  # set up with the first recipe that has a route

    def write(self, recipe: Recipe) -> str:
        """Make the model's weights the recipe's, and return their fingerprint, taken from the model's own memory.

        The hash of each block is taken after it was written, while it is still in the cache. Tensors that are as this
        recipe wants them are not merged again; that they are still so is seen from their hash, taken anew.

        Raises:
            CandidateError: the merged weights hold NaN or infinity.
            WeightsError: the recipe names other models, or its result is another network than the base.
        """
        from evomerge.engine._fingerprint import combine

        steps = self.parents.merged_steps(recipe)
        hops = None if recipe.route is None else read_route(recipe, self.parents.layouts)
        body = merged_part(recipe)  # a route's own structure is checked by `read_route`
        difference = structure_difference(body, self.parents, self.base, self._layout)
        if difference is not None:
            raise WeightsError(
                f"the recipe's architecture differs from '{self.base}' ({difference}) and cannot be "
                "written into the resident model; export it (evomerge merge) and score the folder"
            )
        self.parents.check_alignment(recipe, self._home)
        self.written = None  # from here on an error leaves mixed weights
        if self._routes is not None:
            self._routes.restore()  # a merge writes into the model's own layers
        if hops is not None:
            visited = {None, *(hop.layer for hop in hops if hop.source == MERGED)}
            # other layers would not run
            steps = [step for step in steps if self._layout.layer_of(step.name) in visited]
        hashes = self._merge([step for step in steps if step.method])  # buffers came with the model
        if hops is not None:
            hashes = self._point(recipe, hops, hashes)
        if self.tokenizer is not None:
            # None: the donor's own
            self.tokenizer.chat_template = chat_template_of(recipe, self.parents) or self._template
        fingerprint = combine(hashes.items())
        self.written = (recipe.digest, fingerprint)
        return fingerprint

    def fingerprint(self) -> str:
        """Return the fingerprint of the tensors that the model runs through now, with shapes and dtypes."""
        from evomerge.engine._fingerprint import combine, describe

        if self._routes is None or not self._routes.pointed:
            return combine((name, describe(view)) for name, view in self._parameters.items())
        return combine(self._routes.parts({name: describe(self._parameters[name]) for name in self._held}).items())

    def norms(self) -> dict[str, float]:
        """Return the Euclidean norm, float32, of every tensor of the merge that the model runs through, from memory."""
        routed = self._routes is not None and self._routes.pointed
        return {name: _norm(self._parameters[name]) for name in (self._held if routed else self._parameters)}

    @property
    def work(self) -> LayerEvaluations | None:
        """Layer evaluations since the last `write`, computed and shared, where its recipe has a route."""
        return self._routes.work if self._routes is not None and self._routes.pointed else None

    def parent_norms(self) -> dict[str, float]:
        """Return, by tensor, the largest Euclidean norm, float32, among the parents that have it."""
        return {
            name: max((_norm(own[name]) for own in self._tensors.values() if name in own), default=0.0)
            for name in self._parameters
        }

    def _point(self, recipe: Recipe, hops: Sequence[LayerCall], hashes: Mapping[str, str]) -> dict[str, str]:
        """Make the model run through a route; return what its fingerprint is made of."""
        from evomerge.engine.route._routed_model import BaseStack, Routes

        if self._routes is None:
            made = BaseStack(
                self.model, self._layout, self._parameters, lambda layout: _empty_model(layout, self.device)
            )
            room = shared_bytes(self.device.type) if self._share_bytes is None else self._share_bytes
            # kept: its shared layers and activations outlive a candidate
            self._routes = Routes(made, self.parents.layouts, self._tensors, room)
        origins = merged_origins(recipe, self.parents.layouts)
        return self._routes.point(hops, hashes, origins, self.model.dtype)

    def _parent(self, model: str, name: str) -> torch.Tensor:
        return self._tensors[model][name]

    def _merge(self, steps: Sequence[TensorOp]) -> dict[str, str]:
        """Write every step's result into its parameter and return the hashes by tensor name.

        A tensor whose step is that of the last write is not merged again if its hash, taken anew from memory, is still
        the one of then.
        """
        from evomerge.engine._fingerprint import describe
        from evomerge.engine._parallel import Memory

        kept: dict[str, str] = {}
        for step in steps:
            known = self._held.pop(step.name, None)  # removed first: an error must not leave a stale entry
            if known is not None and known[0] == step and describe(self._parameters[step.name]) == known[1]:
                kept[step.name] = known[1]
        self._held.clear()  # while a merge runs, nothing is known of the memory
        work = [(step, Memory(self._memory(step))) for step in steps if step.name not in kept]
        hashes = {**kept, **self._merger.run(work)}
        self._held = {step.name: (step, hashes[step.name]) for step in steps}
        return hashes

    def _memory(self, step: TensorOp) -> torch.Tensor:
        """Return the memory of a step's tensor inside the model, in the step's dtype."""
        import torch

        return self._parameters.memory(step.name, getattr(torch, step.dtype))


def _load(
    parents: Parents, home: Recipe, device: torch.device, mapped: bool = False
) -> dict[str, dict[str, torch.Tensor]]:
    """Return every parent's tensors on the device, in stored shape and dtype; an adapter shares its base's."""
    shared: dict[tuple[str, str], torch.Tensor] = {}
    loaded: dict[str, dict[str, torch.Tensor]] = {}
    with contextlib.ExitStack() as stack:
        readers = {model: stack.enter_context(reader) for model, reader in parents.readers(home).items()}
        for model, reader in readers.items():
            layout = parents.layouts[model]
            tensors: dict[str, torch.Tensor] = {}
            for name in (*layout.tensors, *layout.buffers):
                key = (str(layout.folder.resolve()), name)  # adapters on one base share its folder
                if reader.changed(name):
                    tensors[name] = reader.tensor(name).to(device)
                else:
                    if key not in shared:
                        tensor = reader.tensor(name)
                        shared[key] = tensor.to(device) if mapped else _own(tensor, device)
                    tensors[name] = shared[key]
            loaded[model] = tensors
    return loaded


def _norm(tensor: torch.Tensor) -> float:
    import torch

    return float(torch.linalg.vector_norm(tensor, dtype=torch.float32))  # 16-bit squares would overflow


def _own(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    # on the CPU a tensor may be a window into its file, which would be paged out and read again for each candidate
    moved = tensor.to(device)  # no copy where it lies there already
    return moved.clone() if moved.data_ptr() == tensor.data_ptr() else moved


def _empty_model(layout: Layout, device: torch.device) -> Any:
    """Return the model that a configuration describes, in eval mode, its parameters allocated and not initialised.

    Built on the device itself and not on torch's meta device: what modules compute while they are built (rotary
    frequencies) stays as computed.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    folder = layout.folder
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if layout.embedding is not None:
            config.get_text_config().vocab_size = layout.embedding_rows()  # the rows after alignment
        with device, _no_init_weights():
            model = AutoModelForCausalLM.from_config(
                config, dtype=getattr(torch, layout.dtype), trust_remote_code=False
            )
    except (ValueError, KeyError, OSError, ImportError) as error:
        raise WeightsError(
            f"'{folder}': transformers builds no causal language model from its config.json: {error}"
        ) from error
    model.tie_weights()  # leaving out the initialisation also leaves out the tying
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval().requires_grad_(False)  # eval: dropout would make scores random


def _no_init_weights() -> Any:
    """Return the context in which transformers leaves new parameters as they were allocated."""
    import importlib

    for home in ("transformers.initialization", "transformers.modeling_utils"):  # transformers 5, transformers 4
        with contextlib.suppress(ImportError, AttributeError):
            return importlib.import_module(home).no_init_weights()
    return contextlib.nullcontext()


def _tokenizer(layout: Layout) -> Any:
    """Return the model's tokenizer, or None where its folder has none."""
    from transformers import AutoTokenizer

    folder = layout.folder
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        return None
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
