"""Which tokenizer a merged model gets and where the rows of its embeddings come from: mergekit's `tokenizer` block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNION, BASE = "union", "base"


@dataclass(frozen=True)
class TokenRow:
    """The source of a token's embedding in the models that lack the token, or in all of them if `force`."""

    token: str
    model: str | None = None  # the model that gives the row
    like: str | int | None = None  # another token of that model, or its id; None: the token itself
    zero: bool = False  # a row of zeros instead
    force: bool = False

    def to_mapping(self) -> dict[str, Any]:
        """Return the row in mergekit's form."""
        source: Any = self.model
        if self.zero:
            source = {"kind": "zero"}
        elif self.like is not None:
            key = "token_id" if isinstance(self.like, int) else "token"
            source = {"kind": "model_token", "model": self.model, key: self.like}
        return {"source": source, **({"force": True} if self.force else {})}


@dataclass(frozen=True)
class TokenizerChoice:
    """A merged model's tokenizer."""

    source: str  # 'base', 'union', or a model
    rows: tuple[TokenRow, ...] = ()
    pad_to_multiple_of: int | None = None  # None = None | rows of the embedding; unused rows are padding

    def to_mapping(self) -> dict[str, Any]:
        """Return the choice in mergekit's form; `choice_of` turns it back."""
        document: dict[str, Any] = {"source": self.source}
        if self.rows:
            document["tokens"] = {row.token: row.to_mapping() for row in self.rows}
        if self.pad_to_multiple_of is not None:
            document["pad_to_multiple_of"] = self.pad_to_multiple_of
        return document

    def models(self) -> tuple[str, ...]:
        """Return the models that the choice names."""
        named = [self.source if self.source not in (UNION, BASE) else None, *(row.model for row in self.rows)]
        return tuple(dict.fromkeys(model for model in named if model is not None))


def choice_of(document: Mapping[str, Any] | None) -> TokenizerChoice | None:
    """Return a `tokenizer` block as a value; its form has been checked (see `problems_of`)."""
    if document is None:
        return None
    rows = tuple(_row(str(token), entry) for token, entry in (document.get("tokens") or {}).items())
    return TokenizerChoice(document.get("source", UNION), rows, document.get("pad_to_multiple_of"))


def problems_of(document: Any) -> list[tuple[tuple[str, ...], str]]:
    """Return what is wrong with the form of a `tokenizer` block: (place below the block, what was expected)."""
    if not isinstance(document, Mapping):
        return [((), f"must be {{source: base, union or a model}}, got {document!r}")]
    known = ("source", "tokens", "pad_to_multiple_of")  # mergekit's keys
    found: list[tuple[tuple[str, ...], str]] = [
        ((str(key),), f"unknown key. Known: {', '.join(known)}.") for key in document if key not in known
    ]
    if not isinstance(document.get("source", UNION), str):
        found.append((("source",), f"must be base, union or a model, got {document['source']!r}"))
    multiple = document.get("pad_to_multiple_of")
    if multiple is not None and (not isinstance(multiple, int) or isinstance(multiple, bool) or multiple < 1):
        found.append((("pad_to_multiple_of",), f"must be a whole number of at least 1, got {multiple!r}"))
    tokens = document.get("tokens") or {}
    if not isinstance(tokens, Mapping):
        return [*found, (("tokens",), f"must map tokens to {{source: ...}}, got {tokens!r}")]
    for token, entry in tokens.items():
        wrong = _row_problem(entry)
        if wrong is not None:
            found.append((("tokens", str(token)), wrong))
    return found


_ROW_FORM = (
    "must be {source: a model}, {source: {kind: zero}} or "
    "{source: {kind: model_token, model: ..., token: ... or token_id: ...}}, each with force: true to replace rows"
)


def _row_problem(entry: Any) -> str | None:
    source = entry.get("source") if isinstance(entry, Mapping) else None
    wrong = f"{_ROW_FORM}, got {entry!r}"
    if (
        not isinstance(entry, Mapping)
        or set(entry) - {"source", "force"}
        or not isinstance(entry.get("force", False), bool)
    ):
        return wrong
    if isinstance(source, str):
        return None
    if not isinstance(source, Mapping):
        return wrong
    if source.get("kind") == "zero":
        return None if set(source) == {"kind"} else wrong
    if source.get("kind") != "model_token" or not isinstance(source.get("model"), str):
        return wrong
    rest = {key: value for key, value in source.items() if key not in ("kind", "model") and value is not None}
    types = {"token": str, "token_id": int}  # exactly one of the two names the row
    return None if len(rest) == 1 and all(isinstance(v, types.get(k, ())) for k, v in rest.items()) else wrong


def _row(token: str, entry: Mapping[str, Any]) -> TokenRow:
    source, force = entry["source"], bool(entry.get("force", False))
    if isinstance(source, str):
        return TokenRow(token, source, force=force)
    if source["kind"] == "zero":
        return TokenRow(token, zero=True, force=force)
    like = source.get("token") if source.get("token") is not None else source.get("token_id")
    return TokenRow(token, source["model"], like, force=force)
