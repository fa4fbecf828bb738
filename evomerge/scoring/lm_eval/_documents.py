"""Documents of a task: what names one of them, and what makes two of them the same question."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Fields that name a document, in order of preference.
ID_FIELDS = ("id", "doc_id", "item_id", "question_id", "qid", "uid", "item", "idx", "index")


@dataclass(frozen=True)
class Document:
    """One question of a task: its name within the task and the hash of its content."""

    id: str
    hash: str  # leaves the naming field out, so that copies under two names count as one question


@dataclass(frozen=True)
class Catalogue:
    """The documents of one task in the order of its data, and what is odd about them."""

    documents: tuple[Document, ...]
    warnings: tuple[str, ...] = ()


def catalogue(task: str, contents: Sequence[Mapping[str, Any]]) -> Catalogue:
    """Return the documents of `task`, named by their own id field where it is unique and by position otherwise.

    >>> catalogue("add", [{"id": "a", "q": "1+1"}, {"id": "b", "q": "1+2"}]).documents[1].id
    'b'
    """
    field = next((name for name in ID_FIELDS if contents and all(_names(doc, name) for doc in contents)), None)
    ids = [str(doc[field]) for doc in contents] if field else []
    repeated = [name for name, count in Counter(ids).items() if count > 1]
    warnings = []
    if repeated:
        warnings.append(
            f"task {task!r}: {len(repeated)} values of field {field!r} name several documents "
            f"({', '.join(repeated[:3])}); documents are named by position instead"
        )
    if not ids or repeated:
        ids = [str(position) for position in range(len(contents))]
    documents = tuple(Document(name, content_hash(doc, without=field)) for name, doc in zip(ids, contents, strict=True))
    copies = len(documents) - len({document.hash for document in documents})
    if copies:
        warnings.append(f"task {task!r}: {copies} of {len(documents)} documents repeat an earlier one word for word")
    return Catalogue(documents, tuple(warnings))


def content_hash(document: Mapping[str, Any], without: str | None = None) -> str:
    """Return 32 hexadecimal digits over a document's fields, whatever their order, leaving out field `without`."""
    fields = {str(name): value for name, value in document.items() if name != without}
    text = json.dumps(fields, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _names(document: Mapping[str, Any], field: str) -> bool:
    value = document.get(field)
    return isinstance(value, (str, int)) and not isinstance(value, bool) and str(value) != ""
