"""From lm-eval's text requests to token ids: exactly the ids that lm-eval's own adapter would feed the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evomerge.errors import TaskError
from evomerge.scoring.batched._packing import Likelihood


class LanguageModel(Protocol):
    """The part of lm-eval's adapter around a model in memory that is used here; all of it is public."""

    tokenizer: Any

    @property
    def max_length(self) -> int:
        """Tokens that the model's context holds."""
        ...

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        ...

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:
        """Return the token ids of a text."""
        ...


@dataclass(frozen=True)
class Encoded:
    """One request as token ids, and whether something had to be left out for it to fit the context."""

    parts: tuple[Likelihood, ...] = ()  # more than one for rolling windows over a long text
    prompt: tuple[int, ...] = ()  # token ids before a written answer
    truncated: bool = False


class Encoder:
    """Encodes requests, each distinct one once."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self._known: dict[str, list[int]] = {}
        self._pairs: dict[tuple[str, str], Encoded] = {}

    def likelihood(self, context: str, continuation: str) -> Encoded:
        """Return the request for the likelihood of `continuation` after `context`, in lm-eval's tokenization.

        Spaces at the end of the context belong to the continuation, and the continuation's tokens are those that
        the whole text has more than the context, so that words are not cut where the two meet. A text that is too
        long for the context window loses its beginning.

        Raises:
            TaskError: the continuation has no token of its own, or alone is longer than the context window.
        """
        if (context, continuation) not in self._pairs:
            self._pairs[context, continuation] = self._likelihood(context, continuation)
        return self._pairs[context, continuation]

    def window(self, before: Sequence[int], after: Sequence[int]) -> Encoded:
        """Return the request for the likelihood of the tokens `after`, given those `before`."""
        room = self._lm.max_length
        if len(after) > room:
            raise TaskError(f"a choice is {len(after)} tokens long, but the model's context holds {room}")
        inputs = [*before, *after][-(room + 1) :][:-1]
        return Encoded((Likelihood(tuple(inputs), tuple(after)),), truncated=len(before) + len(after) > room + 1)

    def prompt(self, text: str, new_tokens: int) -> Encoded:
        """Return the prompt of a written answer of at most `new_tokens`; one that is too long loses its beginning.

        Raises:
            TaskError: the new tokens alone fill the context window, or the prompt is empty.
        """
        room = self._lm.max_length - new_tokens
        if room <= 0:
            raise TaskError(
                f"answers of up to {new_tokens} tokens leave no room for a question in a context of "
                f"{self._lm.max_length}; lower max_gen_toks"
            )
        # lm-eval encodes prompts of written answers with the tokenizer itself, looking for its bos token.
        tokenizer = self._lm.tokenizer
        bos = getattr(tokenizer, "bos_token", None)
        added = getattr(self._lm, "add_bos_token", None)
        if bos and text.startswith(bos):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(text, **({} if added is None else {"add_special_tokens": added}))["input_ids"]
        if not ids:
            raise TaskError("a question without a single token cannot be answered in writing")
        return Encoded(prompt=tuple(ids[-room:]), truncated=len(ids) > room)

    def _likelihood(self, context: str, continuation: str) -> Encoded:
        if context == "":
            own = self._lm.tok_encode(continuation, add_special_tokens=False)
            prefix = self._lm.prefix_token_id
            before, after = ([prefix], own) if own and own[0] != prefix else (own[:1], own[1:])
        else:
            body = context.rstrip()
            whole = self._lm.tok_encode(context + continuation)
            before = self._encode(body)
            after = whole[len(before) :]
        if not after or not before:
            raise TaskError(
                f"the choice {continuation!r} has no token of its own after its question; it cannot be scored"
            )
        return self.window(before, after)

    def _encode(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._lm.tok_encode(text)
        return self._known[text]
