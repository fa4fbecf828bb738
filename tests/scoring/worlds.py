"""Small worlds for the scoring tests: random models of several families, one tokenizer, local tasks."""

from __future__ import annotations

from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
FAMILIES = ("llama", "gpt2", "qwen2")


def make_tokenizer(chat_template: str | None = None, bos: bool = False):
    """Return a byte-level tokenizer of 400 tokens trained on the tasks' texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    cut = Tokenizer(models.BPE())
    cut.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    cut.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    cut.train_from_iterator((path.read_text() for path in sorted(TASKS.glob("data/*.jsonl"))), trainer)
    if bos:
        cut.post_processor = processors.TemplateProcessing(
            single="<|start|> $A", special_tokens=[("<|start|>", cut.token_to_id("<|start|>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=cut,
        eos_token="<|end|>",
        pad_token="<|end|>",
        bos_token="<|start|>" if bos else None,
        chat_template=chat_template,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def make_model(family: str, vocabulary: int, seed: int = 0, **changes):
    """Return a random model of a family: 2 layers of width 32, weights large enough to have opinions."""
    import torch
    import transformers

    sizes = {"vocab_size": vocabulary, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 512, "eos_token_id": 0, "bos_token_id": None}
    if family in ("llama", "qwen2", "mistral", "gemma2"):
        sizes["num_key_value_heads"] = 2
    if family == "gpt2":
        sizes = {"vocab_size": vocabulary, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
        sizes |= {"eos_token_id": 0, "bos_token_id": 0}
    names = {"llama": "Llama", "gpt2": "GPT2", "qwen2": "Qwen2", "mistral": "Mistral", "gpt_neox": "GPTNeoX"}
    names |= {"bloom": "Bloom", "mamba": "Mamba", "gemma2": "Gemma2"}
    config = getattr(transformers, f"{names[family]}Config")(**{**sizes, **changes})
    torch.manual_seed(seed)
    head = "GPT2LMHeadModel" if family == "gpt2" else f"{names[family]}ForCausalLM"
    model = getattr(transformers, head)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model
