"""Adapters made by PEFT give, tensor by tensor, what PEFT's own merge_and_unload gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.checkpoints import CheckpointReader, compare_layouts, read_layout, revision_of
from evomerge.engine import ResidentModel, export
from evomerge.errors import WeightsError
from tests.pico import fingerprint_of

peft = pytest.importorskip("peft")
pytestmark = [
    # PEFT still asks transformers for an attribute under its old name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    # and comments on the odd adapters that are made here on purpose
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

LLAMA_TARGETS = ["q_proj", "v_proj", "down_proj"]
CASES: dict[str, tuple[str, bool, dict[str, Any]]] = {
    "plain": ("llama", False, {"target_modules": LLAMA_TARGETS, "lora_alpha": 6}),
    "rank-stabilised": ("llama", False, {"target_modules": LLAMA_TARGETS, "use_rslora": True}),
    "ranks and alphas by pattern": (
        "llama",
        False,
        {
            "target_modules": LLAMA_TARGETS,
            "rank_pattern": {"v_proj": 2, "layers.1.mlp.down_proj": 5},
            "alpha_pattern": {"down_proj": 16, "^model.layers.2.self_attn.q_proj": 1},
        },
    ),
    "some layers only": ("llama", False, {"target_modules": LLAMA_TARGETS, "layers_to_transform": [1, 3]}),
    "a module saved whole": ("llama", False, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]}),
    "embedding": ("llama", False, {"target_modules": ["embed_tokens", "q_proj"]}),
    "tied embedding": ("llama", True, {"target_modules": ["embed_tokens", "q_proj"]}),
    "weights stored (in, out)": (
        "gpt2",
        True,
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "stored (in, out), for PEFT to find out": ("gpt2", True, {"target_modules": ["c_proj"]}),
    "trained biases": ("qwen2", False, {"target_modules": ["q_proj", "k_proj"], "bias": "all"}),
}


def make_adapter(base: Path, folder: Path, seed: int = 0, **settings: Any) -> dict[str, torch.Tensor]:
    """Save a random adapter; return the weights of the model that PEFT merges it into, by the base's names."""
    model = AutoModelForCausalLM.from_pretrained(base)
    names = {name: parameter for name, parameter in model.named_parameters()}
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**{"r": 3, "task_type": "CAUSAL_LM", **settings}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:  # lora_B starts at zero
                parameter.copy_(parameter + (0.1 * torch.randn(parameter.shape, generator=generator)))
    wrapped.save_pretrained(folder)
    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()
    weights = dict(merged.named_parameters())
    assert weights.keys() == names.keys()
    return {name: weight.detach() for name, weight in weights.items()}


@pytest.mark.parametrize("case", CASES)
def test_equals_merge_and_unload(case: str, families: Any, tmp_path: Path) -> None:
    family, tied, settings = CASES[case]
    base = families(family, tied).base
    expected = make_adapter(base, tmp_path / "adapter", **settings)
    with CheckpointReader(f"{base}+{tmp_path / 'adapter'}") as reader, CheckpointReader(str(base)) as plain:
        found = dict(reader.tensors())
        changed = [name for name in found if not torch.equal(found[name], plain.tensor(name))]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    assert changed  # the adapter did something


def test_bfloat16_base_is_rounded_once(families: Any, tmp_path: Path) -> None:
    """PEFT rounds the delta and then the sum; here the sum alone, so at most one unit in the last place apart."""
    base = families("llama", False, torch.bfloat16).base
    expected = make_adapter(base, tmp_path / "adapter", target_modules=["q_proj"])
    name = "model.layers.0.self_attn.q_proj.weight"
    with CheckpointReader(f"{base}+{tmp_path / 'adapter'}") as reader:
        found = reader.tensor(name)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected[name].float(), rtol=2**-7, atol=1e-6)


def test_an_adapter_is_a_parent_like_any_other(llama: Any, tmp_path: Path) -> None:
    make_adapter(llama.base, tmp_path / "adapter", target_modules=LLAMA_TARGETS)
    adapted = f"{llama.base}+{tmp_path / 'adapter'}"
    assert compare_layouts(read_layout(str(llama.base)), [read_layout(adapted)]) == []
    assert revision_of(adapted).split("+")[0] == revision_of(str(llama.base))
    recipe = llama.recipe("ties", models=[{"model": adapted, "parameters": {"weight": 0.7, "density": 0.5}}])
    resident = ResidentModel([str(llama.base), adapted])
    report = export(recipe, tmp_path / "out")
    assert resident.write(recipe) == report.fingerprint == fingerprint_of(str(tmp_path / "out"))


def test_what_an_adapter_leaves_alone_is_shared_with_its_base(llama: Any, tmp_path: Path) -> None:
    make_adapter(llama.base, tmp_path / "adapter", target_modules=["q_proj"])
    adapted = f"{llama.base}+{tmp_path / 'adapter'}"
    tensors = ResidentModel([str(llama.base), adapted])._tensors
    base, other = tensors[str(llama.base)], tensors[adapted]
    own = {name for name in base if base[name].data_ptr() != other[name].data_ptr()}
    assert own == {f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(4)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora, which is not plain LoRA"),
        ({"peft_type": "IA3"}, "expected peft_type LORA, got 'IA3'"),
    ],
)
def test_other_kinds_are_refused(change: dict[str, Any], message: str, llama: Any, tmp_path: Path) -> None:
    make_adapter(llama.base, tmp_path / "adapter", target_modules=["q_proj"])
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(WeightsError, match=message):
        CheckpointReader(f"{llama.base}+{tmp_path / 'adapter'}")


def test_an_adapter_of_another_model_is_refused(llama: Any, families: Any, tmp_path: Path) -> None:
    make_adapter(families("gpt2", True).base, tmp_path / "adapter", target_modules=["c_attn"])
    with pytest.raises(WeightsError, match=r"c_attn.lora_A.weight' has no place in model .*the adapter was made for"):
        CheckpointReader(f"{llama.base}+{tmp_path / 'adapter'}")


def test_an_adapter_of_another_width_is_refused(llama: Any, tmp_path: Path) -> None:
    from tests.pico import make_model

    wide = make_model(tmp_path / "wide", hidden_size=32)
    make_adapter(wide, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(WeightsError, match=r"q_proj.weight': .* is \(16, 16\), adapter .* is \(32, 32\)"):
        CheckpointReader(f"{llama.base}+{tmp_path / 'adapter'}")


def test_a_tied_head_cannot_have_an_adapter_of_its_own(families: Any, tmp_path: Path) -> None:
    untied, tied = families("llama", False).base, families("llama", True).base
    make_adapter(untied, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.raises(WeightsError, match=r"its output head is tied to the embedding"):
        CheckpointReader(f"{tied}+{tmp_path / 'adapter'}")
