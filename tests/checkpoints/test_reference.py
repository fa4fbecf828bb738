from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge._model_reference import ModelReference
from evomerge.checkpoints import locate, parse_reference, revision_of, short_name
from evomerge.errors import WeightsError


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("org/base", ModelReference("org/base")),
        ("org/base@4f2a", ModelReference("org/base", "4f2a")),
        ("org/base+org/lora", ModelReference("org/base", None, "org/lora")),
        ("org/base@4f2a+org/lora@v1", ModelReference("org/base", "4f2a", "org/lora", "v1")),
        ("../models/base+./lora", ModelReference("../models/base", None, "./lora")),
    ],
)
def test_parts_of_a_reference(text: str, reference: ModelReference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text


@pytest.mark.parametrize("text", ["", "a+b+c", "a@1@2", "a@", "@1", "a+", "+b"])
def test_references_that_say_too_much_or_too_little(text: str) -> None:
    with pytest.raises(WeightsError, match=r"expected"):
        parse_reference(text)


def test_mergekit_reads_references_the_same_way() -> None:
    common = pytest.importorskip("mergekit.common")
    for text in ("org/base", "org/base@4f2a", "org/base@4f2a+org/lora@v1"):
        theirs, ours = common.ModelReference.parse(text), parse_reference(text)
        assert (theirs.model.path, theirs.model.revision) == (ours.path, ours.revision)
        assert ((theirs.lora.path, theirs.lora.revision) if theirs.lora else (None, None)) == (
            ours.adapter,
            ours.adapter_revision,
        )


def test_a_folder_may_be_called_anything(llama: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(llama.base, tmp_path / "a+b@c")
    assert locate(str(folder)).folder == Path(folder)
    assert short_name(str(folder)) == "a+b@c"


def test_parts_of_a_reference_may_be_called_anything(llama: Any, tmp_path: Path) -> None:
    base, adapter = tmp_path / "run@3+v2" / "base@1", tmp_path / "run@3+v2" / "lo+ra@x"
    base.parent.mkdir()
    shutil.copytree(llama.base, base)
    adapter.mkdir()
    assert parse_reference(f"{base}+{adapter}") == ModelReference(str(base), None, str(adapter))
    assert parse_reference(f"org/base@4f2a+{adapter}") == ModelReference("org/base", "4f2a", str(adapter))
    assert parse_reference(f"{base}+org/lora@v1") == ModelReference(str(base), None, "org/lora", "v1")
    assert short_name(f"{base}+{adapter}") == "base@1+lo+ra@x"
    common = pytest.importorskip("mergekit.common")
    for reference in (parse_reference(str(base)), parse_reference(f"{base}+{adapter}")):
        theirs = common.ModelReference.model_validate(reference.to_mergekit())
        assert theirs.model.path == reference.path
        assert (theirs.lora.path if theirs.lora else None) == reference.adapter


def test_short_names(llama: Any) -> None:
    assert short_name("org/base-math@91c0") == "base-math"
    assert short_name("org/base+adapters/words/") == "base+words"
    assert short_name(f"{llama.base}/../one") == "one"


@pytest.mark.parametrize("path", ["no/such/folder/here", "./nowhere", "/nowhere/at/all", "bad name"])
def test_what_is_neither_folder_nor_hub_id(path: str) -> None:
    with pytest.raises(WeightsError, match=f"no folder or hub id '{path}'"):
        locate(path)


def test_a_hub_id_that_cannot_be_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"no folder or hub id 'code'. If it is a folder, check the path"):
        locate("code")
    with pytest.raises(WeightsError, match=r"no folder or hub id 'org/code' at revision 'v1'"):
        locate("org/code@v1")


def test_a_hub_id_in_the_cache_is_known_by_its_commit(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    commit, older = "a" * 40, "b" * 40
    for name in (commit, older):
        shutil.copytree(llama.base, tmp_path / "models--org--base" / "snapshots" / name)
    refs = tmp_path / "models--org--base" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert locate("org/base").revision == commit
    assert revision_of("org/base") == commit
    assert revision_of(f"org/base@{older}") == older
    # a recipe that recorded the older commit gets it, though the branch has moved on
    assert locate("org/base", older).folder.name == older


def test_only_safetensors(llama: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama.base, tmp_path / "pickled"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"expected \*.safetensors in"):
        locate(str(folder))
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=r"only safetensors weights are read.*Convert it: python -c .*save_pretrained"
    ):
        locate(str(folder))


def test_a_folder_without_configuration_and_a_file(llama: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"expected config.json in '.*empty', found an empty folder"):
        locate(str(tmp_path / "empty"))
    with pytest.raises(WeightsError, match=r"expected a folder in Hugging Face layout, but .* is a file"):
        locate(str(llama.base / "config.json"))
    with pytest.raises(WeightsError, match=r"adapter of model .*: expected adapter_config.json in"):
        locate(f"{llama.base}+{llama.one}")


def test_a_revision_is_the_content_and_not_the_place(llama: Any, tmp_path: Path) -> None:
    original = revision_of(str(llama.base))
    assert len(original) == 40
    moved = Path(shutil.copytree(llama.base, tmp_path / "moved"))
    assert revision_of(str(moved)) == original
    (moved / "README.md").write_text("changed")
    (moved / "tokenizer_config.json").write_text("{}")
    assert revision_of(str(moved)) == original
    assert revision_of(str(llama.one)) != original


def test_a_revision_changes_with_any_byte_of_weights_or_configuration(llama: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(llama.base, tmp_path / "changing"))
    seen = {revision_of(str(folder))}
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    seen.add(revision_of(str(folder)))
    (folder / "config.json").write_text((folder / "config.json").read_text().replace("256", "128"))
    seen.add(revision_of(str(folder)))
    assert len(seen) == 3
