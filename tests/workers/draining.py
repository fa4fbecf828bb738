"""A private Ray whose only node is told to leave while a worker is on it; run in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import ray

from evomerge.scoring._synthetic import SyntheticSpec
from evomerge.workers.ray._pool import RayCluster


def main() -> None:
    """Print, for each look at the node, whether it is leaving; end when it is."""
    cluster = RayCluster(SyntheticSpec({"add": (0.0,)}), None, 2, {})
    try:
        (node,) = cluster.nodes()
        print(node.leaving)
        cluster.start(node, 0, "a")  # a node without a worker would leave at once
        while not cluster.wait(1.0):
            pass
        order = [Path(sys.executable).parent / "ray", "drain-node", "--node-id", node.id]
        order += ["--address", ray.get_runtime_context().gcs_address, "--reason-message", "test"]
        subprocess.run([*map(str, order), "--reason", "DRAIN_NODE_REASON_PREEMPTION"], check=True, capture_output=True)
        while not cluster.nodes()[0].leaving:
            time.sleep(0.1)
        print(cluster.nodes()[0].leaving)
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
