"""What `submit` sends, what it keeps to itself, and what it says of mistakes; no cluster is asked."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from evomerge.cli import main
from evomerge.commands import SubmitOptions, job_request, run_of_file, search
from evomerge.commands._submit import search_command
from evomerge.commands._upload_bundle import MOST_BYTES, pack
from evomerge.config import ClusterFile, load_cluster_file
from evomerge.errors import InputError, RunError, SearchFileError
from tests.clusters.test_places import CLUSTERS, SCHEMA, understood
from tests.end_to_end.conftest import EXPERTS, TASKS

SEARCH = """
merge:
  merge_method: linear
  models: [{{model: {first}}}, {{model: {second}}}]
  parameters: {{weight: {{search: [0, 1], per: [model]}}}}
objectives: [{objective}]
{more}
budget: {{candidates: 2}}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Models and tasks beside the folder of search files, with things that must stay at home."""
    for name in ("one", "two"):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        for file in ("config.json", "model.safetensors", "optimizer.pt", ".env", "pytorch_model.bin"):
            (folder / file).write_text(f"{name}/{file}")
        (folder / ".git").mkdir()
        (folder / ".git" / "config").write_text("secret")
    (tmp_path / "tasks" / "data").mkdir(parents=True)
    (tmp_path / "tasks" / "add.yaml").write_text("task: add")
    (tmp_path / "tasks" / "data" / "add.jsonl").write_text("{}")
    (tmp_path / "searches").mkdir()
    return tmp_path


def write(place: Path, **parts: str) -> Path:
    given = {"first": "../models/one", "second": "../models/two", "objective": "{task: add}"}
    given |= {"more": "tasks: {include: [../tasks]}", **parts}
    file = place / "searches" / "mine.yaml"
    file.write_text(SEARCH.format(**given))
    return file


# -- what travels ----------------------------------------------------------------------------------------------------


def test_relative_paths_travel_and_keep_their_places(place: Path, tmp_path: Path) -> None:
    bundle = pack(write(place))
    assert bundle.search_file == "searches/mine.yaml"
    assert set(bundle.files) == {
        "searches/mine.yaml",
        "models/one/config.json",
        "models/one/model.safetensors",
        "models/two/config.json",
        "models/two/model.safetensors",
        "tasks/add.yaml",
        "tasks/data/add.jsonl",
    }
    target = tmp_path / "there"
    digest = bundle.lay_out(target)
    assert (target / "models/one/model.safetensors").read_text() == "one/model.safetensors"
    assert pack(target / bundle.search_file).files == bundle.files, "it is complete: it can be packed again"
    assert pack(target / bundle.search_file).lay_out(tmp_path / "further") == digest
    (place / "tasks" / "add.yaml").unlink()
    (place / "tasks" / "add.yaml").write_text("task: sub")
    assert pack(place / "searches/mine.yaml").lay_out(tmp_path / "changed") != digest


def test_absolute_paths_are_the_clusters(place: Path) -> None:
    bundle = pack(write(place, first="/shared/models/one", second="~/models/two"))
    assert bundle.elsewhere == ("/shared/models/one", "~/models/two")
    assert not any("models" in name for name in bundle.files)


def test_hub_ids_and_adapters(place: Path) -> None:
    bundle = pack(write(place, first="org/base@4f2a+../models/one", second="org/base-math"))
    assert "models/one/config.json" in bundle.files
    assert bundle.elsewhere == ()


def test_files_of_objectives_travel(place: Path) -> None:
    (place / "searches" / "notes.txt").write_text("some text " * 300)
    (place / "searches" / "prompts.txt").write_text("hello\n")
    (place / "searches" / "fitness.py").write_text("def polite(asked): return 1.0\n")
    objective = "{perplexity: notes.txt}, {python: {function: 'fitness:polite', prompts: prompts.txt}}"
    bundle = pack(write(place, objective=objective, more=""))
    assert {"searches/notes.txt", "searches/prompts.txt", "searches/fitness.py"} <= {
        f"searches/{name}" if "/" not in name else name for name in bundle.files
    }


def test_what_is_missing_is_told_before_anything_is_sent(place: Path) -> None:
    with pytest.raises(SearchFileError, match="models/three"):
        pack(write(place, first="../models/three"))
    with pytest.raises(SearchFileError, match=r"\.\./models/three.*\n.*\.\./lost|\.\./lost"):
        pack(write(place, first="/only/there", second="../models/three", more="tasks: {include: [../lost]}"))


def test_a_relative_cache_is_refused(place: Path) -> None:
    with pytest.raises(InputError, match="cache 'answers' is relative, and a job's folder is removed"):
        pack(write(place, more="scoring: {cache: answers}\ntasks: {include: [../tasks]}"))


def test_too_much_is_refused_with_the_largest(place: Path) -> None:
    with open(place / "models" / "one" / "model.safetensors", "wb") as file:
        file.truncate(MOST_BYTES)  # sparse
    with pytest.raises(InputError, match=r"is 400 MiB.*one/model.safetensors \(400 MiB\).*hub id"):
        pack(write(place))


def test_links_in_circles_end(place: Path) -> None:
    (place / "tasks" / "again").symlink_to(place / "tasks")
    assert [name for name in pack(write(place)).files if name.endswith("add.yaml")] == ["tasks/add.yaml"]


# -- the job ---------------------------------------------------------------------------------------------------------


def cluster_file(folder: Path, text: str) -> ClusterFile:
    (folder / "cluster.yaml").write_text(text)
    return load_cluster_file(folder / "cluster.yaml")


def test_the_command_is_one_that_search_understands(place: Path) -> None:
    cluster = cluster_file(place, "address: http://head:8265\nruns: ~/my runs\nworkers: 6\n")
    job = job_request(write(place), cluster, SubmitOptions(candidates=9, seed=3, resume=True, log=("wandb:me/a b",)))
    words = shlex.split(job.entrypoint.replace('"$HOME"', "/home/me"))
    assert words[:3] == ["python", "-m", "evomerge"]
    given = understood(words[3:])
    assert (given.file, given.out, given.address) == ("searches/mine.yaml", "/home/me/my runs/mine", "auto")
    assert (given.workers, given.candidates, given.seed, given.resume) == (6, 9, 3, True)
    assert given.log == ["wandb:me/a b"]
    assert job.run == "~/my runs/mine"


def test_the_command_line_wins_over_the_cluster_file() -> None:
    assert "--workers 2" in search_command("a.yaml", "/r", ClusterFile("c", "ray", workers=8), SubmitOptions(workers=2))


def test_a_run_folder_of_the_cluster_is_absolute(place: Path) -> None:
    cluster = cluster_file(place, "address: http://head:8265\nruns: /runs\n")
    with pytest.raises(InputError, match="--out must be absolute or begin with ~/"):
        job_request(write(place), cluster, SubmitOptions(out="runs/mine"))


def test_secrets_come_from_the_environment_and_are_not_shown(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(place)
    cluster_file(place, "address: http://head:8265\nruns: /runs\nenv: [HF_TOKEN]\n")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    arguments = ["submit", str(file), "--cluster", str(place / "cluster.yaml"), "--dry-run"]
    assert main(arguments) == 2
    assert "HF_TOKEN is not set here" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    assert main([*arguments, "--env", "OTHER=hf_planted"]) == 2
    captured = capsys.readouterr()
    assert "hf_planted" not in captured.out + captured.err
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert json.loads(out)["variables"] == ["HF_TOKEN"]
    assert "hf_planted" not in out
    assert job_request(file, load_cluster_file(place / "cluster.yaml"), SubmitOptions()).variables == {
        "HF_TOKEN": "hf_planted"
    }


def test_nobody_answers(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp_cors", reason="needs evomerge[cluster]")
    cluster_file(place, "address: http://127.0.0.1:9\nruns: /runs\n")
    assert main(["submit", str(write(place)), "--cluster", str(place / "cluster.yaml")]) == 2
    err = capsys.readouterr().err
    assert "no Ray job server answers at http://127.0.0.1:9" in err
    assert "ray start --head" in err


# -- cluster files ---------------------------------------------------------------------------------------------------


def test_every_mistake_of_a_cluster_file_is_told_with_its_line(tmp_path: Path) -> None:
    text = "address: head:8265\nworker: 4\ngpus: -1\nruns: 3\n"
    with pytest.raises(SearchFileError) as told:
        cluster_file(tmp_path, text)
    assert [problem.partition(":")[0] for problem in told.value.problems] == [
        "line 1, address",
        "line 2, worker",
        "line 3, gpus",
        "line 4, runs",
    ]
    assert "Near: workers" in told.value.problems[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("address: head:8265\nruns: /r", "line 1, address: must begin with http:// or https://"),
        ("address: ray://head:10001\nruns: /r", "line 1, address: must begin with http:// or https://"),
        ("address: http://me:pass@head:8265\nruns: /r", "line 1, address: must hold no user or password"),
        ("address: http://head:8265", "runs: must be absolute or begin with ~/"),
        ("address: http://head:8265\nruns: /r\nfiles: shared", "line 3, files: must be absolute"),
        ("address: http://head:8265\nruns: /r\nfetch: cp {where}", "line 3, fetch: may hold {run} and {name}"),
        ("env: [HF_TOKEN]", "line 1, env: is of a cluster, and this file has no address"),
    ],
)
def test_one_mistake_of_a_cluster_file(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SearchFileError) as told:
        cluster_file(tmp_path, text)
    assert expected in str(told.value)


def test_a_token_in_a_cluster_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for entry in ('["hf_a-token"]', '["HF_TOKEN=hf_a-token"]'):
        with pytest.raises(SearchFileError, match="must be the name of an environment variable") as told:
            cluster_file(tmp_path, f"address: http://head:8265\nruns: /r\nenv: {entry}")
        assert "hf_a-token" not in str(told.value)


def test_files_that_are_no_cluster_files(tmp_path: Path) -> None:
    with pytest.raises(SearchFileError, match=r"no such file.*see clusters/"):
        load_cluster_file(tmp_path / "none.yaml")
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho\n")
    with pytest.raises(SearchFileError, match="without #SBATCH lines"):
        load_cluster_file(tmp_path / "run.sh")


# -- here, Slurm, Kubernetes -----------------------------------------------------------------------------------------


def test_without_an_address_the_search_runs_here(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(place, first=str(EXPERTS / "add"), second=str(EXPERTS / "sort"), more=SMALL)
    cluster_file(place, f"runs: {place}/runs\n")
    arguments = ["submit", str(file), "--cluster", str(place / "cluster.yaml")]
    assert main([*arguments, "--no-follow"]) == 2
    assert "runs in this process" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "2 candidates scored" in capsys.readouterr().out
    # a second time it is refused, unless it shall go on; another text is another search
    assert main(arguments) == 2
    assert main([*arguments, "--resume", "--candidates", "3"]) == 0
    assert "3 candidates scored" in capsys.readouterr().out
    file.write_text(file.read_text().replace("seed: 5", "seed: 6"))
    assert main([*arguments, "--resume"]) == 2
    assert "another search file" in capsys.readouterr().err


SMALL = f"""
tasks: {{include: [{TASKS}]}}
scoring: {{items: 4, holdout: 0.05}}
controller: {{name: sobol}}
seed: 5
"""


def test_run_of_file_finds_only_runs(place: Path) -> None:
    file = write(place, first=str(EXPERTS / "add"), second=str(EXPERTS / "sort"), more=SMALL)
    assert run_of_file(file, place / "run") is None
    search(file, out=place / "run", candidates=1)
    assert run_of_file(file, place / "run") == place / "run"
    file.write_text(file.read_text() + "# a word more\n")
    with pytest.raises(RunError, match="another search file"):
        run_of_file(file, place / "run")


def test_slurm_gets_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(place)
    script = str(CLUSTERS / "slurm.sh")
    assert main(["submit", str(file), "--cluster", script, "--candidates", "7", "--log", "wandb"]) == 0
    words = shlex.split(capsys.readouterr().out)
    head = ["sbatch", "--job-name=evomerge-mine", script, str(file), "runs/mine"]
    assert words == [*head, "--candidates", "7", "--log", "wandb"]
    assert main(["submit", "--stop", "1", "--cluster", script]) == 2
    assert "use squeue, scancel" in capsys.readouterr().err
    assert main(["submit", str(file), "--cluster", script, "--env", "HF_TOKEN"]) == 2
    assert "sbatch passes the whole environment on" in capsys.readouterr().err


def test_kubernetes_gets_a_manifest_with_the_search_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SEARCH.format(first="org/one", second="/models/two", objective="{task: gsm8k}", more="")
    file = place / "searches" / "My Search.yaml"
    file.write_text(text)
    manifest = str(CLUSTERS / "kuberay.yaml")
    assert main(["submit", str(file), "--cluster", manifest, "--workers", "16", "--log", "mlflow"]) == 0
    config, job = yaml.safe_load_all(capsys.readouterr().out)
    jsonschema.validate(job, SCHEMA)
    assert config["metadata"]["name"] == job["metadata"]["name"] == "evomerge-search-my-search"
    assert config["data"] == {"search.yaml": text}
    volumes = [
        volume["configMap"]["name"]
        for group in (
            job["spec"]["rayClusterSpec"]["headGroupSpec"],
            *job["spec"]["rayClusterSpec"]["workerGroupSpecs"],
        )
        for volume in group["template"]["spec"]["volumes"]
        if "configMap" in volume
    ]
    assert volumes == ["evomerge-search-my-search"] * 2
    given = understood(job["spec"]["entrypoint"].split()[3:])
    assert (given.file, given.out, given.workers, given.resume) == (
        "/search/search.yaml",
        "/runs/my-search",
        16,
        True,
    )
    assert given.log == ["mlflow"]


def test_kubernetes_refuses_what_a_config_map_cannot_carry(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(write(place)), "--cluster", str(CLUSTERS / "kuberay.yaml")]) == 2
    assert "a ConfigMap carries the search file alone" in capsys.readouterr().err
