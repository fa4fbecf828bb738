"""Answers that come batch by batch: a model that is stopped half-way and asked the rest says the same, bit for bit."""

from __future__ import annotations

import math

import pytest

from evomerge.errors import InfrastructureError
from evomerge.scoring import SHORTENED, ModelScorer, TaskSet, TaskSettings
from evomerge.scoring.batched import _backends as backends
from tests.scoring.worlds import TASKS, make_model

CHOSEN, WRITTEN = "t_cloze", "t_sums"


@pytest.fixture(scope="module")
def task_set():
    return TaskSet.load([CHOSEN, WRITTEN], TaskSettings((str(TASKS),)))


@pytest.fixture
def make(models, tokenizer, task_set, monkeypatch):
    monkeypatch.setattr(backends, "ROW_ON_CPU", 128)  # several rows, as a long task has

    def _make(batch_size=4):
        return ModelScorer(models["llama"], tokenizer, task_set, batch_size=batch_size)

    return _make


def ids(task_set, task):
    return tuple(document.id for document in task_set.documents(task))


def counted(scorer, monkeypatch):
    """Count the tokens that the model reads from now on."""
    model, read = scorer.queries.model, []
    forward = model.forward

    def counting(*args, input_ids, **kwargs):
        read.append(input_ids.numel())
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(model, "forward", counting)
    return read


@pytest.mark.parametrize("task", [CHOSEN, WRITTEN])
def test_portions_are_the_whole_each_item_once(make, task_set, task):
    items = ids(task_set, task)
    whole = make().answers(task, items)
    portions = list(make().portions("", task, items, seconds=0.0))
    assert len(portions) >= 3
    asked = [response.item for portion in portions for response in {r.item: r for r in portion}.values()]
    assert sorted(asked) == sorted(items)
    assert sorted(map(repr, whole)) == sorted(repr(response) for portion in portions for response in portion)
    assert list(make().portions("", task, items)) == [whole]  # nothing is due: one portion, in the order of the items


@pytest.mark.parametrize("task", [CHOSEN, WRITTEN])
def test_the_rest_is_asked_in_the_batches_of_the_whole(make, task_set, task, monkeypatch):
    items = ids(task_set, task)
    scorer = make()
    whole = dict(zip(items, scorer.outputs(task, items), strict=True))
    read = counted(scorer, monkeypatch)
    scorer.outputs(task, items)
    all_tokens = sum(read)
    first = next(iter(scorer.output_portions(task, items)))
    rest = [item for item in items if item not in first]
    fresh = make()  # another worker
    fresh.outputs(task, items)  # which has found out how this model can be asked
    read.clear()
    said = {item: output for portion in fresh.output_portions(task, rest, items) for item, output in portion.items()}
    assert set(said) == set(rest)
    assert {**first, **said} == whole  # log likelihoods to the last bit
    assert sum(read) < all_tokens  # what is answered is not asked again


def test_batches_of_the_rest_alone_round_differently(make, task_set):
    """Why the batches follow from what was asked together: this is what would happen otherwise."""
    items = ids(task_set, CHOSEN)
    whole = dict(zip(items, make().outputs(CHOSEN, items), strict=True))
    alone = dict(zip(items[5:], make().outputs(CHOSEN, items[5:]), strict=True))
    assert alone != {item: whole[item] for item in alone}


def test_lengths_of_written_answers_survive_the_cut(make, task_set):
    """What is said about texts (cut off or not) comes from the batches too."""
    items = ids(task_set, WRITTEN)
    whole = make().answers(WRITTEN, items)
    scorer = make()
    portions = scorer.portions("", WRITTEN, items, items, seconds=0.0)
    first = next(portions)
    portions.close()
    rest = [item for item in items if item not in {response.item for response in first}]
    said = [r for portion in make().portions("", WRITTEN, rest, items, seconds=0.0) for r in portion]
    assert sorted(map(repr, [*first, *said])) == sorted(map(repr, whole))


def test_reading_and_writing_are_told_apart(make, task_set):
    scorer = make()
    scorer.answers(CHOSEN, ids(task_set, CHOSEN))
    prefill, decode = scorer.stopwatch.take()
    assert prefill > 0
    assert decode == 0.0
    scorer.answers(WRITTEN, ids(task_set, WRITTEN)[:6])
    prefill, decode = scorer.stopwatch.take()
    assert prefill > 0
    assert decode > 0
    assert scorer.stopwatch.take() == (0.0, 0.0)


def test_less_memory_halves_the_batches(make, task_set, monkeypatch):
    items = ids(task_set, WRITTEN)[:8]
    scorer = make(batch_size=8)
    sizes = []
    plain = backends.write_batches

    def noting(*arguments):
        sizes.append(arguments[4])
        return plain(*arguments)

    monkeypatch.setattr(backends, "write_batches", noting)
    scorer.limit_memory(0.5)
    texts = scorer.outputs(WRITTEN, items)
    scorer.limit_memory(0.25)
    scorer.outputs(WRITTEN, items)
    scorer.limit_memory(1.0)
    assert scorer.outputs(WRITTEN, items) == texts
    assert sizes == [4, 2, 8]
    budget, ceiling = backends.row_tokens(scorer.queries.model, scorer.queries.model.device)
    assert backends.row_tokens(scorer.queries.model, scorer.queries.model.device, 0.5) == (budget // 2, ceiling // 2)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_a_host_without_memory_gets_smaller_passes_and_keeps_what_was_said(make, task_set, monkeypatch, error):
    items = ids(task_set, CHOSEN)
    scorer = make()
    whole = [answer[0] for item in scorer.outputs(CHOSEN, items) for (answer,) in item]
    forward, calls = scorer.queries.model.forward, []

    def small(*args, input_ids, **kwargs):
        calls.append(input_ids.numel())
        if len(calls) > 1 and input_ids.numel() > 60:
            raise error
        return forward(*args, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(scorer.queries.model, "forward", small)
    given = [answer[0] for item in scorer.outputs(CHOSEN, items) for (answer,) in item]
    assert given == pytest.approx(whole, rel=1e-5)
    assert calls.count(calls[0]) == 1  # the row that was through is not asked again


def test_memory_that_does_not_suffice_for_one_sequence_is_the_machines_failure(make, task_set, monkeypatch):
    scorer = make()
    items = ids(task_set, CHOSEN)[:3]
    scorer.outputs(CHOSEN, items)  # the backend is chosen while memory suffices

    def none(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(scorer.queries.model, "forward", none)
    with pytest.raises(InfrastructureError, match="out of memory even for one sequence at a time: MemoryError"):
        scorer.outputs(CHOSEN, items)


def test_shortened_prompts_are_told_in_every_portion(tokenizer):
    """A worker's answerer says what the plain scorer says, whichever items it was asked in which portion."""
    tasks = TaskSet.load(["t_preamble"], TaskSettings((str(TASKS),)))
    items = ids(tasks, "t_preamble")[:12]
    scorer = ModelScorer(make_model("llama", len(tokenizer), max_position_embeddings=64), tokenizer, tasks)
    told = [r for portion in scorer.portions("", "t_preamble", items, seconds=0.0) for r in portion]
    assert {r.item for r in told if r.metric == SHORTENED} == set(items)


def test_portions_come_no_faster_than_asked(make, task_set):
    assert len(list(make().portions("", CHOSEN, ids(task_set, CHOSEN), seconds=math.inf))) == 1


def test_a_model_of_another_seed_says_something_else(tokenizer, task_set, make):
    """The comparisons above would see a difference."""
    items = ids(task_set, CHOSEN)
    other = ModelScorer(make_model("llama", len(tokenizer), seed=9), tokenizer, task_set)
    assert other.outputs(CHOSEN, items) != make().outputs(CHOSEN, items)
