"""Perplexity of a file equals a plain transformers computation, and its error bar covers what it claims."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evomerge.candidate import Objective, Response
from evomerge.errors import CandidateError, TaskError
from evomerge.scoring import Measure, ModelScorer, documents, estimate, paired_difference, version
from evomerge.scoring.metrics._metric import contents
from evomerge.scoring.metrics._perplexity import perplexity
from evomerge.scoring.metrics._texts import chunks

WANTED = Objective("perplexity", "perplexity", "perplexity", "minimize", kind="perplexity")


def measure(path, chunk=40):
    return Measure("perplexity", "perplexity", {"file": str(path), "chunk": chunk})


def responses(losses, tokens, name="perplexity"):
    rows = []
    for place, (loss, count) in enumerate(zip(losses, tokens, strict=True)):
        rows += [Response(name, str(place), "loss", loss), Response(name, str(place), "tokens", float(count))]
    return rows


def plain_losses(model, tokenizer, texts):
    """Return (summed loss, tokens) per text by one ordinary forward pass each."""
    found = []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        inputs = torch.tensor([[tokenizer.eos_token_id, *ids]])
        with torch.inference_mode():
            scores = torch.log_softmax(model(inputs).logits[0, :-1].double(), dim=-1)
        found.append((-float(scores.gather(1, inputs[0, 1:, None]).sum()), len(ids)))
    return found


def test_the_perplexity_of_a_file_is_that_of_plain_transformers(answerer, model, tokenizer, text_file):
    asked = measure(text_file)
    items = [document.id for document in documents(asked).documents]
    score = estimate(answerer(asked).answers("perplexity", items), WANTED)
    plain = plain_losses(model, tokenizer, [content["text"] for content in contents(asked)])
    expected = math.exp(sum(loss for loss, _ in plain) / sum(count for _, count in plain))
    assert score.value == pytest.approx(expected, rel=1e-4)
    assert score.items == len(plain) > 5
    assert len({count for _, count in plain}) > 2  # of unequal lengths, so that weighing by tokens matters


def test_chunks_longer_than_the_context_are_read_in_windows(model, tokenizer, task_set, text_file, tmp_path):
    long = tmp_path / "long.txt"
    long.write_text(text_file.read_text() * 80)
    asked = measure(long, 4000)
    answerer = ModelScorer(model, tokenizer, task_set, [asked])
    rows = {(r.item, r.metric): r.value for r in answerer.answers("perplexity", ["0", "1"])}
    texts = [content["text"] for content in contents(asked)]
    for item in ("0", "1"):
        ids = tokenizer(texts[int(item)])["input_ids"]
        assert rows[item, "tokens"] == len(ids) > 512  # each token counted once, beyond the context
        assert 0 < rows[item, "loss"] < 20


def test_every_token_weighs_the_same():
    score = perplexity(responses([1.0, 4.0], [300, 100]), "perplexity")
    assert score.value == pytest.approx(math.exp((300 * 1 + 100 * 4) / 400))


def test_the_standard_error_is_that_of_many_samples():
    generator = np.random.default_rng(0)
    estimates, errors = [], []
    for _ in range(400):
        tokens = generator.integers(20, 200, size=60)
        losses = 2.0 + 0.3 * generator.standard_normal(60) - 0.002 * tokens  # long chunks are easier
        score = perplexity(responses(losses, tokens), "perplexity")
        estimates.append(score.value)
        errors.append(score.stderr)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.1)


def test_fewer_chunks_than_the_text_has_narrow_the_error_as_sampling_without_replacement_does():
    rows = responses([1.0, 2.0, 1.5, 1.7], [10, 12, 9, 11])
    free, finite = perplexity(rows, "perplexity"), perplexity(rows, "perplexity", population=16)
    assert finite.stderr == pytest.approx(free.stderr * math.sqrt(1 - 4 / 16))
    assert perplexity(rows, "perplexity", population=4).stderr == 0


def test_two_models_are_compared_in_nats_per_token_item_by_item():
    tokens = [10, 20, 30, 40]
    worse, better = responses([2.0, 2.1, 1.9, 2.2], tokens), responses([1.0, 1.3, 1.2, 1.1], tokens)
    gain = paired_difference(better, worse, WANTED)
    expected = (10 * 1.0 + 20 * 0.8 + 30 * 0.7 + 40 * 1.1) / 100
    assert gain.value == pytest.approx(expected)  # positive: a lower perplexity is fitter
    assert gain.low > 0
    same = paired_difference(responses([1.0] * 4, tokens), responses([1.5] * 4, tokens), WANTED)
    assert (same.low, same.high) == (pytest.approx(0.5), pytest.approx(0.5))  # however unequal the chunks are


def test_weights_that_are_not_numbers_fail_the_candidate(tokenizer, task_set, text_file):
    from tests.scoring.worlds import make_model

    broken = make_model("llama", len(tokenizer))
    broken.lm_head.weight.data.fill_(float("nan"))
    asked = measure(text_file)
    with pytest.raises(CandidateError, match=r"NaN|nan"):
        ModelScorer(broken, tokenizer, task_set, [asked]).answers("perplexity", ["0", "1"])


@pytest.mark.parametrize("size", [1, 7, 16, 50, 10_000])
def test_chunks_are_the_text_again_and_short_enough(text_file, size):
    text = text_file.read_text() + "\n\n   \n" + "x" * 90 + "\n"
    pieces = chunks(text, size)
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces)
    assert all(len(piece.strip()) <= size for piece in pieces)


def test_a_text_that_is_too_short_or_is_none_is_refused_by_name(tmp_path):
    short, binary, empty = tmp_path / "short.txt", tmp_path / "binary.txt", tmp_path / "empty.txt"
    short.write_text("one\ntwo\n")
    binary.write_bytes(b"ok \xff\xfe")
    empty.write_text(" \n")
    for path, words in [(short, "at least 4"), (binary, "not UTF-8"), (empty, "no text"), (tmp_path / "no", "No such")]:
        with pytest.raises(TaskError, match=words) as caught:
            contents(measure(path))
        assert str(path) in str(caught.value)


def test_the_version_follows_the_text_and_not_its_place(text_file, tmp_path):
    moved = tmp_path / "moved.txt"
    moved.write_text(text_file.read_text())
    before = version(measure(text_file))
    assert version(measure(moved)) == before
    assert version(measure(text_file, 60)) != before
    moved.write_text(text_file.read_text().replace("river", "brook"))
    assert version(measure(moved)) != before
