"""Flags of answers: cut off at the token limit, no answer extracted from the text, or the prompt shortened.

A low score with many flags points to token limits or answer formats, not to a lack of skill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.candidate import Response
from evomerge.scoring.metrics._metric import Generation

TRUNCATED = "truncated"  # metric: 1 where the limit of tokens came before the answer's end
UNEXTRACTED = "unextracted"  # metric, with the filter's name: 1 where the filter found no answer in the text
SHORTENED = "shortened"  # metric: 1 where the prompt lost its beginning to fit the model's context
RESPONSE_TOKENS = "response_tokens"  # metric: tokens of the answer
ANSWER_FLAGS = (TRUNCATED, UNEXTRACTED, SHORTENED)
# lm-eval's filters that put a fixed text in the place of an answer that they do not find.
_EXTRACTING = ("regex", "multi_choice_regex")
_FALLBACK = "[invalid]"  # lm-eval's default


def length_flags(task: str, item: str, written: Generation) -> list[Response]:
    """Return the flag and the length of a written answer."""
    return [
        Response(task, item, TRUNCATED, float(not written.ended)),
        Response(task, item, RESPONSE_TOKENS, float(written.tokens)),
    ]


def extraction_failed(steps: Sequence[tuple[str, Mapping[str, Any]]], results: Sequence[Any]) -> bool | None:
    """Return whether a filter found no answer; None where it does not look for one.

    Args:
        steps: (name, arguments) of the filter's steps, as in the task's settings.
        results: what came out of the last step, per request: texts, or lists of texts.

    >>> extraction_failed([("regex", {"regex_pattern": "x"}), ("take_first", {})], ["[invalid]"])
    True
    """
    fallbacks = {str(arguments.get("fallback", _FALLBACK)) for name, arguments in steps if name in _EXTRACTING}
    if not fallbacks:
        return None
    texts = [text for result in results for text in (result if isinstance(result, (list, tuple)) else [result])]
    return all(str(text) in fallbacks for text in texts)
