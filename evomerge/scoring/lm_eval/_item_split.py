"""Which documents the search may look at, and which are kept for the final report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evomerge.errors import TaskError, near
from evomerge.scoring.lm_eval._documents import Document


@dataclass(frozen=True)
class ItemPlan:
    """The pinned items of a run: task -> document ids. No question is on both sides, under any name or task."""

    search: Mapping[str, tuple[str, ...]]
    holdout: Mapping[str, tuple[str, ...]]
    stands_in: Mapping[str, str] = field(default_factory=dict)  # task of the search -> task of its held-out items


def split(
    documents: Mapping[str, Sequence[Document]],
    *,
    items: int | None,
    holdout: float | Mapping[str, float | str],
    seed: int,
) -> ItemPlan:
    """Return the search items and held-out items of every task.

    Sides are drawn by a document's content and the seed alone: the order of the file does not matter, equal
    documents stay together, and a document that two tasks share is on the same side in both. The search items are
    the first `items` of a pinned pseudo-random order, so 50 items are also the first 50 of 100.

    Args:
        documents: of every task, stand-ins included.
        items: per task; None for all documents that are not held out.
        holdout: share of each task's distinct documents to keep, in [0, 1); or per task a share or the name of
            another task whose documents stand in for held-out ones. A task that a mapping leaves out keeps none.
        seed: of the run.

    Raises:
        TaskError: a share is outside [0, 1), a task is unknown, or a task has too few documents.
    """
    shares, stands_in = _holdout_of(documents, holdout)
    searched = [task for task in documents if task not in stands_in.values()]
    held = {task: _held_out(task, documents[task], shares.get(task, 0.0), seed) for task in searched}
    held |= {task: {document.hash for document in documents[task]} for task in stands_in.values()}
    everywhere = set().union(*held.values())
    search, kept = {}, {}
    for task in searched:
        side = [document for document in documents[task] if document.hash not in everywhere]
        search[task] = _first(task, side, items, len(documents[task]), seed)
        side = [document for document in documents[task] if document.hash in held[task]]
        if side and task not in stands_in:
            kept[task] = tuple(document.id for document in _ordered(side, seed))
    for task in stands_in.values():
        kept[task] = tuple(document.id for document in _ordered(documents[task], seed))
    return ItemPlan(search, kept, stands_in)


def _holdout_of(
    documents: Mapping[str, Sequence[Document]], holdout: float | Mapping[str, float | str]
) -> tuple[dict[str, float], dict[str, str]]:
    given = dict(holdout) if isinstance(holdout, Mapping) else dict.fromkeys(documents, holdout)
    shares: dict[str, float] = {}
    stands_in: dict[str, str] = {}
    for task, value in given.items():
        for name in (task, value) if isinstance(value, str) else (task,):
            if name not in documents:
                raise TaskError(f"holdout: unknown task {name!r}. {near(str(name), documents)}")
        if isinstance(value, str):
            stands_in[task] = value
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise TaskError(f"holdout of task {task!r} must be a share in [0, 1) or the name of a task, got {value!r}")
        else:
            shares[task] = float(value)
    return shares, stands_in


def _held_out(task: str, documents: Sequence[Document], share: float, seed: int) -> set[str]:
    """Return the content hashes that are held out: an exact share of the distinct contents, by pinned rank."""
    if not documents:
        raise TaskError(f"task {task!r} has no documents")
    distinct = sorted({document.hash for document in documents}, key=lambda content: _rank(seed, "side", content))
    if share and len(distinct) < 2:
        raise TaskError(f"task {task!r} has one distinct document; it cannot be split into search and held-out items")
    # At least one on each side: a share of 1% of 20 documents still means that something is held out.
    count = min(max(round(share * len(distinct)), 1), len(distinct) - 1) if share else 0
    return set(distinct[:count])


def _first(task: str, side: Sequence[Document], items: int | None, total: int, seed: int) -> tuple[str, ...]:
    if items is not None and (isinstance(items, bool) or items < 1):
        raise TaskError(f"items must be at least 1, got {items!r}; leave it out for all documents")
    if not side:
        raise TaskError(f"task {task!r}: all of its {total} documents are held out; nothing is left for the search")
    if items is not None and items > len(side):
        raise TaskError(
            f"task {task!r} has {len(side)} documents for the search ({total} in all, {total - len(side)} held out), "
            f"but {items} items were asked for; lower items or the held-out share"
        )
    return tuple(document.id for document in _ordered(side, seed)[:items])


def _ordered(documents: Sequence[Document], seed: int) -> list[Document]:
    return sorted(documents, key=lambda document: (_rank(seed, "order", document.hash), document.id))


def _rank(seed: int, purpose: str, content: str) -> str:
    return hashlib.sha256(f"{seed}:{purpose}:{content}".encode()).hexdigest()
