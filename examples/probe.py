"""Scores of the example tasks in a second or two per model, without lm-eval: for training, and for merging by hand.

A greedy answer is right exactly when every token of the right answer is the model's first choice given those before it.
One forward pass over question and answer decides that; nothing has to be generated. lm-eval's scores agree, with one
exception: `words` counts a whole right chain here, and also a right sum after a wrong chain there.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from make_tasks import HERE, TASKS
from skills import Document, spell_out
from torch.nn.functional import cross_entropy
from vocabulary import IDS, encode

IGNORED = -100  # label of a token that is not learned or scored: questions and padding
EVERY = slice(None)
NEWLINE = IDS["\n"]


def batch_of(rows: list[list[tuple[list[int], list[int]]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return input ids and labels, both (rows, longest), of rows that are lists of (question ids, answer ids)."""
    longest = max(sum(len(q) + len(a) for q, a in row) for row in rows)
    ids = torch.full((len(rows), longest), IDS["<pad>"])
    labels = torch.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        at = 0
        for question, answer in row:
            begin, end = at + len(question), at + len(question) + len(answer)
            ids[i, at:end] = torch.tensor(question + answer)
            labels[i, begin:end] = torch.tensor(answer)
            at = end
    return ids, labels


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return per token the negative log likelihood and whether it was the first choice, both (rows, longest - 1).

    Ignored tokens have 0 and True.
    """
    logits, targets = logits[:, :-1], labels[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(targets.shape), (logits.argmax(-1) == targets) | (targets == IGNORED)


@torch.inference_mode()
def share_chosen(model: torch.nn.Module, rows: list[dict]) -> float:
    """Accuracy on multiple-choice rows: the right choice has the highest summed log likelihood."""
    pairs = [[(encode(row["question"]), encode(choice))] for row in rows for choice in row["choices"]]
    ids, labels = batch_of(pairs)
    losses, _ = token_losses(model(input_ids=ids, use_cache=False).logits, labels)
    chosen = losses.sum(1).view(len(rows), -1).argmin(1)
    return (chosen == torch.tensor([row["answer"] for row in rows])).float().mean().item()


@torch.inference_mode()
def share_written(model: torch.nn.Module, documents: list[Document]) -> float:
    """Share of documents whose whole answer, with the end of the line, greedy decoding writes."""
    rows = [[(encode(d.prompt), encode(d.answer) + [NEWLINE] * d.finished)] for d in documents]
    ids, labels = batch_of(rows)
    _, right = token_losses(model(input_ids=ids, use_cache=False).logits, labels)
    return right.all(1).float().mean().item()


def rows_of(task: str, folder: Path = HERE / "tasks" / "data") -> list[dict]:
    """Return the rows of one task's data file."""
    return [json.loads(line) for line in (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()]


def chain(row: dict) -> Document:
    """Return a row of a written task with the text that leads to its answer."""
    if " plus " not in row["question"]:
        return Document(row["question"], row["answer"])
    return Document(row["question"], f"{digits_of(row['question'])}={row['answer']}")


def digits_of(question: str) -> str:
    """Return the sum asked for in words, in digits: 'two plus ten:' is '2+10'."""
    number = {spell_out(n): n for n in range(100)}
    a, b = question.rstrip(":").split(" plus ")
    return f"{number[a]}+{number[b]}"


def scores(model: torch.nn.Module, documents: slice = EVERY) -> dict[str, float]:
    """Return the score of every example task, on some of its documents."""
    model.eval()
    result = {}
    for task in TASKS:
        rows = rows_of(task)[documents]
        if "choices" in rows[0]:
            result[task] = share_chosen(model, rows)
        else:
            result[task] = share_written(model, [chain(row) for row in rows])
    return result


def average(result: dict[str, float]) -> float:
    """Return the mean over tasks, each counting the same."""
    return sum(result.values()) / len(result)


HEAD = f"{'':>20}" + "".join(f"{name:>9}" for name in (*TASKS, "average"))


def row(name: str, result: dict[str, float]) -> str:
    """Return one line of a table under HEAD."""
    return f"{name:>20}" + "".join(f"{value:>9.1%}" for value in (*result.values(), average(result)))
