"""Parents whose files differ in what does not matter: dtypes, spare tensors, tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.checkpoints import CheckpointReader, read_layout
from evomerge.engine import ResidentModel, export
from evomerge.errors import WeightsError
from evomerge.recipe import recipe_from_mapping
from tests.engine.test_against_mergekit import by_mergekit, weights_of
from tests.pico import fingerprint_of, make_model

NAME = "model.layers.1.mlp.up_proj.weight"


def rewritten(source: Path, target: Path, change: Any) -> Path:
    """Return a copy of a model whose tensors have been changed in place by `change`."""
    folder = Path(shutil.copytree(source, target))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mixed")
    base = make_model(folder / "base", dtype=torch.bfloat16)
    one = make_model(folder / "one", seed=1, noise_from=base, dtype=torch.float32)
    two = make_model(folder / "two", seed=2, noise_from=base, dtype=torch.float16)
    return [base, one, two]


def document(parents: list[Path], **more: Any) -> dict[str, Any]:
    models = [{"model": str(folder), "parameters": {"weight": 0.4}} for folder in parents[1:]]
    return {"merge_method": "task_arithmetic", "base_model": str(parents[0]), "models": models, **more}


def test_a_dtype_of_its_own_for_every_parent(parents: list[Path], tmp_path: Path) -> None:
    """Deltas are taken at stored precision, in float32; the result has the base's dtype."""
    recipe = recipe_from_mapping(document(parents))
    report = export(recipe, tmp_path / "out")
    base, one, two = (weights_of(folder)[NAME].float() for folder in parents)
    expected = (base + ((one - base) * 0.4 + (two - base) * 0.4)).bfloat16()
    assert torch.equal(weights_of(tmp_path / "out")[NAME], expected)
    resident = ResidentModel([str(folder) for folder in parents])
    assert resident.write(recipe) == report.fingerprint
    assert [read_layout(str(folder)).dtype for folder in parents] == ["bfloat16", "float32", "float16"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # mergekit's own
def test_mixed_dtypes_as_mergekit(parents: list[Path], tmp_path: Path) -> None:
    merge = document(parents, dtype="float32")
    export(recipe_from_mapping(merge), tmp_path / "ours")
    ours, theirs = weights_of(tmp_path / "ours"), by_mergekit(merge, tmp_path / "theirs")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_dtypes_inside_one_parent(llama: Any, tmp_path: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items() if "mlp" in name})

    mixed = rewritten(llama.one, tmp_path / "mixed", halve)
    recipe = recipe_from_mapping(document([llama.base, mixed]))
    assert ResidentModel([str(llama.base), str(mixed)]).write(recipe) == export(recipe, tmp_path / "out").fingerprint
    base, half = weights_of(llama.base)[NAME], weights_of(mixed)[NAME]
    assert torch.equal(weights_of(tmp_path / "out")[NAME], base + (half.float() - base) * 0.4)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("v_head.summary.weight", (1, 16)), ("model.layers.2.self_attn.q_proj.bias", (16,))],
)
def test_a_tensor_of_only_one_parent_is_named(name: str, shape: tuple[int, ...], llama: Any, tmp_path: Path) -> None:
    extra = rewritten(llama.one, tmp_path / "extra", lambda tensors: tensors.update({name: torch.zeros(shape)}))
    with pytest.raises(WeightsError, match=rf"tensor '{name}': '.*extra' has it, '.*' lacks it"):
        export(recipe_from_mapping(document([llama.base, extra])), tmp_path / "out")
    less = rewritten(llama.one, tmp_path / "less", lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(WeightsError, match=r"tensor 'model.norm.weight': .* has it, '.*less' lacks it"):
        export(recipe_from_mapping(document([llama.base, less])), tmp_path / "out")


def test_tables_and_integers_are_copied_and_must_agree(llama: Any, tmp_path: Path) -> None:
    def tables(step: int) -> Any:
        def add(tensors: dict[str, torch.Tensor]) -> None:
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.linspace(1, 0.1, 2)
            tensors["model.position_ids"] = torch.arange(0, 8 * step, step)

        return add

    base = rewritten(llama.base, tmp_path / "base", tables(1))
    same, other = (rewritten(llama.one, tmp_path / f"one{step}", tables(step)) for step in (1, 2))
    export(recipe_from_mapping(document([base, same])), tmp_path / "out")
    out = weights_of(tmp_path / "out")
    assert torch.equal(out["model.position_ids"], torch.arange(8))
    assert out["model.position_ids"].dtype == torch.int64
    assert fingerprint_of(str(tmp_path / "out"))
    with pytest.raises(WeightsError, match=r"buffer 'model.position_ids' differs between"):
        export(recipe_from_mapping(document([base, other])), tmp_path / "no")


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapted_parent_is_never_whole_in_memory(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the tensors that an adapter makes, only the one at hand is alive while a model passes through."""
    import weakref

    from evomerge.checkpoints._lora_adapter import Adapter
    from tests.checkpoints.test_adapter import make_adapter

    pytest.importorskip("peft")
    make_adapter(llama.base, tmp_path / "lora", target_modules=["q_proj", "up_proj", "down_proj"])
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = made = 0
    apply = Adapter.apply

    def watching(self: Adapter, name: str, weight: torch.Tensor) -> torch.Tensor:
        nonlocal most, made
        result = apply(self, name, weight)
        if result is not weight:
            alive.add(result)
            made += 1
            most = max(most, len(alive))
        return result

    monkeypatch.setattr(Adapter, "apply", watching)
    with CheckpointReader(f"{llama.base}+{tmp_path / 'lora'}") as reader:
        total = sum(tensor.numel() for _, tensor in reader.tensors())
    assert (made, total) == (12, reader.layout.parameters)
    assert most <= 2
