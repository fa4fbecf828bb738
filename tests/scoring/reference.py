"""What lm-eval itself says: `simple_evaluate` on the model saved as a folder."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any


def evaluate(model: Any, tokenizer: Any, folder: Path, tasks: list[str], include: Path, **arguments: Any) -> dict:
    """Return lm-eval's results for `tasks`, run from the folder that their relative data files need."""
    import datasets
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    before, cache = os.getcwd(), datasets.config.HF_DATASETS_CACHE
    os.chdir(include)
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return simple_evaluate(
                model="hf",
                model_args={"pretrained": str(folder), "dtype": "float32", **arguments.pop("model_args", {})},
                tasks=tasks,
                task_manager=TaskManager(include_path=str(include), include_defaults=False),
                device="cpu",
                bootstrap_iters=0,
                **{"batch_size": 7, **arguments},
            )
    finally:
        os.chdir(before)
        datasets.config.HF_DATASETS_CACHE = cache


def per_item(results: dict, task: str, metric: str, filter: str = "none") -> list[float]:
    """Return lm-eval's value per document, in the order of the data."""
    samples = [sample for sample in results["samples"][task] if sample["filter"] == filter]
    return [float(sample[metric]) for sample in sorted(samples, key=lambda sample: sample["doc_id"])]


def outputs(results: dict, task: str) -> list[list[Any]]:
    """Return lm-eval's raw outputs per document and request, in the order of the data."""
    first = results["samples"][task][0]["filter"]
    samples = [sample for sample in results["samples"][task] if sample["filter"] == first]
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [[request[0] for request in sample["resps"]] for sample in ordered]
