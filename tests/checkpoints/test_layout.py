from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.checkpoints import (
    Layout,
    TensorInfo,
    compare_layouts,
    config_difference,
    read_layout,
    vocabulary_difference,
)
from evomerge.checkpoints._headers import read_header
from evomerge.checkpoints._resolve import LocalModel
from evomerge.errors import WeightsError
from tests.pico import make_model


def test_a_llama(llama: Any) -> None:
    layout = read_layout(str(llama.base))
    assert (layout.layers, layout.stack, layout.tied, layout.dtype) == (4, "model.layers", False, "float32")
    assert len(layout.tensors) == 3 + 9 * 4
    assert layout.tensors["model.embed_tokens.weight"] == TensorInfo((97, 16), "float32", "model.safetensors")
    per_layer = 2 * 16 * 16 + 2 * 8 * 16 + 3 * 16 * 24 + 2 * 16
    assert layout.parameters == 2 * 97 * 16 + 16 + 4 * per_layer
    assert layout.bytes == 4 * layout.parameters
    assert layout.modules == {"attention": (".self_attn.",), "mlp": (".mlp.",)}
    assert layout.embedding == "model.embed_tokens.weight"


def test_a_tied_head_counts_once(families: Any) -> None:
    tied, untied = (read_layout(str(families("llama", tied).base)) for tied in (True, False))
    assert tied.tied
    assert set(untied.tensors) - set(tied.tensors) == {"lm_head.weight"}
    assert untied.parameters - tied.parameters == 97 * 16


def test_shards_hold_what_one_file_holds(llama: Any) -> None:
    one, two = read_layout(str(llama.one)), read_layout(str(llama.two))
    assert len({info.file for info in two.tensors.values()}) > 1
    assert {n: i.shape for n, i in one.tensors.items()} == {n: i.shape for n, i in two.tensors.items()}
    assert compare_layouts(one, [two]) == []


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "gpt2"])
def test_every_family_has_its_layers_and_modules(family: str, families: Any) -> None:
    layout = read_layout(str(families(family, True).base))
    counts = [sum(layout.layer_of(name) == layer for name in layout.tensors) for layer in range(4)]
    assert len(set(counts)) == 1
    assert counts[0] > 8
    groups = {
        group: {name for name in layout.tensors if any(part in name for part in parts)}
        for group, parts in layout.modules.items()
    }
    assert groups["attention"]
    assert groups["mlp"]
    assert not groups["attention"] & groups["mlp"]
    rest = set(layout.tensors) - groups["attention"] - groups["mlp"]
    assert all(
        "norm" in name or "ln_" in name or "embed" in name or ".wte." in name or ".wpe." in name for name in rest
    )


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("model.embed_tokens.weight", (97, 16), "vocab"),
        ("lm_head.weight", (97, 16), "vocab"),
        ("transformer.wte.weight", (97, 16), "vocab"),
        ("transformer.wpe.weight", (64, 16), "matrix"),
        ("model.layers.0.self_attn.q_proj.weight", (16, 16), "matrix"),
        ("model.layers.0.self_attn.q_proj.bias", (16,), "vector"),
        ("model.norm.weight", (16,), "vector"),
        ("model.layers.0.mlp.gate_proj.weight", (24, 16), "matrix"),
        ("model.layers.0.block_sparse_moe.gate.weight", (8, 16), "router"),
        ("model.layers.0.mlp.gate.weight", (8, 16), "router"),
        ("model.layers.0.mlp.experts.gate_up_proj", (8, 48, 16), "experts"),
        ("model.layers.0.mlp.experts.3.up_proj.weight", (24, 16), "matrix"),
    ],
)
def test_roles(name: str, shape: tuple[int, ...], role: str, llama: Any) -> None:
    assert read_layout(str(llama.base)).role_of(name, shape) == role


def test_names_that_contain_more_than_one_number() -> None:
    name = "model.layers.12.mlp.experts.3.up_proj.weight"
    layout = Layout("m", LocalModel(Path("m")), {}, {}, {}, 13, "model.layers", False)
    assert layout.layer_of(name) == 12
    assert layout.in_layer(name, 5) == "model.layers.5.mlp.experts.3.up_proj.weight"
    assert layout.layer_of("vision.blocks.12.mlp.weight") is None
    assert layout.layer_of("model.norm.weight") is None


def test_filters_of_attention_do_not_match_norms_named_after_it() -> None:
    names = ["gpt_neox.layers.0.attention.dense.weight", "gpt_neox.layers.0.post_attention_layernorm.weight"]
    tensors = {name: TensorInfo((4,), "float32", "f") for name in names}
    layout = Layout("m", LocalModel(Path("m")), {}, tensors, {}, 1, "gpt_neox.layers", False)
    assert layout.modules == {"attention": (".attention.",), "mlp": ()}
    assert [part in name for name in names for part in layout.modules["attention"]] == [True, False]


def test_problems_are_named_with_both_shapes_and_the_model(llama: Any, tmp_path: Path) -> None:
    base = read_layout(str(llama.base))
    wide = read_layout(str(make_model(tmp_path / "wide", intermediate_size=32)))
    deep = read_layout(str(make_model(tmp_path / "deep", layers=5)))
    biased = read_layout(str(make_model(tmp_path / "biased", attention_bias=True)))
    tied = read_layout(str(make_model(tmp_path / "tied", tied=True)))
    problems = compare_layouts(base, [wide])
    assert len(problems) == 3 * 4
    assert f"tensor 'model.layers.0.mlp.up_proj.weight': base is (24, 16), '{wide.reference}' is (32, 16)" in problems
    assert compare_layouts(base, [deep]) == [f"layers: base '{base.reference}' has 4, '{deep.reference}' has 5"]
    (unknown,) = compare_layouts(base, [biased])
    assert "model.layers.0.self_attn.k_proj.bias' (8,) and 15 more: unknown to the base" in unknown
    (missing,) = compare_layouts(biased, [base])
    assert "and 15 more: missing in" in missing
    head = compare_layouts(base, [tied])
    assert head[0] == f"tensor 'lm_head.weight' (97, 16): missing in '{tied.reference}'"
    assert "output head: separate in base" in head[1]
    assert len(compare_layouts(base, [wide, deep, tied])) == 15


def test_tokens_that_moved_are_a_problem_and_new_ones_are_not(llama: Any, tmp_path: Path) -> None:
    def renamed(name: str, changes: dict[str, str]) -> Layout:
        folder = Path(shutil.copytree(llama.base, tmp_path / name))
        document = json.loads((folder / "tokenizer.json").read_text())
        vocabulary = document["model"]["vocab"]
        document["model"]["vocab"] = {changes.get(token, token): index for token, index in vocabulary.items()}
        (folder / "tokenizer.json").write_text(json.dumps(document))
        return read_layout(str(folder))

    base = read_layout(str(llama.base))
    assert vocabulary_difference(base, renamed("named", {"~": "<|im_start|>"})) is None
    swapped = renamed("swapped", {"a": "b", "b": "a"})
    difference = vocabulary_difference(base, swapped)
    assert difference is not None
    assert "gives 2 tokens other ids" in difference
    assert "'a': 67 in the base, 68 in the other" in difference
    assert compare_layouts(base, [swapped]) == [difference]


def test_configurations_that_compute_something_else(llama: Any, tmp_path: Path) -> None:
    base = read_layout(str(llama.base))
    assert config_difference(base, read_layout(str(llama.one))) is None
    other = read_layout(str(make_model(tmp_path / "other", hidden_act="gelu")))
    assert (
        config_difference(base, other) == f"hidden_act: '{base.reference}' has 'silu', '{other.reference}' has 'gelu'"
    )


def test_headers_only(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors

    monkeypatch.setattr(safetensors, "safe_open", None)
    monkeypatch.setattr(torch, "load", None)
    assert read_layout(str(llama.two)).layers == 4


def test_a_header_is_what_the_library_reads(llama: Any) -> None:
    from safetensors import safe_open

    path = llama.base / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        expected = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    assert {name: info.shape for name, info in read_header(path).items()} == expected


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


@pytest.mark.parametrize("cut", [4, 100, -1, -1000])
def test_a_file_cut_short(cut: int, llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.base, tmp_path / "cut")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    left = len(whole[:cut])
    with pytest.raises(WeightsError) as caught:
        read_layout(str(folder))
    assert str(path) in str(caught.value)
    assert f"{left} bytes" in str(caught.value) or f"found {left}" in str(caught.value)
    if cut < 0:
        assert f"its header describes {len(whole)} bytes, found {left}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"\0" * 60, b"\x08\0\0\0\0\0\0\0notjson!", b"\xff" * 64])
def test_what_is_no_safetensors_file(content: bytes, llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.base, tmp_path / "odd")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=r"model.safetensors"):
        read_layout(str(folder))


def test_a_header_that_contradicts_itself(llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.base, tmp_path / "odd")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[97,16]', b'"shape":[96,16]', 1))
    with pytest.raises(WeightsError, match=r"of shape \(96, 16\) and dtype float32 needs 6144 bytes.*gives it 6208"):
        read_layout(str(folder))


def edit_index(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../one/model.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ""])
def test_an_index_that_leads_elsewhere(name: str, llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.two, tmp_path / "two")
    edit_index(folder, lambda weight_map: weight_map.update({"model.norm.weight": name}))
    with pytest.raises(WeightsError, match=r"expected file names inside the model's folder, found"):
        read_layout(str(folder))


def test_an_index_that_names_a_missing_file_or_tensor(llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.two, tmp_path / "two")
    edit_index(folder, lambda weight_map: weight_map.update({"model.extra": weight_map["model.norm.weight"]}))
    with pytest.raises(WeightsError, match=r"says tensor 'model.extra' is in 'model-.*', which does not hold it"):
        read_layout(str(folder))
    (folder / "model-00002-of-00005.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names file 'model-00002-of-00005.safetensors', which is not in"):
        read_layout(str(folder))


def test_a_link_that_leads_out_of_the_folder(llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.base, tmp_path / "linked")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(llama.one / "model.safetensors")
    with pytest.raises(WeightsError, match=r"is a link to .*, outside the model's folder"):
        read_layout(str(folder))


def test_the_hub_cache_is_made_of_links(llama: Any, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--base"
    snapshot = copy_of(llama.base, repository / "snapshots" / ("a" * 40))
    (repository / "blobs").mkdir()
    (snapshot / "model.safetensors").rename(repository / "blobs" / "b")
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/b"))
    assert read_layout(str(snapshot)).layers == 4


def test_a_configuration_with_another_number_of_layers(llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.base, tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 6}))
    with pytest.raises(WeightsError, match=r"expected layers 0 to 5 under 'model.layers', found 4: \[0, 1, 2, 3\]"):
        read_layout(str(folder))


def test_quantised_weights_are_refused(llama: Any, tmp_path: Path) -> None:
    folder = copy_of(llama.base, tmp_path / "quantised")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(WeightsError, match=r"expected 16, 32 or 64-bit .* found a quantization_config"):
        read_layout(str(folder))
