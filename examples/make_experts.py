"""Train the example models from nothing: `python examples/make_experts.py`.

One base that has seen every format and is weak at everything, then one expert per skill, each trained from the base on its own skill
alone, which makes it forget some of the others; and one LoRA adapter on the base. All are Llama models of about 0.75 million parameters.
The run is seeded: on one machine it gives the same weights again, elsewhere the same up to rounding.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from make_tasks import HERE, TASKS
from probe import IGNORED, NEWLINE, batch_of, scores
from skills import SKILLS
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from vocabulary import END, IDS, PAD, TOKENS, encode, tokenizer

ROW_TOKENS = 20  # the longest question with its answer; shorter ones share a row
SEED = 7


@dataclass(frozen=True)
class Course:
    """How one model is trained: the share of rows of each skill, and for how long."""

    skills: dict[str, float]
    steps: int
    rate: float  # peak learning rate
    easy: bool = False  # only the easy questions, see skills.py
    rows: int = 64  # rows per step


BASE = Course({"add": 0.3, "sort": 0.15, "reverse": 0.15, "spell": 0.1, "words": 0.3}, steps=1500, rate=2e-3, easy=True)
EXPERTS = {
    "add": Course({"add": 1.0}, steps=1000, rate=6e-4),
    "sort": Course({"sort": 1.0}, steps=600, rate=6e-4),
    "reverse": Course({"reverse": 1.0}, steps=600, rate=6e-4),
    "spell": Course({"spell": 0.5, "transcribe": 0.5}, steps=600, rate=6e-4),
}
ADAPTERS = {"reverse-lora": Course({"reverse": 1.0}, steps=800, rate=3e-3)}


def draw_row(skill: str, rng: random.Random, easy: bool) -> list[tuple[list[int], list[int]]]:
    """Return documents of `skill`, as ids, until ROW_TOKENS are full or one breaks off."""
    row: list[tuple[list[int], list[int]]] = []
    tokens = 0
    while True:
        document = SKILLS[skill](rng, easy=easy)
        question, answer = encode(document.prompt), encode(document.answer) + [NEWLINE] * document.finished
        tokens += len(question) + len(answer)
        if row and tokens > ROW_TOKENS:
            return row
        row.append((question, answer))
        if not document.finished:
            return row


def train(model: torch.nn.Module, course: Course, name: str) -> None:
    """Train `model` in place on answers, not on questions."""
    rng = random.Random(f"{SEED} {name}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, course.rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)
    warm_up = 100
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 1.0) * max(0.02, 1 - step / course.steps)
    )
    started = time.monotonic()
    model.train()
    for step in range(1, course.steps + 1):
        drawn = rng.choices(list(course.skills), list(course.skills.values()), k=course.rows)
        ids, labels = batch_of([draw_row(skill, rng, course.easy) for skill in drawn])
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 250 == 0 or step == course.steps:
            seconds = time.monotonic() - started
            line = "  ".join(f"{task} {value:4.0%}" for task, value in scores(model, limit=100).items())
            print(f"{name:>12}  step {step:5}  loss {loss.item():.3f}  {line}  {seconds:4.0f} s", flush=True)
            model.train()


def untrained() -> LlamaForCausalLM:
    """Return the architecture with seeded random weights."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=IDS[END],
        pad_token_id=IDS[PAD],
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write `model` and the tokenizer as one Hugging Face folder."""
    # An answer ends with its line, so generation stops there, whatever the harness asks for.
    model.generation_config = GenerationConfig(eos_token_id=[IDS[END], NEWLINE], pad_token_id=IDS[PAD], do_sample=False)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def make_adapter(base: Path, course: Course, name: str, folder: Path) -> None:
    """Train a LoRA adapter on the base and write it in PEFT's layout, with the base named beside it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    train(model, course, name)
    model.peft_config["default"].base_model_name_or_path = "../base"
    model.save_pretrained(folder)


def main(argv: Iterable[str] | None = None) -> None:
    """Train what was asked for, base first."""
    known = ["base", *EXPERTS, *ADAPTERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=HERE / "experts", help="folder of the models (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="NAME", help=f"some of {known}")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads (default: %(default)s; so small a model gains little from more)",
    )
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    base = options.out / "base"
    for name in (n for n in known if n in options.only):
        if name in ADAPTERS:
            make_adapter(base, ADAPTERS[name], name, options.out / name)
            continue
        model = untrained() if name == "base" else LlamaForCausalLM.from_pretrained(base)
        train(model, BASE if name == "base" else EXPERTS[name], name)
        save(model, options.out / name)


if __name__ == "__main__":
    main()
