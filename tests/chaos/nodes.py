"""A real Ray cluster of several nodes on this machine, told what to do by lines on stdin; it ends with stdin.

As a program:  python -m tests.chaos.nodes WORKER_NODES   prints the address; stdin: add, kill, head
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from typing import Any

from ray.cluster_utils import Cluster

_SMALL: dict[str, Any] = {"object_store_memory": 80 * 2**20}
# A dead raylet is noticed after 5 s; Ray's own 15 s would only make the test longer.
_HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
}


def main(count: int, seed: int) -> None:
    chance = random.Random(seed)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": _HEALTH, **_SMALL},
    )
    nodes = [cluster.add_node(num_cpus=1, **_SMALL) for _ in range(count)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "add":
            nodes.append(cluster.add_node(wait=False, num_cpus=1, **_SMALL))
        elif line.strip() == "kill" and nodes:
            node = nodes.pop(chance.randrange(len(nodes)))
            os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        elif line.strip() == "head":
            os.kill(cluster.head_node.all_processes["gcs_server"][0].process.pid, signal.SIGKILL)
    for node in [*nodes, cluster.head_node]:
        with contextlib.suppress(Exception):
            node.kill_all_processes(check_alive=False, allow_graceful=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
