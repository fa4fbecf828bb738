"""Score every example model on every example task with lm-eval itself: `python examples/measure.py`.

Prints a table in Markdown, the one of README.md. Other Hugging Face folders, such as an exported merge, can be named.
"""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from make_tasks import HERE, TASKS

MODELS = ("base", "add", "sort", "reverse", "spell", "reverse-lora")
METRIC = {
    "add": "acc,none",
    "sort": "exact_match,letters",
    "reverse": "exact_match,none",
    "spell": "acc,none",
    "words": "exact_match,sum",
}


def lm_eval_scores(folder: Path) -> dict[str, float]:
    """Return lm-eval's score of the model in `folder` for each task; an adapter is put on the base beside it."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(1)
    arguments: dict[str, str] = {"pretrained": str(folder), "dtype": "float32"}
    if (folder / "adapter_config.json").exists():
        arguments |= {"pretrained": str(folder.parent / "base"), "peft": str(folder)}
    # lm-eval takes a relative data file from the current folder
    os.chdir(HERE / "tasks")
    results = simple_evaluate(
        model="hf",
        model_args=arguments,
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=".", include_defaults=False),
        device="cpu",
        batch_size=200,
        bootstrap_iters=0,
    )
    return {task: results["results"][task][METRIC[task]] for task in TASKS}


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="model folders (default: the shipped ones)")
    folders = [folder.resolve() for folder in parser.parse_args().models] or [
        HERE / "experts" / name for name in MODELS
    ]
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    print("| model | " + " | ".join(TASKS) + " | average |\n|---|" + "---:|" * (len(TASKS) + 1))
    for folder in folders:
        scores = lm_eval_scores(folder)
        cells = [*scores.values(), sum(scores.values()) / len(scores)]
        print(f"| {folder.name} | " + " | ".join(f"{100 * value:.1f}" for value in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
