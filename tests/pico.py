"""Random models of a few thousand parameters, in Hugging Face layout, with a tokenizer of single characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 97  # two special tokens and the 95 printable ASCII characters
FAMILIES = ("llama", "mistral", "qwen2", "gpt2")


def make_model(
    folder: Path,
    family: str = "llama",
    seed: int = 0,
    *,
    noise_from: Path | None = None,
    noise: float = 0.02,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    layers: int = 4,
    shard_size: str = "5GB",
    **settings: Any,
) -> Path:
    """Write a random model and return its folder.

    Args:
        folder: to make.
        family: one of FAMILIES.
        seed: of the weights, or of the noise.
        noise_from: an earlier model of the same kind; the new one is it plus normal noise: a 'fine-tune'.
        noise: standard deviation of that noise.
        tied: whether the output head is the embedding.
        dtype: of the stored weights.
        layers: how many.
        shard_size: as save_pretrained takes it; small for several files.
        settings: further entries of the configuration.
    """
    from transformers import AutoModelForCausalLM

    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(_config(family, tied, layers, settings), dtype=torch.float32)
    start = None if noise_from is None else _state(noise_from)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            if start is not None:
                parameter.copy_(start[name].float() + noise * draw)
            else:
                parameter.copy_((1.0 if parameter.ndim == 1 and "bias" not in name else 0.0) + 0.1 * draw)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    make_tokenizer(folder)
    return folder


def make_tokenizer(folder: Path) -> None:
    """Write a tokenizer with one token per printable character, `</s>` to end and `<unk>` for anything else."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["</s>", "<unk>", *(chr(code) for code in range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _config(family: str, tied: bool, layers: int, settings: dict[str, Any]) -> Any:
    from transformers import GPT2Config, LlamaConfig, MistralConfig, Qwen2Config

    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
        "eos_token_id": 0,
        "bos_token_id": 0,
    }
    if family == "gpt2":
        return GPT2Config(**{"n_embd": 16, "n_layer": layers, "n_head": 2, "n_positions": 64, **shared, **settings})
    known = {"llama": LlamaConfig, "mistral": MistralConfig, "qwen2": Qwen2Config}
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return known[family](
        **{
            "num_hidden_layers": layers,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
            **sizes,
            **shared,
            **settings,
        }
    )


def _state(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
