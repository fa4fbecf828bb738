"""Parents that do not fit, and folders that cannot be written: one clear message, and no partial output."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.checkpoints import _memory as plan
from evomerge.checkpoints import _shards as shards
from evomerge.checkpoints import read_layout
from evomerge.engine import ResidentModel, export
from evomerge.errors import InputError, MergeError, WeightsError
from evomerge.recipe import Recipe, recipe_from_mapping
from tests.pico import fingerprint_of, make_model

UP = "model.layers.1.mlp.up_proj.weight"


def damaged(folder: Path, target: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Return a copy of a model whose tensors were changed."""
    copy = Path(shutil.copytree(folder, target))
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return copy


def recipe_over(base: Path, *models: Path, method: str = "task_arithmetic", **more: Any) -> Recipe:
    entries = [{"model": str(model), "parameters": {"weight": 0.5}} for model in models]
    return recipe_from_mapping({"merge_method": method, "base_model": str(base), "models": entries, **more})


def both_refuse(recipe: Recipe, out: Path, match: str) -> None:
    """The exporter and the resident refuse alike, and nothing is left of the export."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(WeightsError, match=match):
        export(recipe, out)
    assert sorted(out.parent.iterdir()) == before
    with pytest.raises(WeightsError, match=match):
        ResidentModel(recipe.references()).write(recipe)


def test_a_missing_tensor(llama: Any, tmp_path: Path) -> None:
    bad = damaged(llama.one, tmp_path / "bad", lambda tensors: tensors.pop(UP))
    for models in ((bad, llama.two), (llama.two, bad)):
        both_refuse(
            recipe_over(llama.base, *models), tmp_path / "out", rf"tensor '{UP}': '.*' has it, '.*bad' lacks it"
        )


def test_a_tensor_that_only_one_model_has(llama: Any, tmp_path: Path) -> None:
    extra = {"model.layers.1.self_attn.q_norm.weight": torch.ones(4)}
    bad = damaged(llama.one, tmp_path / "bad", lambda tensors: tensors.update(extra))
    for models in ((bad, llama.two), (llama.two, bad)):
        both_refuse(
            recipe_over(llama.base, *models), tmp_path / "out", r"q_norm.weight': '.*bad' has it, '.*two' lacks it"
        )


def test_a_tensor_of_another_shape(llama: Any, tmp_path: Path) -> None:
    bad = damaged(llama.one, tmp_path / "bad", lambda tensors: tensors.update({UP: torch.zeros(24, 20)}))
    message = rf"tensor '{UP}': '.*two' is \(24, 16\), '.*bad' is \(24, 20\)"
    both_refuse(recipe_over(llama.base, llama.two, bad), tmp_path / "out", message)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers(value: float, llama: Any, tmp_path: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[UP].view(-1)[[5, 300]] = value

    bad = damaged(llama.one, tmp_path / "bad", poison)
    message = rf"'{UP}' of model '.*bad' holds 2 values that are NaN or infinite, of 384"
    both_refuse(recipe_over(llama.base, bad), tmp_path / "out", message)


def test_large_weights_whose_sum_overflows_are_numbers(llama: Any, tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors[UP].fill_(3e38)

    big = damaged(llama.one, tmp_path / "big", enlarge)
    recipe = recipe_from_mapping({"merge_method": "passthrough", "models": [{"model": str(big)}]})
    assert export(recipe, tmp_path / "out").tensors == 39


def test_a_file_cut_short(llama: Any, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(llama.one, tmp_path / "bad"))
    path = bad / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-400])
    both_refuse(
        recipe_over(llama.base, bad),
        tmp_path / "out",
        r"bad/model.safetensors' is cut short: .* describes \d+ bytes, found \d+",
    )


def test_a_missing_folder(llama: Any, tmp_path: Path) -> None:
    both_refuse(recipe_over(llama.base, tmp_path / "gone"), tmp_path / "out", r"no folder or hub id '.*gone'")


def test_models_that_disagree_on_tying(llama: Any, families: Any, tmp_path: Path) -> None:
    tied = families("llama", True).one
    message = r"has an output head of its own, '.*one' ties its output head to the embedding"
    both_refuse(recipe_over(llama.base, tied), tmp_path / "out", message)


def test_a_head_that_is_stored_although_tied(families: Any, tmp_path: Path) -> None:
    def store_head(scale: float) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone() * scale

        return change

    parents = families("llama", True)
    same = damaged(parents.one, tmp_path / "same", store_head(1.0))
    expected = export(recipe_over(parents.base, parents.one), tmp_path / "expected").fingerprint
    assert export(recipe_over(parents.base, same), tmp_path / "got").fingerprint == expected
    other = damaged(parents.one, tmp_path / "other", store_head(1.5))
    both_refuse(
        recipe_over(parents.base, other), tmp_path / "out", r"'lm_head.weight' and 'model.embed_tokens.weight' differ"
    )


def test_models_with_other_numbers_of_layers(llama: Any, tmp_path: Path) -> None:
    deep = make_model(tmp_path / "deep", layers=5)
    both_refuse(
        recipe_over(llama.base, deep),
        tmp_path / "out",
        r"same number of layers, got '.*base' 4, '.*deep' 5; use slices",
    )


def test_buffers_that_differ(families: Any, tmp_path: Path) -> None:
    parents = families("llama", True)

    def buffer(value: int) -> Callable[[dict[str, torch.Tensor]], None]:
        return lambda tensors: tensors.update({"model.steps": torch.tensor([value])})

    base = damaged(parents.base, tmp_path / "base", buffer(1))
    same, other = (damaged(parents.one, tmp_path / f"one{v}", buffer(v)) for v in (1, 2))
    export(recipe_over(base, same), tmp_path / "good")
    assert load_file(tmp_path / "good" / "model.safetensors")["model.steps"].tolist() == [1]
    with pytest.raises(WeightsError, match=r"buffer 'model.steps' differs between '.*' and '.*'"):
        export(recipe_over(base, other), tmp_path / "out")


@pytest.mark.parametrize(
    ("layers", "message"),
    [([0, 5], r"expected 0 <= first < end <= 4, got \[0, 5\]"), ([2, 2], r"got \[2, 2\]"), ([-1, 2], r"got \[-1, 2\]")],
)
def test_layer_ranges(layers: list[int], message: str, llama: Any, tmp_path: Path) -> None:
    slices = [{"sources": [{"model": str(llama.one), "layer_range": layers}]}]
    with pytest.raises(WeightsError, match=message):
        export(recipe_from_mapping({"merge_method": "passthrough", "slices": slices}), tmp_path / "out")


def test_slices_of_unequal_length_or_without_the_base(llama: Any, tmp_path: Path) -> None:
    def document(*sources: tuple[Path, list[int]]) -> dict[str, Any]:
        entries = [{"model": str(m), "layer_range": r, "parameters": {"weight": 1.0}} for m, r in sources]
        return {"merge_method": "task_arithmetic", "base_model": str(llama.base), "slices": [{"sources": entries}]}

    unequal = document((llama.base, [0, 2]), (llama.one, [0, 3]))
    with pytest.raises(WeightsError, match=r"equally many layers, got '.*base' \[0, 2\], '.*one' \[0, 3\]"):
        export(recipe_from_mapping(unequal), tmp_path / "out")
    without = document((llama.one, [0, 4]), (llama.two, [0, 4]))
    with pytest.raises(
        WeightsError, match=r"needs the base model in every slice, found slice sources name no '.*base'"
    ):
        export(recipe_from_mapping(without), tmp_path / "out")


def test_values_that_are_missing_or_out_of_range(llama: Any, tmp_path: Path) -> None:
    models = [{"model": str(llama.one), "parameters": {"weight": [{"filter": "mlp", "value": 0.5}]}}]
    document = {"merge_method": "ties", "base_model": str(llama.base), "models": models}
    with pytest.raises(
        WeightsError, match=r"weight has no value for tensor 'model.embed_tokens.weight' of model '.*one'"
    ):
        export(recipe_from_mapping(document), tmp_path / "out")
    dense = recipe_over(llama.base, llama.one, method="ties", parameters={"density": 14})
    with pytest.raises(MergeError, match=r"density .* must be in \[0.0, 1.0\], got 14"):
        export(dense, tmp_path / "out")
    with pytest.raises(MergeError, match=r"unknown merge method 'tie'. Near: ties"):
        export(recipe_over(llama.base, llama.one, method="tie"), tmp_path / "out")
    with pytest.raises(WeightsError, match=r"unknown dtype 'float23' of the merged weights. Near: float32"):
        export(recipe_over(llama.base, llama.one, dtype="float23"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_vocabularies_that_disagree(llama: Any, tmp_path: Path) -> None:
    other = Path(shutil.copytree(llama.one, tmp_path / "other"))
    text = (other / "tokenizer.json").read_text()
    document = json.loads(text)
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(document))
    both_refuse(recipe_over(llama.base, other), tmp_path / "out", "gives 2 tokens other ids than base")


def test_a_configuration_that_transformers_does_not_know(llama: Any, tmp_path: Path) -> None:
    odd = Path(shutil.copytree(llama.base, tmp_path / "odd"))
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**config, "model_type": "nonesuch"}))
    with pytest.raises(WeightsError, match=r"transformers builds no causal language model from its config.json"):
        ResidentModel([str(odd)])
    (odd / "config.json").write_text(json.dumps({**config, "intermediate_size": 48}))
    with pytest.raises(
        WeightsError, match=r"down_proj.weight': '.*odd' is \(16, 24\), its config.json makes it \(16, 48\)"
    ):
        ResidentModel([str(odd)])


def test_tensors_without_a_place_in_the_model(llama: Any, tmp_path: Path) -> None:
    extra = damaged(
        llama.base, tmp_path / "extra", lambda tensors: tensors.update({"model.adapter.weight": torch.ones(2, 2)})
    )
    with pytest.raises(WeightsError, match=r"'model.adapter.weight' has no place in the model .*LlamaForCausalLM"):
        ResidentModel([str(extra)])

    def drop(tensors: dict[str, torch.Tensor]) -> None:
        for layer in range(4):
            tensors.pop(f"model.layers.{layer}.self_attn.k_proj.weight")

    short = damaged(llama.base, tmp_path / "short", drop)
    with pytest.raises(WeightsError, match=r"'model.layers.0.self_attn.k_proj.weight' is not in the checkpoint"):
        ResidentModel([str(short)])


# --- folders that cannot be written --------------------------------------------------------------------------------


@pytest.fixture
def good(llama: Any) -> Recipe:
    return llama.recipe()  # type: ignore[no-any-return]


def test_a_folder_that_is_taken(good: Recipe, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export(good, tmp_path / "out").tensors == 39  # an empty folder is fine
    content = sorted(path.name for path in (tmp_path / "out").iterdir())
    with pytest.raises(WeightsError, match=r"exists and is not empty; choose another folder"):
        export(good, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == content
    with pytest.raises(WeightsError, match=r"expected a new folder, found a file"):
        export(good, tmp_path / "out" / "config.json")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match=r"expected a new folder, found a link"):
        export(good, tmp_path / "link")


def test_a_folder_that_is_taken_while_the_merge_runs(good: Recipe, tmp_path: Path) -> None:
    def intrude(done: int, total: int) -> None:
        if done == total:
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "theirs").write_text("precious")

    with pytest.raises(WeightsError, match=r"exists and is not empty"):
        export(good, tmp_path / "out", progress=intrude)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "theirs").read_text() == "precious"


@pytest.fixture
def largest_file() -> Iterator[int]:
    """Let this process write no file larger than this many bytes: the system itself then refuses, as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    yield 8192
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up(good: Recipe, tmp_path: Path, largest_file: int) -> None:
    with pytest.raises(WeightsError, match=r"cannot write '.*out': File too large; no partial output remains"):
        export(good, tmp_path / "deep" / "out", shard_bytes=3 * largest_file)
    assert list(tmp_path.iterdir()) == []  # not even the parent folder that was made for it


def test_no_space_left(good: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    write = shards.ShardSlot.filled

    def fill(self: shards.ShardSlot, start: int, block: torch.Tensor) -> None:
        nonlocal written
        written += 1
        if written == 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, start, block)

    monkeypatch.setattr(shards.ShardSlot, "filled", fill)
    with pytest.raises(WeightsError, match=r"cannot write '.*out': No space left on device; no partial output remains"):
        export(good, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_space_is_counted_before_anything_is_written(
    good: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(WeightsError, match=r"needs 0.00 GiB of disk, 0.00 GiB are free"):
        export(good, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_read_only(good: Recipe, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        (closed / "probe").mkdir()
    except OSError:
        place = closed
    else:  # the super-user writes anywhere, but not into the kernel's tables
        (closed / "probe").rmdir()
        place = Path("/proc")
    with pytest.raises(WeightsError, match=r"cannot write '.*out': .*; no partial output remains"):
        export(good, place / "out")
    assert not (place / "out").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupt(error: type[BaseException], good: Recipe, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 25:
            raise error

    with pytest.raises(error):
        export(good, tmp_path / "out", progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_whole(good: Recipe, tmp_path: Path) -> None:
    """While the merge runs, its name does not exist; a process that waits for it never sees half a model."""
    seen: list[list[str]] = []
    export(good, tmp_path / "out", progress=lambda done, total: seen.append([p.name for p in tmp_path.iterdir()]))
    assert all(len(names) == 1 and names[0].startswith("out.partial-") for names in seen)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_exports_at_once_do_not_mix(good: Recipe, tmp_path: Path) -> None:
    errors: list[str] = []

    def work() -> None:
        try:
            export(good, tmp_path / "out")
        except InputError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) <= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert fingerprint_of(str(tmp_path / "out")) == export(good, tmp_path / "again").fingerprint


@pytest.mark.parametrize("name", ["../x", "a/b", "/x"])
def test_extra_files_stay_inside(name: str, good: Recipe, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected plain file names"):
        export(good, tmp_path / "out", extra_files={name: ""})


# --- memory --------------------------------------------------------------------------------------------------------


def test_memory_is_counted_before_anything_is_loaded(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_available_main_memory", lambda: 100_000)
    with pytest.raises(WeightsError, match=r"3 models and the resident one need .* on 'cpu', .* are free"):
        ResidentModel(llama.all)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_what_a_resident_takes(llama: Any, tmp_path: Path) -> None:
    from tests.checkpoints.test_adapter import make_adapter

    base, one = (read_layout(str(folder)) for folder in (llama.base, llama.one))
    scratch = 97 * 16 * 4
    assert plan.resident_bytes([base]) == 2 * base.bytes + 4 * scratch
    assert plan.resident_bytes([base, one]) == 3 * base.bytes + 5 * scratch
    make_adapter(llama.base, tmp_path / "adapter", target_modules=["q_proj"])
    adapted = read_layout(f"{llama.base}+{tmp_path / 'adapter'}")
    assert plan.resident_bytes([base, adapted]) == 2 * base.bytes + 4 * (16 * 16 * 4) + 5 * scratch
    assert plan.available_bytes("cpu") > 2**20


def test_the_fitting_model_is_loaded(llama: Any) -> None:
    plan.check_memory([read_layout(model) for model in llama.all], "cpu")
