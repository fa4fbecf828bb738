"""What is scored is what is exported: the resident model, the exported folder, and transformers agree bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.checkpoints import CheckpointReader, revision_of
from evomerge.engine import ResidentModel, export
from evomerge.engine._parallel import ParallelMerger
from evomerge.errors import CandidateError, WeightsError
from evomerge.merge import mask_key
from evomerge.merge._masks import bernoulli
from evomerge.recipe import passthrough, recipe_from_mapping
from tests.pico import fingerprint_of

PROMPT = torch.arange(2, 40).reshape(2, 19)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(PROMPT).logits


def assert_same_model(resident: ResidentModel, folder: Path) -> None:
    loaded = load(folder)
    ours, theirs = resident.model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert torch.equal(ours[name], theirs[name]), name
    assert torch.equal(logits(resident.model), logits(loaded))


@pytest.mark.parametrize(
    ("family", "tied"),
    [("llama", False), ("llama", True), ("mistral", False), ("qwen2", True), ("gpt2", True), ("gpt2", False)],
)
def test_resident_export_and_transformers_agree(family: str, tied: bool, families: Any, tmp_path: Path) -> None:
    parents = families(family, tied)
    resident = ResidentModel(parents.all)
    for method in ("ties", "dare_ties", "linear"):
        recipe = parents.recipe(method)
        report = export(recipe, tmp_path / method, shard_bytes=20_000)
        assert len(list((tmp_path / method).glob("model-*-of-*.safetensors"))) > 1
        assert resident.write(recipe) == report.fingerprint == fingerprint_of(str(tmp_path / method))
        assert_same_model(resident, tmp_path / method)
    slerp = recipe_from_mapping(
        {
            "merge_method": "slerp",
            "base_model": str(parents.base),
            "models": [{"model": str(parents.one)}],
            "parameters": {"t": [0.1, 0.8]},
        }
    )
    assert resident.write(slerp) == export(slerp, tmp_path / "slerp").fingerprint


@pytest.mark.parametrize("dtypes", [{"dtype": "bfloat16"}, {"dtype": "float32", "out_dtype": "float16"}])
def test_another_dtype(dtypes: dict[str, str], llama: Any, tmp_path: Path) -> None:
    resident = ResidentModel(llama.all)
    before = llama.recipe("ties")
    first = resident.write(before)
    recipe = llama.recipe("ties", **dtypes)
    assert resident.write(recipe) == export(recipe, tmp_path / "out").fingerprint
    assert_same_model(resident, tmp_path / "out")
    assert resident.write(before) == first  # and back


def test_bfloat16_parents(families: Any, tmp_path: Path) -> None:
    parents = families("llama", True, torch.bfloat16)
    resident = ResidentModel(parents.all)
    recipe = parents.recipe("ties")
    assert resident.write(recipe) == export(recipe, tmp_path / "out").fingerprint
    assert_same_model(resident, tmp_path / "out")
    # R1: a float32 task vector gives a bfloat16 model back bit for bit
    whole = {"merge_method": "task_arithmetic", "base_model": str(parents.base), "parameters": {"weight": 1.0}}
    whole["models"] = [{"model": str(parents.one)}]
    assert resident.write(recipe_from_mapping(whole)) == fingerprint_of(str(parents.one))


def test_a_parent_is_itself(llama: Any) -> None:
    resident = ResidentModel(llama.all)
    for parent in llama.all:
        assert resident.write(passthrough(parent)) == fingerprint_of(parent)
        assert torch.equal(logits(resident.model), logits(load(Path(parent))))


def test_two_hundred_writes_leave_no_trace(llama: Any) -> None:
    """Every write starts from the parents: what was there before does not matter, not even in the last bit."""
    resident = ResidentModel(llama.all)
    recipe = llama.recipe("dare_linear")
    first = resident.write(recipe)
    seen = set()
    for number in range(200):
        other = llama.recipe("task_arithmetic", parameters={"lambda": 0.1 + 0.01 * number})
        seen.add(resident.write(other))
    assert len(seen) == 200
    assert resident.write(recipe) == first
    assert ResidentModel(llama.all).write(recipe) == first


def test_what_is_there_already_is_not_merged_again_unless_somebody_touched_it(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged: list[list[str]] = []
    run = ParallelMerger.run

    def watching(self: ParallelMerger, work: Any, *more: Any) -> dict[str, str]:
        merged.append([step.name for step, _ in work])
        return run(self, work, *more)

    monkeypatch.setattr(ParallelMerger, "run", watching)
    resident = ResidentModel(llama.all)
    recipe = llama.recipe()
    first = resident.write(recipe)
    assert resident.write(recipe) == first
    resident.model.model.norm.weight.data[3] += 1e-6  # as an adapter left loaded, or a stray optimiser step, would
    assert resident.fingerprint() != first
    assert resident.write(recipe) == first == resident.fingerprint()
    document = recipe.to_mapping()
    document["models"][1]["parameters"]["weight"] = [{"filter": "down_proj", "value": 0.9}, {"value": 0.4}]
    other = resident.write(recipe_from_mapping(document))
    assert other == ResidentModel(llama.all).write(recipe_from_mapping(document)) == resident.fingerprint() != first
    assert [len(names) for names in merged[:4]] == [39, 0, 1, 4]
    assert merged[2] == ["model.norm.weight"]
    assert merged[3] == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(4)]


def test_a_failed_candidate_leaves_the_resident_unknown_and_usable(llama: Any) -> None:
    resident = ResidentModel(llama.all)
    good = llama.recipe()
    first = resident.write(good)
    huge = llama.recipe("task_arithmetic", parameters={"lambda": 1e38}, out_dtype="float16", dtype="float32")
    with pytest.raises(
        CandidateError, match=r"merged tensor '.*' holds \d+ values that are NaN or infinite in float16"
    ):
        resident.write(huge)
    assert resident.written is None
    assert resident.write(good) == first


def test_rotary_tables_and_tied_heads_survive(families: Any) -> None:
    parents = families("llama", True)
    resident = ResidentModel(parents.all)
    expected = load(parents.base).model.rotary_emb.inv_freq
    resident.write(parents.recipe())
    assert torch.equal(resident.model.model.rotary_emb.inv_freq, expected)
    assert resident.model.lm_head.weight is resident.model.model.embed_tokens.weight
    assert not resident.model.training


def test_generation_settings_of_the_base_are_those_of_the_resident(llama: Any, tmp_path: Path) -> None:
    import shutil

    base = Path(shutil.copytree(llama.base, tmp_path / "base"))
    (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5], "repetition_penalty": 1.3}))
    generation = ResidentModel([str(base)]).model.generation_config
    assert generation.eos_token_id == [0, 5]
    assert generation.repetition_penalty == 1.3


def test_a_hub_gpt2_without_the_prefix_of_its_body(families: Any, tmp_path: Path) -> None:
    """The names of the original GPT-2 on the hub: 'h.0.attn...', with causal masks stored as 'h.0.attn.bias'."""
    import shutil

    from safetensors.torch import load_file, save_file

    made = families("gpt2", True).base
    base = Path(shutil.copytree(made, tmp_path / "base"))
    tensors = load_file(made / "model.safetensors")
    renamed = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64).tril() for layer in range(4)}
    save_file({**renamed, **masks}, base / "model.safetensors", {"format": "pt"})
    resident = ResidentModel([str(base)])
    recipe = passthrough(str(base))
    assert resident.write(recipe) == export(recipe, tmp_path / "out").fingerprint
    assert torch.equal(logits(resident.model), logits(load(made)))
    assert torch.equal(logits(load(tmp_path / "out")), logits(load(made)))


def test_masks_follow_the_content_of_a_model_and_not_its_place(llama: Any, tmp_path: Path) -> None:
    import shutil

    moved = [str(shutil.copytree(folder, tmp_path / Path(folder).name)) for folder in llama.all]
    recipe = llama.recipe("dare_linear")
    document = json.loads(json.dumps(recipe.to_mapping()))
    document["base_model"] = moved[0]
    for entry, place in zip(document["models"], moved[1:], strict=True):
        entry["model"] = place
    assert ResidentModel(moved).write(recipe_from_mapping(document)) == ResidentModel(llama.all).write(recipe)


def test_the_mask_of_one_tensor_by_hand(llama: Any, tmp_path: Path) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    document = {
        "merge_method": "dare_linear",
        "base_model": str(llama.base),
        "models": [{"model": str(llama.one), "parameters": {"weight": 1.0, "density": 0.5}}],
        "parameters": {"rescale": False},
        "mask_seed": 11,
    }
    export(recipe_from_mapping(document), tmp_path / "out")
    with (
        CheckpointReader(str(llama.base)) as base,
        CheckpointReader(str(llama.one)) as one,
        CheckpointReader(str(tmp_path / "out")) as merged,
    ):
        start, delta = base.tensor(name), one.tensor(name) - base.tensor(name)
        key = mask_key(11, revision_of(str(llama.one)), name)
        kept = bernoulli(key, delta.numel(), 0.5).view_as(delta)
        assert torch.equal(merged.tensor(name), start + delta * kept)
        assert 0.3 < float(kept.float().mean()) < 0.7


def test_everything_that_an_export_holds(llama: Any, tmp_path: Path) -> None:
    recipe = llama.recipe("ties", dtype="bfloat16", chat_template="{% for m in messages %}{{ m.content }}{% endfor %}")
    out = tmp_path / "made" / "out"
    progress: list[tuple[int, int]] = []
    report = export(
        recipe,
        out,
        card="# A merge\n",
        extra_files={"scores.json": "{}"},
        progress=lambda done, total: progress.append((done, total)),
    )
    names = {path.name for path in out.iterdir()}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "mergekit_config.yml",
        "model.safetensors",
        "recipe.json",
        "scores.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (report.folder, report.tensors) == (out, 39)
    assert report.bytes == (out / "model.safetensors").stat().st_size
    assert progress[0] == (1, 39)
    assert progress[-1] == (39, 39)
    config = json.loads((out / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert config["num_hidden_layers"] == 4
    stored = recipe_from_mapping(json.loads((out / "recipe.json").read_text()))
    assert dict(stored.revisions) == {model: revision_of(model) for model in llama.all}
    assert recipe_from_mapping(yaml.safe_load((out / "mergekit_config.yml").read_text())) == recipe
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    assert tokenizer.decode(tokenizer("2 + 3 = 5")["input_ids"]) == "2 + 3 = 5"


def test_the_chat_template_of_a_recipe_reaches_the_resident_tokenizer(llama: Any) -> None:
    resident = ResidentModel(llama.all)
    resident.write(llama.recipe(chat_template="{{ messages }}"))
    assert resident.tokenizer.chat_template == "{{ messages }}"
    resident.write(llama.recipe())
    assert resident.tokenizer.chat_template is None


def test_an_exported_recipe_makes_the_same_model_again(llama: Any, tmp_path: Path) -> None:
    first = export(llama.recipe("dare_ties"), tmp_path / "first")
    again = recipe_from_mapping(json.loads((tmp_path / "first" / "recipe.json").read_text()))
    assert export(again, tmp_path / "again").fingerprint == first.fingerprint
    assert export(llama.recipe("dare_ties", mask_seed=1), tmp_path / "other").fingerprint != first.fingerprint


def test_layers_stacked_and_repeated(families: Any, tmp_path: Path) -> None:
    """Qwen2's configuration lists the kind of every layer: the list grows with the stack."""
    parents = families("qwen2", True)
    document = {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": str(parents.base), "layer_range": [0, 3]}]},
            {"sources": [{"model": str(parents.one), "layer_range": [1, 4]}]},
        ],
    }
    recipe = recipe_from_mapping(document)
    export(recipe, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["num_hidden_layers"] == 6
    assert config["layer_types"] == ["full_attention"] * 6
    model = load(tmp_path / "out")
    assert len(model.model.layers) == 6
    base, one = load(parents.base), load(parents.one)
    order = [*base.model.layers[:3], *one.model.layers[1:4]]
    for got, expected in zip(model.model.layers, order, strict=True):
        for (name, tensor), (_, other) in zip(got.named_parameters(), expected.named_parameters(), strict=True):
            assert torch.equal(tensor, other), name
    assert torch.isfinite(logits(model)).all()
    with pytest.raises(WeightsError, match=r"architecture differs from .* \(layers: .* has 4, the result has 6\)"):
        ResidentModel(parents.all).write(recipe)


def test_layers_swapped_within_the_same_depth_are_written_in_place(llama: Any, tmp_path: Path) -> None:
    parts = [(llama.one, 0, 1), (llama.base, 1, 3), (llama.two, 3, 4)]
    slices = [{"sources": [{"model": str(model), "layer_range": [a, b]}]} for model, a, b in parts]
    recipe = recipe_from_mapping({"merge_method": "passthrough", "slices": slices})
    resident = ResidentModel(llama.all)
    assert resident.write(recipe) == export(recipe, tmp_path / "out").fingerprint
    assert_same_model(resident, tmp_path / "out")


def test_a_base_that_is_given_no_weight_lends_only_its_configuration_to_linear(llama: Any, tmp_path: Path) -> None:
    document = {
        "merge_method": "linear",
        "base_model": str(llama.base),
        "models": [{"model": m, "parameters": {"weight": w}} for m, w in zip(llama.all[1:], (0.25, 0.75), strict=True)],
    }
    export(recipe_from_mapping(document), tmp_path / "out")
    name = "model.layers.0.mlp.up_proj.weight"
    with (
        CheckpointReader(llama.all[1]) as one,
        CheckpointReader(llama.all[2]) as two,
        CheckpointReader(str(tmp_path / "out")) as out,
    ):
        expected = 0.25 * one.tensor(name).double() + 0.75 * two.tensor(name).double()
        assert float((out.tensor(name).double() - expected).abs().max()) < 1e-7


def test_one_block_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import weakref

    from evomerge.checkpoints import _shards as shards
    from evomerge.engine import _parallel
    from tests.pico import make_model

    base = make_model(tmp_path / "base", hidden_size=128, intermediate_size=1200, layers=1)
    other = make_model(tmp_path / "other", hidden_size=128, intermediate_size=1200, layers=1, noise_from=base)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    sizes: list[int] = []
    most = 0
    block = shards.ShardSlot.block

    def watching(self: shards.ShardSlot, start: int, stop: int) -> torch.Tensor:
        nonlocal most
        made = block(self, start, stop)
        alive.add(made)
        most = max(most, len(alive))
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(shards.ShardSlot, "block", watching)
    monkeypatch.setattr(_parallel, "_COMPILED", 1 << 17)
    document = {"merge_method": "ties", "base_model": str(base), "models": [{"model": str(other)}]}
    document["parameters"] = {"weight": 1.0, "density": 0.4}
    export(recipe_from_mapping(document), tmp_path / "out")
    assert max(sizes) == 1 << 17
    assert sizes.count(1 << 17) == 3  # of the MLP's three matrices, each a bit larger than one block
    assert most <= 2


def test_resident_needs_a_model_that_it_has_loaded(llama: Any) -> None:
    resident = ResidentModel(llama.all[:2])
    with pytest.raises(WeightsError, match=r"recipe names model '.*two', loaded are: .*base"):
        resident.write(llama.recipe())


def test_a_recipe_of_another_revision_is_refused(llama: Any, tmp_path: Path) -> None:
    recipe = llama.recipe().with_revisions({str(llama.one): "0" * 40})
    with pytest.raises(WeightsError, match=r"expected revision 0+, found [0-9a-f]{40}"):
        export(recipe, tmp_path / "out")
    with pytest.raises(WeightsError, match=r"the recipe was made with revision 0+"):
        ResidentModel(llama.all).write(recipe)
    with pytest.raises(WeightsError, match=r"expected revision 0+"):
        ResidentModel(llama.all, revisions={str(llama.one): "0" * 40})
    assert not (tmp_path / "out").exists()


def test_a_parent_that_computes_something_else_is_not_scored_under_the_bases_configuration(tmp_path: Path) -> None:
    from tests.pico import make_model

    base = make_model(tmp_path / "base")
    other = make_model(tmp_path / "other", rms_norm_eps=0.5)
    resident = ResidentModel([str(base), str(other)])
    with pytest.raises(WeightsError, match=r"rms_norm_eps: .* has 1e-06, .* has 0.5"):
        resident.write(passthrough(str(other)))
    export(passthrough(str(other)), tmp_path / "out")
    assert torch.equal(logits(load(tmp_path / "out")), logits(load(other)))


def test_weights_do_not_start_as_noise(llama: Any) -> None:
    """Nothing of the model is left as it was allocated: every parameter is reached by the fingerprint."""
    resident = ResidentModel(llama.all)
    resident.write(llama.recipe())
    reached = {parameter.data_ptr() for parameter in resident._parameters.values()}
    assert reached == {parameter.data_ptr() for parameter in resident.model.parameters()}
    assert all(math.isfinite(float(parameter.sum())) for parameter in resident.model.parameters())


def test_a_checkpoint_of_two_precisions_becomes_one_as_transformers_loads_it(families: Any, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    made = families("llama", False, torch.bfloat16).one
    mixed = Path(shutil.copytree(made, tmp_path / "mixed"))
    tensors = load_file(made / "model.safetensors")
    wide = {name: tensor.float() + 1e-4 if "norm" in name else tensor for name, tensor in tensors.items()}
    save_file(wide, mixed / "model.safetensors", {"format": "pt"})
    resident = ResidentModel([str(mixed)])
    assert resident.write(passthrough(str(mixed))) == export(passthrough(str(mixed)), tmp_path / "out").fingerprint
    assert_same_model(resident, tmp_path / "out")
    assert torch.equal(logits(resident.model), logits(load(mixed)))


def test_code_that_comes_with_a_model_is_never_run(llama: Any, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(llama.base, tmp_path / "remote"))
    config = json.loads((folder / "config.json").read_text())
    remote = {"model_type": "mine", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (folder / "config.json").write_text(json.dumps({**config, **remote}))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(WeightsError, match=r"transformers builds no causal language model"):
        ResidentModel([str(folder)])
    assert not (tmp_path / "ran").exists()


def test_layouts_steps_and_these_modules_need_no_torch_to_be_imported() -> None:
    import subprocess
    import sys

    engine = [f"engine._{name}" for name in ("resident", "model_export", "merge_plan", "parents", "chat_template")]
    files = [f"checkpoints._{name}" for name in ("layout", "memory", "resolve")]
    imports = "; ".join(f"import evomerge.{name}" for name in [*engine, *files])
    heavy = ("torch", "transformers", "safetensors", "peft")
    code = f"{imports}; import sys; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
