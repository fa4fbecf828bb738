"""Fixtures of the scoring tests; what they are made of is in worlds.py."""

from __future__ import annotations

import os

import pytest

from tests.scoring.worlds import FAMILIES, make_model, make_tokenizer

os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def models(tokenizer):
    return {family: make_model(family, len(tokenizer)) for family in FAMILIES}
