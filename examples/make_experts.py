"""Train the example models from nothing: `python examples/make_experts.py`.

One base that has seen every format, in easy questions only; then one expert per skill, each trained from the base on
its own skill, which makes it forget others; and one LoRA adapter on the base. All are Llama models of about 0.75
million parameters. The run is seeded: one machine gives the same weights again, another the same up to rounding.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from make_tasks import HERE
from probe import HEAD, IGNORED, NEWLINE, batch_of, row, scores
from skills import SKILLS
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar
from vocabulary import END, IDS, PAD, TOKENS, encode, tokenizer

ROW_TOKENS = 20  # the longest question with its answer; shorter ones share a row
SEED = 7


@dataclass(frozen=True)
class Course:
    """How one model is trained: the share of rows of each skill, and for how long."""

    skills: dict[str, float]
    steps: int
    rate: float  # peak learning rate
    easy: float = 0.0  # share of rows with easy questions, see skills.py
    rows: int = 32  # rows per step


BASE = Course(
    {"add": 0.3, "sort": 0.15, "reverse": 0.15, "spell": 0.1, "words": 0.3}, steps=640, rate=2e-3, rows=64, easy=0.85
)
# Low rates and few steps, from a base in which each skill is latent: trained longer, or from a base that has never seen
# the full range, the experts are as good alone and their merges are worth nothing.
EXPERTS = {
    "add": Course({"add": 0.8, "easy_words": 0.2}, steps=200, rate=2e-4),
    "sort": Course({"sort": 1.0}, steps=120, rate=2e-4),
    "reverse": Course({"reverse": 1.0}, steps=120, rate=2e-4),
    "spell": Course({"spell": 0.3, "transcribe": 0.5, "easy_words": 0.2}, steps=160, rate=2e-4),
}
ADAPTED = ["q_proj", "k_proj", "v_proj", "o_proj"]
ADAPTERS = {"reverse-lora": Course({"reverse": 1.0}, steps=160, rate=2e-3)}


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


def share_of_rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: up in the first sixth, then slowly down, and to zero in the last tenth."""
    return min((step + 1) * 6 / steps, 1 - step / (2 * steps), (steps - step) * 10 / steps)


def train(model: torch.nn.Module, course: Course, name: str) -> None:
    """Train `model` in place on answers, not on questions."""
    rng = random.Random(f"{SEED} {name}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, course.rate, betas=(0.9, 0.98), weight_decay=0.0, foreach=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share_of_rate(step, course.steps))
    started = time.monotonic()
    model.train()
    for step in range(1, course.steps + 1):
        drawn = rng.choices(list(course.skills), list(course.skills.values()), k=course.rows)
        ids, labels = batch_of([draw_row(skill, rng, rng.random() < course.easy) for skill in drawn])
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 80 == 0 or step == course.steps:
            seconds = time.monotonic() - started
            line = "  ".join(f"{task} {value:4.0%}" for task, value in scores(model, slice(100)).items())
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
    # transformers 5 writes a class name of its own; this one it reads as well, and so does transformers 4
    change(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")


def change(file: Path, **fields: object) -> None:
    """Set some fields of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | fields, indent=2) + "\n")


def make_adapter(base: Path, course: Course, name: str, folder: Path) -> torch.nn.Module:
    """Train a LoRA adapter on the base and write it in PEFT's layout, naming the base beside it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=ADAPTED, task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    train(model, course, name)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()  # PEFT's form for a model card, not filled in
    # the modules are a set in PEFT, and would be written in another order each time
    change(folder / "adapter_config.json", base_model_name_or_path="../base", target_modules=sorted(ADAPTED))
    return model


def main(argv: Iterable[str] | None = None) -> None:
    """Train what was asked for, base first."""
    known = ["base", *EXPERTS, *ADAPTERS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "experts", help="where the models go (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=known, default=known, metavar="NAME", help=f"some of {known}")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; so small a model gains little from more")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    disable_progress_bar()
    base = options.out / "base"
    table = [HEAD]
    for name in (n for n in known if n in options.only):
        if name in ADAPTERS:
            model = make_adapter(base, ADAPTERS[name], name, options.out / name)
        else:
            model = untrained() if name == "base" else LlamaForCausalLM.from_pretrained(base)
            train(model, BASE if name == "base" else EXPERTS[name], name)
            save(model, options.out / name)
        table.append(row(name, scores(model)))
    print("\n".join(table))


if __name__ == "__main__":
    main()
