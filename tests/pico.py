"""Random models of a few thousand parameters, in Hugging Face layout, with a tokenizer of single characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

VOCABULARY = 97  # two special tokens and the 95 printable ASCII characters

# Families of causal language models, as transformers names their `model_type`. Sizes below are the smallest at which
# heads, key-value heads and experts still differ in number.
FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_neox",
    "gpt2",
    "olmo2",
    "mixtral",
    "qwen3_moe",
)
_WIDTHS = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_key_value_heads": 2}
_GPT2 = {"n_embd": 16, "n_head": 2, "n_positions": 64}
_SIZES: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "gpt_neox": {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4},
    "qwen3": {**_WIDTHS, "head_dim": 8},  # heads wider together than the model, as the real ones
    "gemma2": {**_WIDTHS, "head_dim": 4, "sliding_window": 32},
    "gemma3_text": {**_WIDTHS, "head_dim": 4, "sliding_window": 32},
    "phi3": {**_WIDTHS, "original_max_position_embeddings": 256},
    "mixtral": {**_WIDTHS, "num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3_moe": {
        **_WIDTHS,
        "head_dim": 4,
        "moe_intermediate_size": 8,  # rows of 16 bytes in bfloat16, which grouped products ask for
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [0],  # its first layer has no experts
    },
}


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
    start = None if noise_from is None else _parameters(noise_from)
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


PRINTABLE = "".join(chr(code) for code in range(32, 127))


def make_tokenizer(folder: Path, characters: str = PRINTABLE) -> None:
    """Write a tokenizer with one token per character, `</s>` to end and `<unk>` for anything else."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = ["</s>", "<unk>", *characters]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def _config(family: str, tied: bool, layers: int, settings: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    shared: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": tied,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    depth = {"n_layer": layers} if family == "gpt2" else {"num_hidden_layers": layers, "max_position_embeddings": 256}
    return AutoConfig.for_model(family, **{**shared, **depth, **_SIZES.get(family, _WIDTHS), **settings})


def _parameters(folder: Path) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())


def fingerprint_of(model: str) -> str:
    """Return the fingerprint of a model's weights as its files hold them; `model` is a folder or any reference."""
    from evomerge.checkpoints import CheckpointReader
    from evomerge.engine._fingerprint import fingerprint

    with CheckpointReader(model) as reader:
        return fingerprint(reader.tensors())
