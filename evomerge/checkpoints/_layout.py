"""Layout of a checkpoint: tensors, layers, modules and roles, read from its configuration and file headers.

Nothing here reads weights, so a 70B model's layout takes milliseconds.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from evomerge.checkpoints._headers import TensorInfo, read_header
from evomerge.checkpoints._resolve import CONFIG, LocalModel, locate
from evomerge.errors import WeightsError

Role = Literal["matrix", "vocab", "vector", "router", "experts"]

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
LAYER_COUNT_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")  # the first number in a tensor's name counts its layer, as in mergekit
_HEADS = ("lm_head.weight", "embed_out.weight")
_INPUT_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|embed_in|embeddings?|word_embeddings|wte|tok_embeddings)\.")
_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings?)\.")
_ROUTER = re.compile(r"\.(gate|router|gate\.wg|router\.layer)\.(weight|bias)$")
# Tables that old checkpoints store beside their weights: computed from the configuration, never trained.
_TABLE = re.compile(
    r"(rotary_emb\.inv_freq|\.attn\.masked_bias|\.attention\.masked_bias|^(transformer\.)?h\.\d+\.attn\.bias)$"
)
_ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn", "temporal_block")
_MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe", "moe", "mlp_moe", "fc")

# What may differ between two configurations of one architecture without changing what the model computes.
_CONFIG_NOISE = frozenset(
    """
    _name_or_path _attn_implementation transformers_version torch_dtype dtype use_cache architectures auto_map
    bos_token_id eos_token_id pad_token_id max_position_embeddings vocab_size initializer_range task_specific_params
    attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop summary_type finetuning_task unsloth_version
    unsloth_fixed return_dict output_attentions output_hidden_states id2label label2id pretraining_tp n_ctx
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Layout:
    """A checkpoint without its weights.

    `tensors` holds what a merge works on, under the checkpoint's own names. A tied output head is not among them: it
    is the input embedding, merged once.
    """

    reference: str
    local: LocalModel
    config: Mapping[str, Any]  # config.json
    tensors: Mapping[str, TensorInfo]
    buffers: Mapping[str, TensorInfo]  # integers and computed tables: copied, never merged
    layers: int
    stack: str  # what stands before a layer's number: 'model.layers'
    tied: bool  # the output head is the input embedding
    stored_head: tuple[str, TensorInfo] | None = None  # a tied head that is stored all the same; equals the embedding

    @property
    def folder(self) -> Path:
        """The model's folder on this machine."""
        return self.local.folder

    @cached_property
    def bytes(self) -> int:
        """Size of all tensors, in bytes."""
        return sum(info.bytes for info in (*self.tensors.values(), *self.buffers.values()))

    @cached_property
    def parameters(self) -> int:
        """Number of trained parameters; a tied head counts once."""
        return sum(info.elements for info in self.tensors.values())  # `tensors` holds no tied head

    @cached_property
    def dtype(self) -> str:
        """The model's dtype: the one that most of its bytes have."""
        sizes: Counter[str] = Counter()
        for info in self.tensors.values():
            sizes[info.dtype] += info.bytes  # bytes, not counts: norms are often kept in float32
        return sizes.most_common(1)[0][0]

    @cached_property
    def embedding(self) -> str | None:
        """Name of the input embedding, None where it is not recognised."""
        return next((name for name in self.tensors if name.endswith(_INPUT_EMBEDDINGS)), None)

    def embedding_rows(self) -> int:
        """Return the number of rows of the input embedding, (rows, width); a WeightsError where there is none."""
        if self.embedding is None:
            raise WeightsError(
                f"model '{self.reference}': no embedding found among its tensors, so no vocabulary either"
            )
        return self.tensors[self.embedding].shape[0]

    @cached_property
    def modules(self) -> dict[str, tuple[str, ...]]:
        """Filters per module group, `{"attention": (".self_attn.",), "mlp": (".mlp.",)}`.

        A tensor belongs to a group when its name contains one of the group's filters. What matches neither (norms,
        embeddings, head) is 'other'. The dots keep '.attention.' from matching 'post_attention_layernorm'.
        """
        parts = {
            name[match.end() :].split(".")[0]  # the module right below a layer: self_attn, mlp, ...
            for name in self.tensors
            if (match := _LAYER.search(name)) and self.layer_of(name) is not None
        }
        groups = {"attention": _ATTENTION, "mlp": _MLP}
        return {group: tuple(f".{word}." for word in words if word in parts) for group, words in groups.items()}

    @cached_property
    def by_layer(self) -> dict[int | None, tuple[str, ...]]:
        """Names of tensors and buffers per layer; under None those outside the layers."""
        groups: dict[int | None, list[str]] = {}
        for name in (*self.tensors, *self.buffers):
            groups.setdefault(self.layer_of(name), []).append(name)
        return {layer: tuple(names) for layer, names in groups.items()}

    def layer_of(self, name: str) -> int | None:
        """Return the layer (0, 1, ...) that a tensor belongs to, or None outside the layers."""
        match = _LAYER.search(name)
        # a vision tower has layers too
        return int(match.group(1)) if match and name[: match.start()] == self.stack else None

    def in_layer(self, name: str, layer: int) -> str:
        """Return the name that a layer's tensor has in another layer."""
        match = _LAYER.search(name)
        if match is None or self.layer_of(name) is None:
            return name
        return f"{name[: match.start(1)]}{layer}{name[match.end(1) :]}"

    def role_of(self, name: str, shape: Sequence[int] | None = None) -> Role:
        """Return a tensor's role: matrix (out, in), vocab (rows, width), vector (n,), router, experts (n, out, in)."""
        shape = self.tensors[name].shape if shape is None else shape
        if len(shape) < 2:  # norms and biases, whatever their names
            return "vector"
        if name.endswith(_HEADS) or (_EMBEDDING.search(name) and not _POSITIONS.search(name)):
            return "vocab"
        if _ROUTER.search(name):
            return "router"
        return "experts" if len(shape) > 2 else "matrix"

    def before_layers(self, name: str) -> bool:
        """True for tensors that come before the first layer: embeddings. Final norm and head come after the last."""
        return bool(_EMBEDDING.search(name) or _POSITIONS.search(name))

    def vocabulary(self) -> dict[str, int] | None:
        """Return the tokenizer's tokens and their ids, or None where they are not in a readable JSON file."""
        return self._vocabulary  # a method over a cached property: the public name stays a verb

    @cached_property
    def _vocabulary(self) -> dict[str, int] | None:
        return _vocabulary(self.folder)


def read_layout(reference: str, local: LocalModel | None = None) -> Layout:
    """Return the layout of a model.

    Args:
        reference: folder, hub id, id@revision, or model+adapter; an adapter changes no names or shapes.
        local: where the model lies, if known already.

    Raises:
        WeightsError: files are missing, damaged, or contradict each other; the message names file, expected and found.
    """
    local = local or locate(reference)
    config = read_json(local.folder / CONFIG)
    infos = _tensor_infos(local.folder)
    # float8 weights need their scales to mean anything
    unusual = next((n for n, i in infos.items() if not i.floating and i.dtype.startswith("float")), None)
    if unusual is not None or "quantization_config" in config:
        found = f"tensor {unusual!r} of dtype {infos[unusual].dtype}" if unusual else "a quantization_config"
        raise WeightsError(f"model {reference!r}: expected 16, 32 or 64-bit floating-point weights, found {found}")
    buffers = {name: info for name, info in infos.items() if not info.floating or _TABLE.search(name)}
    tensors = {name: info for name, info in infos.items() if name not in buffers}
    head = next((name for name in tensors if name.endswith(_HEADS)), None)  # None where the embedding serves as head
    tied = bool(text_config(config).get("tie_word_embeddings", config.get("tie_word_embeddings", head is None)))
    # merged as the embedding, checked by the reader
    stored_head = (head, tensors.pop(head)) if tied and head is not None else None
    stack, layers = _layers(tensors, config, reference)
    return Layout(reference, local, config, tensors, buffers, layers, stack, tied, stored_head)


def compare_layouts(
    base: Layout, others: Sequence[Layout], *, depth: bool = True, vocabulary: bool = True
) -> list[str]:
    """Return why models cannot be merged tensor by tensor, one sentence per problem; [] when they can.

    Args:
        base: what the others are compared with.
        others: any number of models.
        depth: whether all must have as many layers. Layers are then compared by number, and a model with another
            number of them is one problem, not hundreds. Otherwise (slices) the layers' common form is compared.
        vocabulary: whether tokens must have equal ids.
    """
    problems: list[str] = []
    for other in others:
        if depth and other.layers != base.layers:
            problems.append(
                f"layers: base '{base.reference}' has {base.layers}, '{other.reference}' has {other.layers}"
            )
            continue  # one problem instead of one per missing tensor
        ours, theirs = (base, other) if depth or base.layers == other.layers else (_one_layer(base), _one_layer(other))
        problems += _name_problems(ours, theirs)
        for name, info in ours.tensors.items():
            found = theirs.tensors.get(name)
            if found is not None and found.shape != info.shape:
                problems.append(f"tensor '{name}': base is {info.shape}, '{other.reference}' is {found.shape}")
        difference = vocabulary_difference(base, other) if vocabulary else None
        if difference:
            problems.append(difference)
    return problems


def _one_layer(layout: Layout) -> Layout:
    """Return a layout in which all layers are laid over each other: every tensor that any of them has, once."""
    return replace(layout, tensors={layout.in_layer(name, 0): info for name, info in layout.tensors.items()})


def vocabulary_difference(base: Layout, other: Layout) -> str | None:
    """Return a sentence where two models' tokenizers give a token different ids, else None (also where unknown).

    Tokens that only one of them knows are no problem: fine-tunes give names to the base's spare rows.
    """
    ours, theirs = base.vocabulary(), other.vocabulary()
    if ours is None or theirs is None or ours == theirs:
        return None
    # only tokens that both know can contradict each other
    moved = [token for token, index in ours.items() if theirs.get(token, index) != index]
    if not moved:
        return None
    return (
        f"tokenizer: '{other.reference}' gives {len(moved)} tokens other ids than base '{base.reference}', e.g. "
        f"{moved[0]!r}: {ours[moved[0]]} in the base, {theirs[moved[0]]} in the other; merging would mix tokens"
    )


def config_difference(base: Layout, other: Layout) -> str | None:
    """Return the first configuration entry in which two models would compute different things, else None."""
    ours, theirs = text_config(base.config), text_config(other.config)
    for key in sorted({*ours, *theirs} - _CONFIG_NOISE - set(LAYER_COUNT_KEYS)):
        # an absent key is the architecture's default, which is not known here
        if key in ours and key in theirs and ours[key] != theirs[key]:
            return f"{key}: '{base.reference}' has {ours[key]!r}, '{other.reference}' has {theirs[key]!r}"
    return None


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a configuration; all of it where there is no other."""
    part = config.get("text_config")  # multimodal models nest the language model's configuration
    return part if isinstance(part, Mapping) else config


def layer_count_key(config: Mapping[str, Any]) -> str | None:
    """Return the key under which a configuration counts its layers."""
    return next((key for key in LAYER_COUNT_KEYS if key in text_config(config)), None)


def _tensor_infos(folder: Path) -> dict[str, TensorInfo]:
    index = folder / INDEX_FILE
    if index.is_file():
        return _sharded_infos(folder, index)
    single = folder / SINGLE_FILE
    if single.is_file():
        return read_header(_inside(single, folder))
    files = sorted(folder.glob("*.safetensors"))
    found = ", ".join(path.name for path in files) or "none"
    raise WeightsError(f"'{folder}': expected {SINGLE_FILE} or {INDEX_FILE}, found weights files {found}")


def _sharded_infos(folder: Path, index: Path) -> dict[str, TensorInfo]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"'{index}': expected a weight_map from tensor names to files, found none")
    headers: dict[str, dict[str, TensorInfo]] = {}
    for shard in sorted(set(weight_map.values())):  # each header is read once
        # the index is untrusted: no path may leave the folder
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".", ".."):
            raise WeightsError(f"'{index}': expected file names inside the model's folder, found {shard!r}")
        if not (folder / shard).is_file():
            raise WeightsError(f"'{index}': names file '{shard}', which is not in '{folder}'; fetch it again")
        headers[shard] = read_header(_inside(folder / shard, folder))
    for name, shard in weight_map.items():
        if name not in headers[shard]:
            raise WeightsError(f"'{index}': says tensor {name!r} is in '{shard}', which does not hold it")
    return {name: headers[shard][name] for name, shard in weight_map.items()}


def _inside(path: Path, folder: Path) -> Path:
    """Return `path`, refusing links that lead out of the model's folder (the hub cache's own blobs excepted)."""
    target = path.resolve()  # the hub's cache holds links from snapshots to blobs
    home = folder.resolve()
    if target.is_relative_to(home) or target.parent == home.parent.parent / "blobs":
        return path
    raise WeightsError(f"'{path}' is a link to '{target}', outside the model's folder; copy the file instead")


def _layers(tensors: Mapping[str, TensorInfo], config: Mapping[str, Any], reference: str) -> tuple[str, int]:
    stacks: dict[str, set[int]] = {}
    for name in tensors:
        if match := _LAYER.search(name):
            stacks.setdefault(name[: match.start()], set()).add(int(match.group(1)))
    if not stacks:
        raise WeightsError(f"model {reference!r}: expected tensors of numbered layers, found {len(tensors)} others")
    key = layer_count_key(config)
    count = text_config(config)[key] if key else None
    # a vision tower also has numbered layers; the configuration says how many the language model has
    stack = max(stacks, key=lambda prefix: (len(stacks[prefix]) == count, len(stacks[prefix])))
    numbers = stacks[stack]  # a gap means that a file is missing
    if numbers != set(range(len(numbers))) or (count is not None and count != len(numbers)):
        expected = f"layers 0 to {(count or max(numbers) + 1) - 1} under '{stack}'"
        raise WeightsError(f"model {reference!r}: expected {expected}, found {len(numbers)}: {sorted(numbers)}")
    return stack, len(numbers)


def _name_problems(base: Layout, other: Layout) -> list[str]:
    problems = []
    for kind, names, of in (
        ("missing", [name for name in base.tensors if name not in other.tensors], base),
        ("unknown to the base", [name for name in other.tensors if name not in base.tensors], other),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            shape = of.tensors[names[0]].shape
            problems.append(f"tensor '{names[0]}' {shape}{more}: {kind} in '{other.reference}'")
    if base.tied != other.tied:
        words = {True: "tied to the embedding", False: "separate"}
        problems.append(
            f"output head: {words[base.tied]} in base '{base.reference}', {words[other.tied]} in '{other.reference}' "
            "(tie_word_embeddings in config.json)"
        )
    return problems


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file's mapping; a WeightsError names the file where it is something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"'{path}' cannot be read as JSON: {error}") from error
    if not isinstance(document, dict):
        raise WeightsError(f"'{path}': expected a JSON mapping, found {type(document).__name__}")
    return document


def _vocabulary(folder: Path) -> dict[str, int] | None:
    if (folder / "tokenizer.json").is_file():
        document = read_json(folder / "tokenizer.json")
        vocabulary = document.get("model", {}).get("vocab")
        if isinstance(vocabulary, list):  # unigram tokenizers list [token, score]
            # the id is the position in the list
            vocabulary = {entry[0]: index for index, entry in enumerate(vocabulary)}
        if isinstance(vocabulary, dict):
            return {**vocabulary, **{token["content"]: token["id"] for token in document.get("added_tokens") or []}}
    if (folder / "vocab.json").is_file():
        return dict(read_json(folder / "vocab.json"))  # byte-level BPE tokenizers before tokenizer.json
    return None
