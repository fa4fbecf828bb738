"""How much faster the resident scorer answers than lm-eval's HF backend: same model, same items, same answers.

    python benchmarks/scoring/run.py [--repeats 5] [--threads 1] [--write]

Three contestants take turns in every repeat, all on one model in memory whose weights do not change:

- ours: `ModelScorer.answers`, prompts prepared (they are prepared once per worker);
- lm-eval: `lm_eval.evaluate` with its HF adapter around the model and tasks already loaded, at the faster of two batch
  sizes. `simple_evaluate` pays more: it also loads tasks and collects facts about the machine, for seconds;
- adapter: lm-eval's HF adapter alone on prompts already built, the same batch size: the model's share of that.

Every repeat asserts that all per-item scores of the three are equal. Ratios are taken within a repeat.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from lm_eval import evaluate

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from evomerge.scoring import ModelScorer, TaskSettings
from evomerge.scoring.batched._likelihood import PackedBatches
from evomerge.scoring.lm_eval import _adapter as harness
from tests.scoring.worlds import make_model, make_tokenizer

SEED = 0
BATCHES = (8, 32)
CHOICES = """
dataset_path: json
dataset_kwargs: {data_files: {test: choices.jsonl, train: choices_train.jsonl}}
test_split: test
training_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
WRITING = """
dataset_path: json
dataset_kwargs: {data_files: {test: sums.jsonl, train: sums_train.jsonl}}
test_split: test
training_split: train
fewshot_split: train
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: answer
generation_kwargs: {until: ["\\n"], max_gen_toks: 24, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
SHAPES = {
    "5-shot choices, examples drawn per question": CHOICES + "num_fewshot: 5\n",
    "5-shot choices, the same examples": CHOICES + "num_fewshot: 5\nfewshot_config: {sampler: first_n}\n",
    "5-shot choices of one token": CHOICES.replace("doc_to_choice: choices", "doc_to_choice: ['A', 'B', 'C', 'D']")
    + "num_fewshot: 5\n",
    "0-shot choices": CHOICES + "num_fewshot: 0\n",
    "0-shot writing": WRITING + "num_fewshot: 0\n",
    "4-shot writing, the same examples": WRITING + "num_fewshot: 4\nfewshot_config: {sampler: first_n}\n",
}
# Vocabularies beyond the tokenizer's 400 cost what they would cost in a model that uses them.
SIZES = {
    "1M": {"vocabulary": 400, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4},
    "1M + 32k words": {"vocabulary": 32_000, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4},
    "11M": {"vocabulary": 400, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 5},
}
SHARES = {"1M": 1.0, "1M + 32k words": 0.5, "11M": 0.2}  # of the items: a larger model answers fewer in the same time


@dataclass(frozen=True)
class Measured:
    """Seconds of each contestant per repeat, and the tokens that ours computed."""

    ours: list[float]
    lm_eval: list[float]
    adapter: list[float]
    plain: list[float]  # one ordinary pass over as many tokens as are distinct; empty for writing

    def ratio(self, name: str) -> str:
        """Return min / median / max of a contestant's time over ours."""
        values = sorted(other / own for other, own in zip(getattr(self, name), self.ours, strict=True))
        return f"{values[0]:.1f} / {statistics.median(values):.1f} / {values[-1]:.1f}"

    def over_plain(self) -> str:
        """Return min / median / max of our time over the plain pass's."""
        if not self.plain:
            return ""
        values = sorted(own / plain for own, plain in zip(self.ours, self.plain, strict=True))
        return f"{values[0]:.2f} / {statistics.median(values):.2f} / {values[-1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--write", action="store_true", help="write results.md beside this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    lines = []
    for size in options.sizes:
        items = round(SHARES[size] * options.items)
        with tempfile.TemporaryDirectory() as folder:
            write_world(Path(folder), items)
            model = make_model("llama", max_position_embeddings=2048, **SIZES[size])
            for number, name in enumerate(SHAPES):
                measured = measure(model, Path(folder), f"shape{number}", options.repeats)
                ours = statistics.median(measured.ours)
                lines.append(
                    f"| {size} | {name} | {items} | {ours * 1000:.0f} | {measured.ratio('lm_eval')} | "
                    f"{measured.ratio('adapter')} | {measured.over_plain()} |"
                )
                print(lines[-1], flush=True)
    if options.write:
        Path(__file__).with_name("results.md").write_text(report(lines, options))


def measure(model: Any, folder: Path, task: str, repeats: int) -> Measured:
    """Time the contestants in turn; the first round is not counted."""
    tokenizer = make_tokenizer()
    tasks = harness.TaskSet.load([task], TaskSettings((str(folder),)))
    items = [document.id for document in tasks.documents(task)]
    scorer = ModelScorer(model, tokenizer, tasks)
    theirs, batch = fastest(model, tasks._leaf(task).task)
    plain = ModelScorer(model, tokenizer, tasks, batch_size=batch, fast=False)
    batches = _batches(scorer, task, items)
    rounds: dict[str, list[float]] = {"ours": [], "lm_eval": [], "adapter": [], "plain": []}
    for repeat in range(repeats + 1):
        seconds, mine = clocked(lambda: scorer.answers(task, items))
        assert not scorer.fallbacks, scorer.fallbacks
        others = {"ours": seconds}
        others["lm_eval"], expected = clocked(theirs)
        others["adapter"], also = clocked(lambda: plain.answers(task, items))
        assert mine == also, "the answers differ from the adapter's"
        assert_equal(mine, expected, task)
        if batches is not None:
            others["plain"], _ = clocked(lambda: plain_pass(model, batches))
        if repeat:
            for name, value in others.items():
                rounds[name].append(value)
    return Measured(**rounds)


def fastest(model: Any, loaded: Any) -> tuple[Callable[[], Any], int]:
    """Return lm-eval's call at the faster of two batch sizes."""

    def calling(batch: int) -> Callable[[], Any]:
        adapter = harness.make_lm(model, make_tokenizer(), TaskSettings(), batch)

        def call() -> Any:
            loaded.set_fewshot_seed(seed=TaskSettings()["fewshot_random_seed"])
            return evaluate(adapter, {"tasks": {loaded.task_name: loaded}}, bootstrap_iters=0)

        return call

    timed = [(clocked(calling(batch))[0], batch) for batch in BATCHES]
    return calling(min(timed)[1]), min(timed)[1]


def clocked(call: Callable[[], Any]) -> tuple[float, Any]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.perf_counter()
        result = call()
        return time.perf_counter() - start, result


def assert_equal(mine: Any, expected: Any, task: str) -> None:
    samples = sorted(expected["samples"][task], key=lambda sample: sample["doc_id"])
    for metric in samples[0]["metrics"]:
        ours = [response.value for response in mine if response.metric == metric]
        assert ours == [float(sample[metric]) for sample in samples], f"{metric} differs from lm-eval's"


def plain_pass(model: Any, batches: PackedBatches) -> None:
    """Run the model once over as many tokens as the packed batches have, in rows of the same lengths, headless."""
    with torch.inference_mode():
        for length in [len(batches.root), *batches.row_lengths]:
            if length:
                model.model(input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False)


def _batches(scorer: ModelScorer, task: str, items: list[str]) -> PackedBatches | None:
    scorer.answers(task, items)
    ((_, backend), *_) = scorer.backends(task, items)
    return getattr(backend, "batches", None)


def write_world(folder: Path, items: int) -> None:
    """Write questions with four choices of different lengths, and sums."""
    draw = random.Random(SEED)
    animals, places = (
        ["cat", "dog", "horse", "cow", "sheep", "goat", "bird"],
        ["house", "river", "field", "barn", "sea"],
    )

    def choices(number: int) -> dict[str, Any]:
        told = [f"in the {draw.choice(places)}", f"near the {draw.choice(places)} with {draw.randint(2, 30)} others"]
        told += [draw.choice(places), f"{draw.randint(2, 9)} {draw.choice(animals)}s from the {draw.choice(places)}"]
        question = f"Where did the {draw.choice(animals)} sleep on day {number} of its journey to the sea?"
        return {"question": question, "choices": told, "answer": draw.randrange(4)}

    def sums(number: int) -> dict[str, Any]:
        a, b = draw.randint(1, 90), draw.randint(1, 90)
        return {"question": f"What is {a} plus {b}?", "answer": str(a + b)}

    for name, make in (("choices", choices), ("sums", sums)):
        for part, count in (("", items), ("_train", 30)):
            rows = [json.dumps(make(number)) for number in range(count)]
            (folder / f"{name}{part}.jsonl").write_text("\n".join(rows) + "\n")
    for number, text in enumerate(SHAPES.values()):
        (folder / f"shape{number}.yaml").write_text(f"task: shape{number}\n{text}")


EXPLANATION = f"""\
Random Llama models (size of the trunk; vocabulary 400, or 32,000 where said). The machine was shared with other work
while this ran: trust the ratios more than the times. Identical per-item scores are asserted in every repeat. Columns
with three numbers are min / median / max over the repeats, the contestants taking turns within a repeat:

- lm-eval / ours: how many times longer `lm_eval.evaluate` takes, with the model in memory, tasks loaded, and the
  faster of batch sizes {BATCHES[0]} and {BATCHES[1]};
- adapter / ours: the same for its HF adapter alone, on prompts already built;
- ours / plain pass: our time over that of one pass of the trunk over as many tokens as are distinct.

With choices of several tokens, lm-eval runs a question once per choice, here four times. Examples that are drawn anew
for every question leave nothing more to share, so about 4 is the limit there, unless the output head weighs in: we
run it only where a probability is needed. The same examples before every question are computed once. Choices of one
token lm-eval, too, answers from one run of the question.
"""


def report(lines: list[str], options: argparse.Namespace) -> str:
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lm_eval"))
    sizes = " ".join(repr(size) for size in options.sizes)
    return "\n".join(
        [
            "# Scoring speed against lm-eval's HF backend",
            "",
            f"    python benchmarks/scoring/run.py --repeats {options.repeats} --threads {options.threads} "
            f"--items {options.items} --sizes {sizes} --write",
            "",
            f"2-core x86-64 CPU, {options.threads} thread(s), float32, Python {platform.python_version()}, {versions}; "
            f"seed {SEED}.",
            EXPLANATION,
            "| model | task | items | ours, median ms | lm-eval / ours | adapter / ours | ours / plain pass |",
            "|---|---|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
