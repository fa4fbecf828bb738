"""A merge as an adapter: loaded by PEFT it is the merged model, as far off as the report says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.checkpoints import CheckpointReader
from evomerge.engine import LoraReport, export, export_lora
from evomerge.engine._lora import AUTO_ENERGY, _factors
from evomerge.errors import WeightsError
from evomerge.recipe import recipe_from_mapping

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
PROMPT = torch.arange(2, 40).reshape(2, 19)


def merged_by_peft(base: Path, adapter: Path) -> tuple[Any, torch.Tensor]:
    """Return the merged model, and the logits of the unmerged one."""
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        logits = model(PROMPT).logits
    return model.merge_and_unload(), logits


def whole_model(folder: Path) -> tuple[Any, torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model, model(PROMPT).logits


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "phi3", "gpt_neox", "gemma2"])
def test_full_rank_is_the_merged_model(family: str, families: Any, tmp_path: Path) -> None:
    """Matrices, embedding, head, norms and biases: everything arrives."""
    parents = families(family, False)
    recipe = parents.recipe("task_arithmetic")
    report = export_lora(recipe, tmp_path / "lora", rank=1000)
    export(recipe, tmp_path / "whole")
    assert report.left_out == ()
    assert report.relative_error < 1e-5
    assert {tensor.tensor for tensor in report.tensors} == set(CheckpointReader(str(parents.base)).layout.tensors)
    expected, logits = whole_model(tmp_path / "whole")
    found, unmerged = merged_by_peft(parents.base, tmp_path / "lora")
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-5)
    torch.testing.assert_close(unmerged, logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rank", [2, "auto"])
def test_the_report_is_what_peft_gives(rank: Any, llama: Any, tmp_path: Path) -> None:
    recipe = llama.recipe("ties")
    report = export_lora(recipe, tmp_path / "lora", rank=rank)
    export(recipe, tmp_path / "whole")
    found, _ = merged_by_peft(llama.base, tmp_path / "lora")
    expected, _ = whole_model(tmp_path / "whole")
    total = 0.0
    for tensor in report.tensors:
        difference = found.state_dict()[tensor.tensor] - expected.state_dict()[tensor.tensor]
        error = float(difference.double().norm())
        assert error == pytest.approx(tensor.error, rel=1e-3, abs=1e-5), tensor
        total += error**2
    change = sum(tensor.change**2 for tensor in report.tensors)
    assert report.relative_error == pytest.approx((total / change) ** 0.5, rel=1e-3)
    stored = json.loads((tmp_path / "lora" / "reconstruction.json").read_text())
    assert stored["relative_error"] == report.relative_error
    matrices = [tensor for tensor in report.tensors if tensor.kind != "stored whole"]
    if rank == 2:
        assert {tensor.rank for tensor in matrices} == {2}
        assert report.relative_error > 0.3  # noise has no small rank, and the report says so
    else:
        assert len({tensor.rank for tensor in matrices}) > 1
        assert all(tensor.error**2 <= (1 - AUTO_ENERGY) * tensor.change**2 * 1.001 for tensor in matrices)


def test_the_adapter_is_a_parent_again(llama: Any, tmp_path: Path) -> None:
    """Our own reader and PEFT agree on the adapter that was written."""
    export_lora(llama.recipe(), tmp_path / "lora", rank=4)
    found, _ = merged_by_peft(llama.base, tmp_path / "lora")
    with CheckpointReader(f"{llama.base}+{tmp_path / 'lora'}") as reader:
        for name, tensor in reader.tensors():
            assert torch.equal(tensor, found.state_dict()[name]), name


def test_a_merge_of_adapters_comes_back_exactly(llama: Any, tmp_path: Path) -> None:
    """Two adapters of rank 3 merge to rank 6: auto finds at most that, and 6 leaves nothing."""
    from tests.checkpoints.test_adapter import make_adapter

    for seed in (0, 1):
        make_adapter(llama.base, tmp_path / f"lora{seed}", seed, target_modules=["q_proj", "down_proj"])
    models = [{"model": f"{llama.base}+{tmp_path}/lora{seed}", "parameters": {"weight": 0.7}} for seed in (0, 1)]
    recipe = recipe_from_mapping({"merge_method": "task_arithmetic", "base_model": str(llama.base), "models": models})
    exact = export_lora(recipe, tmp_path / "exact", rank=6)
    assert exact.relative_error < 1e-5
    assert len(exact.tensors) == 2 * 4
    auto = export_lora(recipe, tmp_path / "auto")
    assert all(tensor.rank <= 6 for tensor in auto.tensors)
    assert auto.bytes <= exact.bytes


def test_a_tied_embedding_is_left_out_and_counted(families: Any, tmp_path: Path) -> None:
    parents = families("llama", True)
    report = export_lora(parents.recipe("task_arithmetic"), tmp_path / "lora", rank=1000)
    assert report.left_out == ("model.embed_tokens.weight",)
    (left,) = (tensor for tensor in report.tensors if tensor.kind == "left out")
    assert left.error == left.change > 0
    change = sum(tensor.change**2 for tensor in report.tensors) ** 0.5
    assert report.relative_error == pytest.approx(left.change / change, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_model": None, "merge_method": "linear"}, "give the recipe a base_model"),
        ({"dtype": "float23"}, "unknown dtype"),
    ],
)
def test_recipes_that_make_no_adapter(change: dict[str, Any], message: str, llama: Any, tmp_path: Path) -> None:
    document = {**llama.recipe("task_arithmetic").to_mapping(), **change}
    if document["merge_method"] == "linear":
        for entry in document["models"]:
            entry["parameters"].pop("density")
    with pytest.raises(WeightsError, match=message):
        export_lora(recipe_from_mapping({k: v for k, v in document.items() if v is not None}), tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_stacked_experts_are_refused_by_name(families: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"experts.0.w1.weight': transformers joins it with others"):
        export_lora(families("mixtral", False).recipe("task_arithmetic"), tmp_path / "lora")


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, "all"])
def test_ranks_that_are_none(rank: Any, llama: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="rank must be 'auto' or a whole number of at least 1"):
        export_lora(llama.recipe(), tmp_path / "lora", rank=rank)


def test_random_projections_find_what_all_singular_values_find(monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.engine import _lora as lora

    generator = torch.Generator().manual_seed(0)
    low = torch.randn(200, 3, generator=generator) @ torch.randn(3, 150, generator=generator)
    delta = low + 0.01 * torch.randn(200, 150, generator=generator)
    exact = _factors(delta, 3)
    monkeypatch.setattr(lora, "_EXACT_WIDTH", 100)
    before = torch.random.get_rng_state()
    quick = _factors(delta, 3)
    assert torch.equal(torch.random.get_rng_state(), before)  # other people's generator
    torch.testing.assert_close(quick[0] @ quick[1], exact[0] @ exact[1], rtol=0, atol=1e-4)


def test_the_report_in_numbers() -> None:
    from evomerge.engine._lora import Reconstruction

    tensors = (Reconstruction("a", "factors", 1, 3.0, 0.0), Reconstruction("b", "left out", 0, 4.0, 4.0))
    report = LoraReport(Path("x"), 10, tensors)
    assert report.relative_error == pytest.approx(0.8)
    assert report.left_out == ("b",)
