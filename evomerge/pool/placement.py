"""How many workers go where: nodes and needs in, numbers of workers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.pool.cluster import Needs, Node

_SLACK = 1e-9  # thirds and tenths of a GPU do not add up exactly


def capacity(node: Node, needs: Needs) -> int:
    """Return how many workers fit on a node; a worker is never spread over several.

    >>> capacity(Node("a", "a", cpus=8, gpus=1), Needs(cpus=1, gpus=0.25))
    4
    """
    if needs.gpus:
        # A GPU is shared by workers whose share divides it; one that needs several takes whole ones.
        by_gpu = int(1 / needs.gpus + _SLACK) * int(node.gpus) if needs.gpus < 1 else int(node.gpus / needs.gpus)
        return min(by_gpu, int(node.cpus / needs.cpus + _SLACK)) if needs.cpus else by_gpu
    return int(node.cpus / needs.cpus + _SLACK) if needs.cpus else 0


def usable(nodes: Sequence[Node], needs: Needs, use_head: bool) -> list[Node]:
    """Return the nodes that may get workers: not those that are leaving, and the head only if asked or alone."""
    fitting = [node for node in nodes if not node.leaving and capacity(node, needs)]
    others = [node for node in fitting if not node.head]
    return fitting if use_head or not others else others


def to_start(
    nodes: Sequence[Node], needs: Needs, workers: int | None, use_head: bool, placed: Mapping[str, int]
) -> list[Node]:
    """Return a node for every worker that should be started now, the emptiest nodes first.

    Args:
        nodes: of the cluster.
        needs: of each worker.
        workers: how many there should be in all; None: as many as fit.
        use_head: whether the head may get some although there are other nodes.
        placed: node id -> workers there already.
    """
    candidates = usable(nodes, needs, use_head)
    free = {node.id: capacity(node, needs) - placed.get(node.id, 0) for node in candidates}
    missing = sum(free.values()) if workers is None else workers - sum(placed.values())
    load = {node.id: placed.get(node.id, 0) for node in candidates}
    chosen: list[Node] = []
    while missing > len(chosen) and (open_ones := [node for node in candidates if free[node.id] > 0]):
        node = min(open_ones, key=lambda one: (load[one.id], one.name, one.id))
        chosen.append(node)
        free[node.id] -= 1
        load[node.id] += 1
    return chosen


def why_none_fits(nodes: Sequence[Node], needs: Needs) -> str:
    """Return a sentence for a cluster on which not even one worker fits."""
    wanted = f"{needs.cpus:g} CPUs" + (f" and {needs.gpus:g} GPUs" if needs.gpus else "")
    has = ", ".join(f"{node.name}: {node.cpus:g} CPUs, {node.gpus:g} GPUs" for node in nodes) or "no nodes"
    return f"a worker needs {wanted} on one node, and the cluster has {has}; ask for less per worker, or add nodes"
