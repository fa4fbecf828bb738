"""How long a candidate takes from recipe to answers: in place, against merging to disk, loading, and lm-eval.

    python benchmarks/merge/turnaround.py --size 1m --folder scratch/models --tasks 4 --items 100 --method linear
    python benchmarks/merge/turnaround.py --size 113m --folder scratch/models --tasks 1 --items 20 --method ties

Ours: `ResidentModel.write` and `ModelScorer.answers`, as in a worker. Theirs: mergekit to a folder, from_pretrained,
`lm_eval.simple_evaluate` (log likelihoods of four-choice items, HF backend, batch size 16). Every round is another
candidate; both give the same per-item accuracies, which is asserted. Imports and what is done once per worker (loading
parents, tasks) are not timed for ours; nothing of simple_evaluate is left out for theirs. Prints a Markdown table row.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import made
import torch

from evomerge.engine import ResidentModel
from evomerge.recipe import recipe_from_mapping
from evomerge.scoring import ModelScorer, TaskSet, TaskSettings

TASK = """
task: choices{number}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: answer
num_fewshot: 0
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def write_tasks(folder: Path, tasks: int, items: int) -> list[str]:
    """Write four-choice tasks of letters and return their names."""
    random = Random(made.SEED)

    def words(count: int) -> str:
        return " ".join("".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(count))

    for number in range(tasks):
        rows = [
            {"question": f"{words(8)}?", "choices": [words(1) for _ in range(4)], "answer": random.randrange(4)}
            for _ in range(items)
        ]
        file = folder / f"choices{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"choices{number}.yaml").write_text(TASK.format(number=number, file=file))
    return [f"choices{number}" for number in range(tasks)]


def by_hand(document: dict[str, object], scratch: Path, tasks: list[str], include: Path) -> tuple[Any, list[float]]:
    """Merge to disk, load, evaluate; return lm-eval's results and the seconds of the three stages."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    marks = [time.perf_counter()]
    made.with_mergekit(document, scratch)
    marks.append(time.perf_counter())
    model = AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32)
    adapter = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(scratch), batch_size=16)
    marks.append(time.perf_counter())
    manager = TaskManager(include_path=str(include), include_defaults=False)
    results = lm_eval.simple_evaluate(adapter, tasks=tasks, task_manager=manager, bootstrap_iters=0)
    marks.append(time.perf_counter())
    return results, [later - earlier for earlier, later in pairwise(marks)]


def quiet(action: Callable[[], Any]) -> Any:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return action()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=made.SIZES, default="1m")
    parser.add_argument("--folder", type=Path, required=True, help="where the models are, or are made")
    parser.add_argument("--method", default="linear")
    parser.add_argument("--tasks", type=int, default=4)
    parser.add_argument("--items", type=int, default=100, help="per task")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    models = made.make(options.folder / options.size, options.size)
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        names = write_tasks(Path(scratch), options.tasks, options.items)
        task_set = TaskSet.load(names, TaskSettings((scratch,)))
        items = {name: [document.id for document in task_set.documents(name)] for name in names}
        resident = ResidentModel(models, device="cpu")
        scorer = ModelScorer(resident.model, resident.tokenizer, task_set)
        for round_ in range(options.rounds + 1):  # the first is not counted: measures, prompts and caches are made
            document = made.recipe(models, options.method, round_)
            recipe = recipe_from_mapping(document)
            start = time.perf_counter()
            resident.write(recipe)
            written = time.perf_counter()
            answers = {name: quiet(lambda n=name: scorer.answers(n, items[n])) for name in names}
            ours.append([written - start, time.perf_counter() - written])
            out = Path(scratch) / f"merged{round_}"
            results, stages = quiet(lambda d=document, o=out: by_hand(d, o, names, Path(scratch)))
            theirs.append(stages)
            if options.method in ("linear", "slerp", "task_arithmetic", "ties"):  # DARE draws other masks there
                for name in names:
                    mine = [response.value for response in answers[name] if response.metric == "acc"]
                    samples = sorted(results["samples"][name], key=lambda sample: sample["doc_id"])
                    assert mine == [float(sample["acc"]) for sample in samples], f"{name}: answers differ"
    ratios = [sum(by) / sum(own) for own, by in zip(ours[1:], theirs[1:], strict=True)]
    middle = [statistics.median(values) for values in zip(*ours[1:], strict=True)]
    other = [statistics.median(values) for values in zip(*theirs[1:], strict=True)]
    print("| model, method, items | write + answer, s | merge + load + evaluate, s | ratio (min / median / max) |")
    print("|---|---|---|---|")
    print(
        f"| {options.size}, {options.method}, {options.tasks} x {options.items} | {middle[0]:.3f} + {middle[1]:.3f} | "
        f"{other[0]:.2f} + {other[1]:.2f} + {other[2]:.2f} | "
        f"{min(ratios):.0f} / {statistics.median(ratios):.0f} / {max(ratios):.0f} |"
    )
    print(f"\n{made.origin(options.threads)}")


if __name__ == "__main__":
    main()
