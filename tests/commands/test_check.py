"""`check` from headers alone: what fits, what does not, and what is worth knowing, without reading a weight."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge.commands import check
from evomerge.errors import SearchFileError
from tests.pico import make_model

TASKS = Path(__file__).parent.parent / "scoring" / "tasks"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    base = make_model(folder / "base")
    make_model(folder / "one", seed=1, noise_from=base)
    make_model(folder / "deep", seed=2, layers=6)
    return folder


def search_file(folder: Path, names: list[str], base: str = "base", **merge: Any) -> Path:
    entries = [{"model": name, "parameters": {"weight": {"search": [0, 1]}}} for name in names]
    content = {
        "merge": {"merge_method": "task_arithmetic", "base_model": base, "models": entries, **merge},
        "objectives": [{"task": "t_letters"}],
        "tasks": {"include": [str(TASKS)]},
        "scoring": {"items": 4},
        "budget": {"candidates": 10},
    }
    content["merge"] = {key: value for key, value in content["merge"].items() if value is not None}
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def changed(made: Path, to: Path, **config: Any) -> Path:
    """Return a copy of the models, the second with another configuration."""
    folder = Path(shutil.copytree(made, to))
    path = folder / "one" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def test_everything_that_is_known_of_two_models(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors

    monkeypatch.setattr(safetensors, "safe_open", None)  # headers are read without it; weights cannot be
    report = check(search_file(made, ["one"]))
    found = report.to_mapping()
    base = found["models"][str(made / "base")]
    expected = {
        "layers": 4,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 4,
        "width": 16,
        "context": 256,
        "rows": 97,
        "tokens": 97,
    }
    assert {key: base[key] for key in expected} == expected
    assert base["dtypes"] == ["float32"]
    assert found["export_bytes"] == base["parameters"] * 4
    assert found["seconds_per_candidate"] > 0
    assert "200 tokens per item" in found["seconds_basis"]
    assert found["warnings"] == []
    text = report.text()
    for part in ("4 heads (2 key-value)", "context 256", "disk", "time", "memory"):
        assert part in text
    half = check(search_file(made, ["one"], dtype="float32", out_dtype="bfloat16")).to_mapping()
    assert half["export_bytes"] == base["parameters"] * 2


def test_rotary_context_and_dtype_differences_are_warnings(made: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    folder = changed(made, tmp_path / "models", rope_parameters=rope, max_position_embeddings=512)
    warnings = "\n".join(check(search_file(folder, ["one"])).warnings)
    assert "rotary embedding: " in warnings
    assert "has linear, theta 5000, factor 2.0; the result has the base's" in warnings
    assert "context: " in warnings
    assert "has 512" in warnings


def test_heads_that_only_the_configuration_tells_apart_are_a_problem(made: Path, tmp_path: Path) -> None:
    """Two heads of 8 have the shapes of four heads of 4."""
    folder = changed(made, tmp_path / "models", num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    with pytest.raises(SearchFileError) as caught:
        check(search_file(folder, ["one"]))
    assert any("attention heads: base" in problem and "has 2" in problem for problem in caught.value.problems)
    assert any("key-value heads: base" in problem for problem in caught.value.problems)


def test_another_depth_is_a_problem_for_models_and_none_for_slices(made: Path) -> None:
    with pytest.raises(SearchFileError, match=r"layers: base .* has 4, .* has 6"):
        check(search_file(made, ["deep"]))
    sources = [
        {"model": "base", "layer_range": [0, 4]},
        {"model": "deep", "layer_range": [1, 5], "parameters": {"weight": {"search": [0, 1]}}},
    ]
    report = check(search_file(made, [], models=None, slices=[{"sources": sources}]))
    assert {layout.layers for layout in report.models.values()} == {4, 6}


def test_other_shapes_and_other_depth_at_once(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "models"))
    make_model(folder / "wide", layers=6, intermediate_size=32)
    sources = [{"model": "base", "layer_range": [0, 4]}, {"model": "wide", "layer_range": [0, 4]}]
    sources[1]["parameters"] = {"weight": {"search": [0, 1]}}
    with pytest.raises(SearchFileError) as caught:
        check(search_file(folder, [], models=None, slices=[{"sources": sources}]))
    assert len(caught.value.problems) == 3  # one per matrix of the MLP, not per layer
    assert any("mlp.up_proj.weight': base is (24, 16), " in problem for problem in caught.value.problems)


def test_mistakes_of_the_file_its_models_and_its_tasks_come_at_once(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "models"))
    make_model(folder / "wide", intermediate_size=32)
    path = search_file(folder, ["wide"])
    content = yaml.safe_load(path.read_text())
    content["objectives"] = [{"task": "t_leters"}]
    content["controller"] = {"name": "cmaes"}
    content["budget"] = {"candidates": -1}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SearchFileError) as caught:
        check(path)
    found = caught.value.problems
    lines = {word: number for number, line in enumerate(path.read_text().splitlines(), 1) for word in line.split()}
    assert len(found) == 2 + 12 + 1, found  # the file's own, three matrices of four MLPs, the task
    assert found[0].startswith(f"line {lines['-1']}, budget.candidates: must be")
    assert found[1].startswith(f"line {lines['cmaes']}, controller.name: unknown controller 'cmaes'. Near: cma-es")
    assert sum("mlp." in problem for problem in found) == 12
    place = f"line {lines['t_leters']}, objectives[0].task"
    assert found[-1].startswith(f"{place}: unknown task 't_leters'. Near: t_letters")


def test_a_metric_that_a_task_lacks_has_its_line_even_if_the_merge_is_wrong(made: Path) -> None:
    path = search_file(made, ["one"], merge_method="task_arithmetik", parameters={"lamda": 1.0})
    content = yaml.safe_load(path.read_text())
    content["objectives"] = [{"task": "t_letters", "metric": "accuracy"}]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SearchFileError) as caught:
        check(path)
    method, parameter, metric = caught.value.problems
    assert "unknown merge method 'task_arithmetik'. Near: task_arithmetic" in method
    assert "merge.parameters.lamda: no merge method has this parameter. Near: lambda" in parameter
    assert "objectives[0].metric: task 't_letters' has no metric 'accuracy'" in metric
    assert metric.startswith("line ")


def test_spare_rows_are_reported_and_unions_are_for_merge(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "models"))
    make_model(folder / "spare", seed=3, vocab_size=100)
    report = check(search_file(folder, ["spare"]))
    assert report.vocabulary == (
        f"vocabulary of '{folder / 'spare'}': 3 rows that '{folder / 'base'}' lacks are left out",
    )
    assert "3 rows that" in report.text()
    with pytest.raises(SearchFileError, match=r"a union of vocabularies cannot be searched"):
        check(search_file(folder, ["spare"], tokenizer_source="union"))
    assert check(search_file(folder, ["spare"], tokenizer_source="base")).vocabulary


def test_licences_and_small_files_are_looked_at(made: Path, tmp_path: Path) -> None:
    folder = changed(made, tmp_path / "models", eos_token_id=500)
    (folder / "base" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Base\n")
    (folder / "one" / "LICENSE").write_text("Apache License\n   Version 2.0, January 2004\n")
    report = check(search_file(folder, ["one"]))
    assert [facts.licence for facts in report.facts.values()] == ["cc-by-nc-4.0", "apache-2.0"]
    warnings = "\n".join(report.warnings)
    assert "licence cc-by-nc-4.0 of base forbids commercial use, also of the merge" in warnings
    assert "eos_token_id 500 is no row of the embedding of 97" in warnings


@pytest.mark.filterwarnings("ignore")  # peft's own
def test_ranks_of_an_adapter(made: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from tests.checkpoints.test_adapter import make_adapter

    folder = Path(shutil.copytree(made, tmp_path / "models"))
    make_adapter(folder / "base", folder / "lora", target_modules=["q_proj", "v_proj"], rank_pattern={"v_proj": 2})
    report = check(search_file(folder, ["base+lora"]))
    adapted = report.facts[f"{folder}/base+{folder}/lora"]
    assert adapted.adapter_ranks == (2, 3)
    assert "LoRA rank 2/3" in report.text()
