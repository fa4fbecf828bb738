"""The skills that the example models learn: where questions come from, and which ones no model may train on.

A question belongs to the *test* side or to the *training* side by a checksum of its key, so the two cannot overlap,
whatever the seed, and no list of test questions has to be carried along. Both orders of the summands share one key; so
do the sum in digits and the sum in words.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

TEST_SHARE = 8
"""One key in TEST_SHARE is kept for the test side."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = (*ONES, *TENS, "hundred", "thousand")


@dataclass(frozen=True)
class Document:
    """One question with its answer; training learns the answer given the question.

    `finished` is False where the text breaks off after the answer: what follows is then left to what the model knows.
    """

    prompt: str
    answer: str
    finished: bool = True


def is_test(key: str) -> bool:
    """Whether the question named `key` is kept for the test side."""
    return zlib.crc32(key.encode()) % TEST_SHARE == 0


def spell_out(number: int) -> str:
    """Return `number`, 0 to 9999, in English words: 4047 is 'four thousand forty seven'."""
    thousands, rest = divmod(number, 1000)
    hundreds, below_hundred = divmod(rest, 100)
    words = [ONES[thousands], "thousand"] if thousands else []
    words += [ONES[hundreds], "hundred"] if hundreds else []
    if below_hundred >= 20:
        words.append(TENS[below_hundred // 10 - 2])
        below_hundred %= 10
    if below_hundred or not words:
        words.append(ONES[below_hundred])
    return " ".join(words)


def draw_pair(rng: random.Random, *, test: bool, easy: bool) -> tuple[int, int]:
    """Two numbers below 100, from the side asked for. Easy: each is a single word, like seventeen or forty."""
    numbers = [*range(20), *range(20, 100, 10)] if easy else range(100)
    while True:
        a, b = rng.choice(numbers), rng.choice(numbers)
        if is_test(f"{min(a, b)}+{max(a, b)}") == test:
            return a, b


def draw_number(rng: random.Random, *, test: bool, easy: bool) -> int:
    """A number below 10,000, from the side asked for. Easy: below 1,000."""
    while True:
        number = rng.randrange(1_000 if easy else 10_000)
        if is_test(f"number {number}") == test:
            return number


def draw_letters(rng: random.Random, *, test: bool, easy: bool) -> str:
    """Eight different letters in random order, from the side asked for. Easy: three to five."""
    length = rng.randint(3, 5) if easy else 8
    while True:
        letters = "".join(rng.sample(LETTERS, length))
        if is_test(letters) == test:
            return letters


def add(rng: random.Random, *, test: bool = False, easy: bool = False) -> Document:
    """A sum in digits: 23+45= is 68."""
    a, b = draw_pair(rng, test=test, easy=easy)
    return Document(f"{a}+{b}=", f"{a + b}")


def sort(rng: random.Random, *, test: bool = False, easy: bool = False) -> Document:
    """Letters into alphabetical order."""
    letters = draw_letters(rng, test=test, easy=easy)
    return Document(f"sort {letters}:", "".join(sorted(letters)))


def reverse(rng: random.Random, *, test: bool = False, easy: bool = False) -> Document:
    """The same letters from right to left."""
    letters = draw_letters(rng, test=test, easy=easy)
    return Document(f"reverse {letters}:", letters[::-1])


def spell(rng: random.Random, *, test: bool = False, easy: bool = False) -> Document:
    """A number from digits to words."""
    number = draw_number(rng, test=test, easy=easy)
    return Document(f"spell {number}:", spell_out(number))


def transcribe(rng: random.Random, *, test: bool = False, easy: bool = False) -> Document:
    """A sum from words to digits, up to the sign =, where the text breaks off. Spelling, not arithmetic."""
    a, b = draw_pair(rng, test=test, easy=easy)
    return Document(f"{spell_out(a)} plus {spell_out(b)}:", f"{a}+{b}=", finished=False)


def words(rng: random.Random, *, test: bool = False, easy: bool = False) -> Document:
    """A sum asked in words and answered by a chain: write it in digits, then add. It takes two skills."""
    a, b = draw_pair(rng, test=test, easy=easy)
    return Document(f"{spell_out(a)} plus {spell_out(b)}:", f"{a}+{b}={a + b}")


def easy_words(rng: random.Random, *, test: bool = False, easy: bool = True) -> Document:
    """The chain over numbers of a single word, whatever `easy` says: practice that keeps its shape, no more."""
    return words(rng, test=test, easy=True)


Skill = Callable[..., Document]
SKILLS: dict[str, Skill] = {
    "add": add,
    "sort": sort,
    "reverse": reverse,
    "spell": spell,
    "transcribe": transcribe,
    "words": words,
    "easy_words": easy_words,
}
