"""The item banks of a search: read, matched to the tasks' documents by the hashes of their texts, and pinned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from evomerge.commands._problem_list import Problems
from evomerge.config import SearchFile
from evomerge.errors import InputError
from evomerge.irt import Bank, match_bank, read_bank
from evomerge.run_config import BankConfig
from evomerge.scoring import ItemPlan, TaskSet

ItemHashes = dict[str, dict[str, tuple[str, ...]]]  # task -> item -> hashes of its text, ours first


def digest_of(path: str) -> str:
    """Return 64 hexadecimal digits over a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def names_and_banks(
    search_file: SearchFile, tasks: TaskSet, plan: ItemPlan, wanted: Sequence[str], problems: Problems
) -> tuple[ItemHashes, dict[str, BankConfig]]:
    """Return how items are known to banks, and each task's bank; what does not fit is appended to `problems`.

    Where a bank knows an item by another hash than ours, that one stands beside it, so that a resumed run needs no
    task files to match them again.
    """
    hashes: ItemHashes = {task: {d.id: (d.hash,) for d in tasks.documents(task)} for task in _asked(tasks, plan)}
    banks: dict[str, BankConfig] = {}
    given, read = search_file.scoring.banks, dict[str, Bank]()
    for task in wanted:
        path = given.get(task, given.get(""))
        if path is None or task not in plan.search:
            continue
        try:
            if path not in read:
                read[path] = read_bank(path)
            known = tasks.names(task)
            match_bank(read[path], [known[item] for item in plan.search[task]], task)
            require_metric(read[path], search_file, tasks, task)
        except InputError as error:
            problems.add(f"scoring.bank {path}: {error}")
            continue
        banks[task] = BankConfig(path, digest_of(path))
        hashes[task] |= _matched(read[path], known)
    return hashes, banks


def held_out_in_banks(tasks: TaskSet, plan: ItemPlan, banks: Mapping[str, BankConfig]) -> list[str]:
    """Return a sentence for each bank that knows questions which this run holds out, with how many they are.

    Another seed holds out other documents, so a bank made by an earlier run knows about half of this run's. No answer
    to them is used: a bank is cut to the search items. But models that were chosen by that bank have used them.
    """
    found, read = [], dict[str, Bank]()
    for task, entry in banks.items():
        held = plan.holdout.get(plan.stands_in.get(task, task), ())
        known = tasks.names(plan.stands_in.get(task, task))
        bank = read.setdefault(entry.path, read_bank(entry.path))
        there = set(bank.items)
        leaked = sum(any(name in there for name in known[item]) for item in held)
        if leaked:
            found.append(
                f"scoring.bank {entry.path}: {leaked} of its {len(bank.items)} questions are among the {len(held)} "
                f"that this run holds out for task {task!r}; answers to them are left out. The held-out score is fair "
                "as long as no model in this search was chosen by such answers; the seed of the bank's run holds out "
                "the same documents as that run"
            )
    return found


def require_metric(bank: Bank, search_file: SearchFile, tasks: TaskSet, task: str) -> None:
    """Raise InputError where a bank says that it was calibrated on another metric than the search wants."""
    metric = bank.provenance.get("metric")
    for request in search_file.objectives:
        if request.task == task and request.measure is None and metric is not None:
            objective = tasks.objective(task, request.metric, request.filter)
            if objective.metric != metric:
                raise InputError(
                    f"it was calibrated on metric {metric!r}, and task {task!r} is scored by {objective.metric!r}; "
                    "calibrate on answers in that metric"
                )


def _asked(tasks: TaskSet, plan: ItemPlan) -> list[str]:
    return [task for task in dict.fromkeys([*plan.search, *plan.holdout]) if task in tasks.tasks]


def _matched(bank: Bank, known: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Return item -> our hash, and the name that the bank knows it by where that is another."""
    there = set(bank.items)
    found = {item: next((name for name in names if name in there), names[0]) for item, names in known.items()}
    return {item: tuple(dict.fromkeys([known[item][0], name])) for item, name in found.items()}
