"""Cheap checks of a candidate before it is scored: weights that grew out of bounds, and degenerate answers.

A candidate that does not pass has failed, with the reason; it costs no further forward pass. The checks are off unless
the search file asks for them, and parents are never checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.errors import CandidateError

GRAM = 4  # tokens
SHORTEST = 3 * GRAM  # tokens; below, a repetition says nothing ("yes yes yes")


@dataclass(frozen=True)
class SanityChecks:
    """Limits that a candidate must keep; the defaults pass any model that could still be useful."""

    norm_ratio: float = 10.0  # most that a tensor's norm may be, as a multiple of the largest parent's
    degenerate: float = 0.5  # most share of the probes that may be empty or repetitive; 1 looks at none
    probes: int = 8  # first items of each task with written answers that are looked at
    repetition: float = 0.8  # share of an answer's 4-grams that occurred before, above which it is repetitive


def check_norms(candidate: Mapping[str, float], parents: Mapping[str, float], ratio: float) -> None:
    """Compare a candidate's tensors with the parents'.

    Args:
        candidate: tensor name -> norm.
        parents: tensor name -> largest norm among the parents; tensors that are zero in all of them are passed over.
        ratio: most that a norm may have grown.

    Raises:
        CandidateError: a norm has grown more, or is not a number; names the worst tensor.
    """
    grown = {name: norm / parents[name] for name, norm in candidate.items() if parents.get(name, 0.0) > 0.0}
    # NaN compares false with everything, so what is not within bounds is what counts.
    wrong = {name: growth for name, growth in grown.items() if not growth <= ratio}
    if wrong:
        worst = max(wrong, key=lambda name: (wrong[name] != wrong[name], wrong[name]))
        raise CandidateError(
            f"exploding weights: the norm of {worst!r} is {wrong[worst]:.3g} times the largest parent's, and of "
            f"{len(wrong)} of {len(candidate)} tensors more than {ratio:g} times (scoring.sanity_checks.norm_ratio)"
        )


def check_answers(task: str, texts: Sequence[str], tokens: Sequence[Sequence[int]], checks: SanityChecks) -> None:
    """Look whether a model's answers say something.

    Args:
        task: whose answers they are.
        texts: the answers.
        tokens: the same as token ids.
        checks: the limits.

    Raises:
        CandidateError: more than the allowed share of the answers is empty or repetitive; shows one.
    """
    empty = [text for text in texts if not text.strip()]
    loops = [text for text, ids in zip(texts, tokens, strict=True) if repetition(ids) > checks.repetition]
    if texts and (len(empty) + len(loops)) / len(texts) > checks.degenerate:
        shown = f", as in {loops[0][:60]!r}" if loops else ""
        raise CandidateError(
            f"degenerate output: of {len(texts)} answers to task {task!r}, {len(empty)} are empty and {len(loops)} "
            f"repeat themselves{shown} (scoring.sanity_checks.degenerate is {checks.degenerate:g})"
        )


def repetition(tokens: Sequence[int]) -> float:
    """Return the share of 4-grams that occurred before, in [0, 1); 0 for fewer than 12 tokens.

    >>> repetition([1, 2] * 10) > 0.85
    True
    """
    if len(tokens) < SHORTEST:
        return 0.0
    grams = [tuple(tokens[start : start + GRAM]) for start in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams)
