"""Random Llama-shaped models for the benchmarks, made on the spot: nothing is downloaded.

The base is normal noise; each expert is the base plus smaller noise, which is as hard to merge as real weights are:
speed does not depend on the values.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import torch

# name -> configuration; the vocabulary fills up to the number of parameters that the name says
SIZES = {
    "1m": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "vocab_size": 2_000},
    "20m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "vocab_size": 16_000},
    "113m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "vocab_size": 36_500},
}
HEADS = 12
SEED = 0


def make(folder: Path, size: str, experts: int = 3, shards: int = 1, dtype: torch.dtype = torch.float32) -> list[str]:
    """Return the folders of a base and its experts, made unless they are there; the head is tied."""
    folders = [folder / name for name in ("base", *(f"expert{index}" for index in range(experts)))]
    if not all((path / "config.json").is_file() for path in folders):
        base = _state(size, torch.Generator().manual_seed(SEED))
        for index, path in enumerate(folders):
            generator = torch.Generator().manual_seed(SEED + index)
            noise = 0.002 if index else 0.0
            state = {name: x + noise * torch.randn(x.shape, generator=generator) for name, x in base.items()}
            _save({name: x.to(dtype) for name, x in state.items()}, path, size, shards, dtype)
    return [str(path) for path in folders]


def recipe(models: list[str], method: str, variant: int) -> dict[str, object]:
    """Return a mergekit document over the models whose every coefficient depends on `variant`."""
    share = 0.05 * (variant % 12)
    if method == "slerp":
        return {
            "merge_method": "slerp", "base_model": models[0], "dtype": "float32",
            "models": [{"model": models[0]}, {"model": models[1]}], "parameters": {"t": 0.2 + share},
        }  # fmt: skip
    values: dict[str, object] = {"weight": [0.3 + share, 0.5]}
    if method in ("ties", "dare_linear", "dare_ties", "della"):
        values["density"] = [0.3 + share, 0.7]
    shared: dict[str, object] = {"epsilon": 0.05} if method == "della" else {}
    if method == "sce":
        values, shared = {}, {"select_topk": 0.3 + share}
    document: dict[str, object] = {
        "merge_method": method, "dtype": "float32", "parameters": shared,
        "models": [{"model": model, "parameters": values} for model in models[1:]],
    }  # fmt: skip
    return document if method == "linear" else {**document, "base_model": models[0]}


def with_mergekit(document: dict[str, object], out: Path) -> None:
    """Merge with mergekit, imported already, to a folder."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    options = MergeOptions(copy_tokenizer=True, quiet=True, lazy_loader=True, random_seed=SEED)
    run_merge(MergeConfiguration.model_validate(document), str(out), options)


def origin(threads: int) -> str:
    """Return what a table must say about where it comes from."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    machine = f"{os.cpu_count()}-core {platform.machine().replace('_', '-')} CPU"
    load = os.getloadavg()[0]
    return (
        f"commit {commit.stdout.strip()}, seed {SEED}, {machine}, {threads} thread(s), torch {torch.__version__}, "
        f"load average {load:.1f} at the end"
    )


def _state(size: str, generator: torch.Generator) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_config(size))
    return {
        name: torch.randn(parameter.shape, generator=generator) * 0.02 + (1.0 if parameter.ndim == 1 else 0.0)
        for name, parameter in model.named_parameters()
    }


def _config(size: str) -> object:
    from transformers import LlamaConfig

    heads = HEADS if SIZES[size]["hidden_size"] % HEADS == 0 else 4
    return LlamaConfig(
        **SIZES[size], num_attention_heads=heads, num_key_value_heads=heads, tie_word_embeddings=True,
        max_position_embeddings=1024, bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def _save(state: dict[str, torch.Tensor], folder: Path, size: str, shards: int, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = _config(size)
    config.architectures = ["LlamaForCausalLM"]  # type: ignore[attr-defined]
    config.dtype = dtype  # type: ignore[attr-defined]
    config.save_pretrained(folder)  # type: ignore[attr-defined]
    _tokenizer(folder)
    total = sum(x.numel() for x in state.values())
    files: list[dict[str, torch.Tensor]] = [{} for _ in range(shards)]
    done = 0
    for name, x in state.items():
        files[min(done * shards // total, shards - 1)][name] = x
        done += x.numel()
    if shards == 1:
        save_file(files[0], folder / "model.safetensors", {"format": "pt"})
        return
    weight_map = {}
    for index, tensors in enumerate(files):
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        save_file(tensors, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def _tokenizer(folder: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["</s>", "<unk>", *(chr(code) for code in range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
