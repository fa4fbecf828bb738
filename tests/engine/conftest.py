"""Pico parents shared by the tests of this folder; read, never written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.recipe import Recipe, recipe_from_mapping
from tests.pico import make_model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Family:
    """A base and two 'fine-tunes' of it; the second lies in several files."""

    def __init__(
        self, folder: Path, family: str, tied: bool, dtype: torch.dtype = torch.float32, **settings: object
    ) -> None:
        def made(name: str, seed: int, **more: Any) -> Path:
            return make_model(folder / name, family, seed, tied=tied, dtype=dtype, **settings, **more)

        self.base = made("base", 0)
        self.one = made("one", 1, noise_from=self.base)
        self.two = made("two", 2, noise_from=self.base, shard_size="10KB")

    @property
    def all(self) -> list[str]:
        return [str(self.base), str(self.one), str(self.two)]

    def recipe(self, method: str = "ties", **more: object) -> Recipe:
        """Return a recipe over the two fine-tunes with weights that differ over depth and module."""
        weights = [[{"filter": "mlp", "value": [0.3, 1.2]}, {"value": 0.7}], 0.4]
        models = [
            {"model": str(folder), "parameters": {"weight": weight, "density": 0.6}}
            for folder, weight in zip((self.one, self.two), weights, strict=True)
        ]
        return recipe_from_mapping({"merge_method": method, "base_model": str(self.base), "models": models, **more})


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Family]:
    made: dict[tuple[str, bool, torch.dtype], Family] = {}

    def family(name: str = "llama", tied: bool = False, dtype: torch.dtype = torch.float32) -> Family:
        key = (name, tied, dtype)
        if key not in made:
            made[key] = Family(tmp_path_factory.mktemp(name), name, tied, dtype)
        return made[key]

    return family


@pytest.fixture(scope="session")
def llama(families: Callable[..., Family]) -> Family:
    return families("llama")
