"""Vocabulary alignment: embedding rows of models with different tokenizers, permuted to one vocabulary.

Embedding and output head have one row per token. Before a merge, every model's rows are put into the order of the
result's vocabulary; what a model lacks is filled from others. With a `tokenizer` asked for, this is done as mergekit
does it. Without one the result has the base's vocabulary, and models that only add tokens, or rows without any, fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge._tokenizer import BASE, UNION, TokenizerChoice, TokenRow
from evomerge.checkpoints import Layout, vocabulary_difference
from evomerge.engine._merge_plan import donor_of
from evomerge.errors import WeightsError, near
from evomerge.recipe import Recipe, Source

if TYPE_CHECKING:
    from torch import Tensor

_MISSING, _ZERO, _MEAN = -1, -1, -2
_OUTPUT_BIASES = ("lm_head.bias", "embed_out.bias")


@dataclass(frozen=True, eq=False)
class Alignment:
    """Row maps that bring the vocabularies of a recipe's models to one. `tokens` and `rows` describe the result."""

    tokens: Mapping[str, int]  # token -> row
    rows: int  # embedding rows; those beyond the tokens are the mean of the others, or unnamed rows of the base
    donor: str  # the model whose tokenizer files the result gets, changed if `tokenizer` is given
    maps: Mapping[str, np.ndarray]  # model -> (rows,) its row for each row of the result, -1 where it has none
    stored: Mapping[str, int]  # model -> rows of its embedding in its files
    base: str | None  # preferred among the models that have a missing row
    explicit: Mapping[int, tuple[TokenRow, int]] = field(default_factory=dict)  # row -> the recipe's choice, source row
    padded: bool = False  # rows beyond the tokens are the mean of the others
    tokenizer: Any = None  # a transformers tokenizer to be written, where no model's files will do
    notes: tuple[str, ...] = ()  # notes for the user, one sentence each

    def touches(self, model: str) -> bool:
        """Return whether the rows of a model's embedding, (rows, width), change."""
        return self.stored[model] != self.rows or not self._identical[model]

    @cached_property
    def _identical(self) -> dict[str, bool]:
        return {
            model: bool((own == np.arange(self.rows)).all()) and not self.explicit and not self.padded
            for model, own in self.maps.items()
        }

    def aligned(self, model: str, models: Sequence[str], read: Callable[[str], Tensor]) -> Tensor:
        """Return a model's tensor, (its rows, ...), as (rows, ...): with the rows of the result.

        Args:
            model: the model whose tensor is returned.
            models: all that have this tensor, in the order of the recipe; missing rows come from them.
            read: gives the tensor of one of them as it is stored, (its rows, ...).
        """
        import torch

        tensors = {name: read(name) for name in models}
        dtype = tensors[model].dtype
        for tensor in tensors.values():
            dtype = torch.promote_types(dtype, tensor.dtype)  # rows of other models must not lose precision
        plan = self._fills(tuple(models))
        # (rows,); a forced row is replaced even where it exists
        own = np.where(plan.forced, _MISSING, self.maps[model])
        shape = (self.rows, *tensors[model].shape[1:])
        # (rows, width) of the result; zeros where no model has the token
        made = torch.zeros(shape, dtype=dtype, device=tensors[model].device)
        _put(made, own != _MISSING, tensors[model], own)
        missing = own == _MISSING
        for index, name in enumerate(models):
            _put(made, missing & (plan.source == index), tensors[name], plan.row)
        if (mean := missing & (plan.source == _MEAN)).any():
            total = torch.zeros_like(made)  # accumulated model by model, so that one padded copy is in memory
            for name in models:
                has = mean & (self.maps[name] != _MISSING)
                part = torch.zeros_like(made)
                _put(part, has, tensors[name], self.maps[name])
                total += part
            counts = torch.as_tensor(sum((self.maps[name] != _MISSING).astype(np.int64) for name in models))
            chosen = torch.as_tensor(np.flatnonzero(mean))
            made[chosen] = total[chosen] / counts[chosen].view(-1, *[1] * (made.ndim - 1)).to(made.device)
        if self.padded and self.rows > len(self.tokens):
            made[len(self.tokens) :] = made[: len(self.tokens)].mean(dim=0)  # mergekit pads with the mean embedding
        return made

    def _fills(self, models: tuple[str, ...]) -> _Fills:
        """Return the sources, (rows,), of missing rows: the only model with the token, the base, or the mean."""
        has = np.stack([self.maps[model] != _MISSING for model in models])  # (models, rows)
        count = has.sum(axis=0)
        # (rows,) index of the model whose row is taken
        source = np.where(count == 0, _ZERO, np.where(count == 1, has.argmax(axis=0), _MEAN))
        if self.base in models:  # the base's own row is preferred to a mean
            preferred = models.index(self.base)
            source = np.where((count > 1) & has[preferred], preferred, source)
        stacked = np.stack([self.maps[model] for model in models])
        row = stacked[np.maximum(source, 0), np.arange(self.rows)]  # negative codes index anything; they are not read
        forced = np.zeros(self.rows, dtype=bool)
        for number, (choice, origin) in self.explicit.items():
            forced[number] = choice.force
            source[number], row[number] = _ZERO, 0
            if not choice.zero:
                if choice.model not in models:
                    raise WeightsError(
                        f"tokenizer.tokens.{choice.token}: its source '{choice.model}' is none of the models merged "
                        f"there. {near(str(choice.model), models)}"
                    )
                source[number], row[number] = models.index(choice.model), origin
        return _Fills(source, row, forced)

    def same_as(self, other: Alignment) -> bool:
        """Return whether both alignments give their common models the same row maps, (rows,), and fillings."""
        shared = [model for model in self.maps if model in other.maps]
        # cheap differences first
        if self.rows != other.rows or self.explicit != other.explicit or self.padded != other.padded:
            return False
        if any((self.maps[model] != other.maps[model]).any() for model in shared):
            return False
        ours, theirs = (one._fills(tuple(one.maps)) for one in (self, other))
        names = [np.array([*one.maps, "mean", "zero"], dtype=object) for one in (self, other)]
        incomplete = np.stack([self.maps[model] == _MISSING for model in shared]).any(axis=0) if shared else False
        differ = (names[0][ours.source] != names[1][theirs.source]) | (ours.row != theirs.row)
        return not bool((differ & incomplete).any())


@dataclass(frozen=True)
class _Fills:
    source: np.ndarray  # (rows,) index of the model; -1: zeros, -2: mean of those that have it
    row: np.ndarray  # (rows,) row of the source
    forced: np.ndarray  # (rows,) whether the models' own rows are replaced too


def alignment_of(recipe: Recipe, layouts: Mapping[str, Layout]) -> Alignment | None:
    """Return the alignment of a recipe's vocabularies, or None where they are equal already.

    Raises:
        WeightsError: tokens stand in other rows and the recipe does not say whose tokenizer the result gets; or a
            token or model of its `tokenizer` does not exist.
    """
    models = recipe.references()
    choice = recipe.tokenizer_choice
    found = _to_base(recipe, layouts) if choice is None else _to_choice(choice, recipe, layouts)
    return found if any(found.touches(model) for model in models) or found.tokenizer is not None else None


def merge_of(models: Sequence[str], base: str, tokenizer: TokenizerChoice | None) -> Recipe:
    """Return a recipe of all models, whose alignment is that of every merge of them with this tokenizer."""
    sources = tuple(Source(model) for model in dict.fromkeys(models) if model != base)
    return Recipe("linear", (*sources, Source(base)), base=base, tokenizer=tokenizer)


def aligned_layouts(alignment: Alignment | None, layouts: Mapping[str, Layout]) -> Mapping[str, Layout]:
    """Return the models' layouts after alignment: embeddings of shape (rows, width)."""
    if alignment is None:
        return layouts
    return {
        model: _with_rows(layout, alignment.rows) if model in alignment.maps else layout
        for model, layout in layouts.items()
    }


def vocabulary_tensors(layout: Layout) -> tuple[str, ...]:
    """Return the names of the tensors of shape (tokens, ...)."""
    rows = layout.embedding_rows()
    return tuple(
        name
        for name, info in layout.tensors.items()
        if (layout.role_of(name) == "vocab" or name.endswith(_OUTPUT_BIASES)) and info.shape[0] == rows
    )


def _with_rows(layout: Layout, rows: int) -> Layout:
    changed = {
        name: replace(layout.tensors[name], shape=(rows, *layout.tensors[name].shape[1:]))
        for name in vocabulary_tensors(layout)
    }
    return replace(layout, tensors={**layout.tensors, **changed})


def _to_base(recipe: Recipe, layouts: Mapping[str, Layout]) -> Alignment:
    """Return the alignment, with maps of shape (rows,), to the donor's own vocabulary."""
    donor = donor_of(recipe)
    home = layouts[donor]
    rows = home.embedding_rows() if home.embedding is not None else 0
    ours = home.vocabulary() or {}
    maps = {donor: np.arange(rows)}  # the donor's rows stay in order
    notes: list[str] = []
    for model in recipe.references()[1:]:
        other = layouts[model]
        difference = vocabulary_difference(home, other)
        if difference is not None:
            raise WeightsError(
                f"{difference}. Set tokenizer_source: base (or union, or a model) to align the vocabularies"
            )
        theirs = other.vocabulary()
        if other.embedding is None or not ours or theirs is None:
            maps[model] = np.arange(rows)
            continue
        maps[model] = _shared_rows(ours, theirs, rows, other.embedding_rows())
        notes += _note(model, maps[model], other.embedding_rows(), rows, donor)
    stored = {
        model: layouts[model].embedding_rows() if layouts[model].embedding is not None else rows for model in maps
    }
    return Alignment(ours, rows, donor, maps, stored, donor, notes=tuple(notes))


def _shared_rows(ours: Mapping[str, int], theirs: Mapping[str, int], rows: int, their_rows: int) -> np.ndarray:
    """Return the other model's row for each of ours, (rows,); ids agree, but either may lack tokens."""
    found = np.where(np.arange(rows) < their_rows, np.arange(rows), _MISSING)
    named = {index: token for token, index in theirs.items()}
    for token, index in ours.items():
        if index < rows and token not in theirs and named.get(index, token) != token:
            found[index] = _MISSING  # the row is there, but it means another token
    return found


def _note(model: str, own: np.ndarray, rows: int, result: int, donor: str) -> list[str]:
    missing, left_out = int((own == _MISSING).sum()), max(rows - result, 0)
    parts = [
        f"{missing} rows that it lacks are those of '{donor}'" if missing else "",
        f"{left_out} rows that '{donor}' lacks are left out" if left_out else "",
    ]
    text = "; ".join(part for part in parts if part)
    return [f"vocabulary of '{model}': {text}"] if text else []


def _to_choice(choice: TokenizerChoice, recipe: Recipe, layouts: Mapping[str, Layout]) -> Alignment:
    """Return the alignment, with maps of shape (rows,), to the recipe's tokenizer, as mergekit makes it."""
    donor = donor_of(recipe)
    vocabularies = {model: _tokens(layouts[model], layouts[donor]) for model in recipe.references()}
    tokens, source, tokenizer = _result(choice, donor, vocabularies, layouts)
    size = max(len(tokens), max(tokens.values(), default=-1) + 1)  # ids may have gaps
    multiple = choice.pad_to_multiple_of or 1
    rows = -(-size // multiple) * multiple  # rounded up
    maps = {}
    notes: list[str] = []
    for model, vocabulary in vocabularies.items():
        own = np.full(rows, _MISSING)  # the model's row for each row of the result
        limit = layouts[model].embedding_rows()
        for token, index in tokens.items():
            found = vocabulary.get(token, _MISSING)
            own[index] = found if found < limit else _MISSING
        maps[model] = own
        missing = int((own[:size] == _MISSING).sum())
        unused = limit - int((own != _MISSING).sum())
        if missing or unused:
            notes.append(
                f"vocabulary of '{model}': lacks {missing} of the result's {size} tokens, {unused} rows unused"
            )
    explicit = {tokens[row.token]: (row, _origin(row, vocabularies, layouts)) for row in choice.rows}
    padded = rows > len(tokens)
    stored = {model: layouts[model].embedding_rows() for model in maps}
    return Alignment(tokens, rows, source, maps, stored, recipe.base, explicit, padded, tokenizer, tuple(notes))


def _result(
    choice: TokenizerChoice,
    donor: str,
    vocabularies: Mapping[str, Mapping[str, int]],
    layouts: Mapping[str, Layout],
) -> tuple[dict[str, int], str, Any]:
    """Return the result's tokens, the model whose tokenizer files it gets, and a tokenizer if they must be changed."""
    source = donor if choice.source in (BASE, UNION) else choice.source
    if source not in layouts:
        raise WeightsError(f"tokenizer source '{source}' has not been found. {near(source, layouts)}")
    start = dict(vocabularies[source] if source in vocabularies else _tokens(layouts[source], layouts[donor]))
    added: dict[str, Any] = {}
    if choice.source == UNION:
        for model, vocabulary in vocabularies.items():
            limit = layouts[model].embedding_rows()
            # sorted by the model's own ids
            # sorted by the model's own ids
            new = sorted((index, t) for t, index in vocabulary.items() if index < limit and t not in start)
            added |= {token: token for _, token in new}
    added |= {row.token: row.token for row in choice.rows if row.token not in start}
    if not added:
        return start, source, None
    tokenizer = _load_tokenizer(layouts[source])
    special = _special_tokens([layouts[model] for model in vocabularies])
    # as mergekit: plain tokens first, then those that their models added to their tokenizers, with their settings
    tokenizer.add_tokens([token for token in added if token not in special])
    tokenizer.add_tokens([special[token] for token in added if token in special])
    return dict(tokenizer.get_vocab()), source, tokenizer


def _origin(row: TokenRow, vocabularies: Mapping[str, Mapping[str, int]], layouts: Mapping[str, Layout]) -> int:
    """Return the row of the source model's embedding, (rows, width), that a token takes."""
    if row.zero or row.model is None or row.model not in vocabularies:
        return 0  # a model that is not merged is refused where its row is wanted
    token = row.token if row.like is None else row.like
    found = token if isinstance(token, int) else vocabularies[row.model].get(token, _MISSING)
    limit = layouts[row.model].embedding_rows()
    if not 0 <= found < limit:
        what = f"no row {found}, it has {limit}" if isinstance(token, int) else f"no token {token!r}"
        raise WeightsError(f"tokenizer.tokens.{row.token}: model '{row.model}' has {what}")
    return found


def _special_tokens(layouts: Sequence[Layout]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for layout in layouts:
        if (layout.folder / "tokenizer_config.json").is_file():
            for token in _load_tokenizer(layout).added_tokens_decoder.values():
                found.setdefault(token.content, token)
    return found


def _tokens(layout: Layout, fallback: Layout) -> Mapping[str, int]:
    """Return a model's tokens; of a model without a tokenizer, those of the donor, as mergekit assumes."""
    for one in (layout, fallback):
        found = one.vocabulary()
        if found is None and any(
            (one.folder / name).is_file() for name in ("tokenizer.model", "tokenizer_config.json")
        ):
            found = dict(_load_tokenizer(one).get_vocab())
        if found is not None:
            return found
    raise WeightsError(f"model '{layout.reference}': a tokenizer is required, but '{layout.folder}' holds none")


def _load_tokenizer(layout: Layout) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(layout.folder, trust_remote_code=False)
    except (ValueError, OSError, ImportError, KeyError) as error:
        raise WeightsError(f"model '{layout.reference}': its tokenizer cannot be loaded: {error}") from error


def _put(made: Tensor, chosen: np.ndarray, source: Tensor, rows: np.ndarray) -> None:
    """Write `source[rows]`, (chosen, ...), into the chosen rows of `made`, (rows, ...)."""
    import torch

    if chosen.any():
        device = made.device
        chosen_rows = torch.as_tensor(np.flatnonzero(chosen), device=device)
        # (chosen, width), one gather per model
        made[chosen_rows] = source[torch.as_tensor(rows[chosen], device=source.device)].to(made.dtype)
