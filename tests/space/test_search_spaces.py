"""Every shipped search space loads, has the dimensions that its header says, and decodes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from evomerge.config import load_search_file

SPACES = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))
EXAMPLES = Path(__file__).parents[2] / "examples" / "experts"
MODULES = {"attention": (".self_attn.",), "mlp": (".mlp.",)}

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the example models are not in this checkout")


def test_the_promised_spaces_are_there():
    names = {path.stem for path in SPACES}
    assert names >= {
        "quickstart", "linear_global", "ties_by_block", "dare_by_module", "slerp_two_models", "method_choice", "knots",
    }  # fmt: skip


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_is_as_large_as_its_header_says(path):
    header = "".join(line for line in path.read_text(encoding="utf-8").splitlines(True) if line.startswith("#"))
    (said,) = re.findall(r"(\d+) dimensions", header)
    space = load_search_file(path).space(layers=8, modules=MODULES)
    assert space.dimension == int(said)
    for number in range(5):
        recipe = space.decode(np.random.default_rng(number).random(space.dimension))
        assert space.decode(space.encode(recipe)) == recipe
        assert all(Path(model.split("+")[0]).is_dir() for model in recipe.references())


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_a_shipped_space_says_how_to_check_and_try_it(path):
    text = path.read_text(encoding="utf-8")
    place = f"search_spaces/{path.name}"
    assert re.search(rf"# Check it:\s+evomerge check\s+{place}", text)
    assert re.search(rf"# Try it:\s+evomerge search {place}", text)
    assert max(map(len, text.splitlines())) <= 135
