"""Write the documents of the example tasks: `python examples/make_tasks.py`.

Each file of `tasks/data/` holds DOCUMENTS questions from the test side of one skill (see `skills.py`), one JSON object
per line. The same documents come out every time. How they are asked and scored is said by the YAML files beside them.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from skills import SKILLS, Document, spell_out

HERE = Path(__file__).resolve().parent
DOCUMENTS = 400
SEED = 20240607
CHOICES = 4


def wrong_sums(prompt: str, right: str) -> Iterable[str]:
    """Sums that a careless adder writes: a carry lost or invented, one off, two off, digits exchanged."""
    total = int(right)
    near = [total + step for step in (-10, 10, -1, 1, -2, 2, -11, 11, -9, 9)]
    return [str(value) for value in [*near, int(right[::-1])] if 0 <= value < 200]


def wrong_spellings(prompt: str, right: str) -> Iterable[str]:
    """Spellings of numbers that look like the one asked: two digits exchanged, one digit changed, one lost."""
    digits = prompt.removeprefix("spell ").removesuffix(":")
    exchanged = [digits[:i] + digits[i + 1] + digits[i] + digits[i + 2 :] for i in range(len(digits) - 1)]
    changed = [digits[:i] + str((int(d) + 1) % 10) + digits[i + 1 :] for i, d in enumerate(digits)]
    lost = [digits[:i] + digits[i + 1 :] for i in range(len(digits))]
    further = [str(int(digits) + step) for step in (2, 3)]  # one digit alone offers too few mistakes
    return [spell_out(int(value)) for value in [*exchanged, *changed, *lost, *further] if value]


WRONG: dict[str, Callable[[str, str], Iterable[str]]] = {"add": wrong_sums, "spell": wrong_spellings}
"""Tasks that are multiple choice, with where their wrong choices come from."""

TASKS = ("add", "sort", "reverse", "spell", "words")


def distinct_documents(task: str, rng: random.Random) -> list[Document]:
    """Draw DOCUMENTS different test questions of `task`."""
    drawn: dict[str, Document] = {}
    while len(drawn) < DOCUMENTS:
        document = SKILLS[task](rng, test=True)
        drawn.setdefault(document.prompt, document)
    return list(drawn.values())


def as_row(task: str, document: Document, rng: random.Random) -> dict[str, object]:
    """Return `document` as the row that the YAML of `task` expects; its id is its question."""
    row: dict[str, object] = {"id": document.prompt.rstrip(":="), "question": document.prompt}
    # The chain is how a model gets there; what is asked for is the sum.
    answer = document.answer.rpartition("=")[2]
    if task not in WRONG:
        return row | {"answer": answer}
    wrong = sorted(set(WRONG[task](document.prompt, answer)) - {answer})
    choices = [answer, *rng.sample(wrong, CHOICES - 1)]
    rng.shuffle(choices)
    return row | {"choices": choices, "answer": choices.index(answer)}


def task_text(task: str) -> str:
    """Return the whole data file of `task`."""
    rng = random.Random(f"{SEED} {task}")
    rows = [as_row(task, document, rng) for document in distinct_documents(task, rng)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    """Write every data file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "tasks" / "data", help="folder (default: %(default)s)")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        path = out / f"{task}.jsonl"
        path.write_text(task_text(task), encoding="utf-8", newline="\n")
        print(f"{path}: {DOCUMENTS} documents")


if __name__ == "__main__":
    main()
