"""A tiny model with its tokenizer behind the door that measures ask through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.scoring.worlds import TASKS, make_model, make_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    return make_model("llama", len(tokenizer), seed=3)


@pytest.fixture(scope="session")
def task_set():
    from evomerge.scoring import TaskSet, TaskSettings

    return TaskSet.load(["t_sums"], TaskSettings((str(TASKS),)))


@pytest.fixture
def answerer(model, tokenizer, task_set):
    """Return a maker: measures -> an answerer around the tiny model."""
    from evomerge.scoring import ModelScorer

    return lambda *measures: ModelScorer(model, tokenizer, task_set, measures)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    words = "the river runs to the sea and the sea gives rain to the hills"
    lines = [" ".join(words.split()[start : start + 3 + start % 9]) + "." for start in range(12)]
    path = tmp_path / "text.txt"
    path.write_text("\n".join(lines) + "\n")
    return path
