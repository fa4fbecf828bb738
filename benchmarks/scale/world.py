"""What a simulated cluster is like, and the account of where its worker seconds went."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class World:
    """Times in seconds. The defaults stand for 7B models, 100 questions in 4 tasks, 8 GPUs per node, spot nodes."""

    workers: int
    per_node: int = 8
    job: float = 60.0  # median time of a job on a typical node
    job_spread: float = 0.3  # standard deviation of its logarithm, from job to job
    node_spread: float = 0.15  # the same, from node to node: clocks, neighbours, disks
    slow_share: float = 0.01  # of jobs, which take `slow_factor` times as long: the stragglers
    slow_factor: float = 5.0
    start: float = 8.0  # until a worker's process runs
    load: float = 90.0  # median time of loading the models
    load_spread: float = 0.3
    node_life: float = 4 * 3600.0  # mean, exponential: then the provider takes the node back
    notice: float = 30.0  # before that, the node is marked as leaving
    node_return: float = 240.0  # until another node is there in its place
    crash_share: float = 0.002  # of jobs that end with the worker's death
    memory_share: float = 0.003  # of jobs that end with 'out of memory'
    hang_share: float = 0.0005  # of jobs that never answer again
    bad_share: float = 0.01  # of candidates, whose logits are not numbers
    commit: float = 0.002  # that the driver waits for the disk at each commit
    message: float = 0.0  # of the driver's time for each message, beyond what is spent here: Ray's share
    seed: int = 0


@dataclass
class Shares:
    """Worker seconds: those of the nodes that were there, and what became of them."""

    paid: float = 0.0
    useful: float = 0.0  # tasks whose answers were sent
    lost: float = 0.0  # tasks that a failure cut short, and hanging
    loading: float = 0.0  # processes that start, models that load
    idle: float = 0.0  # ready, without a job

    def add(self, other: Shares, sign: int = 1) -> None:
        """Take another account's seconds in, or out again."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + sign * getattr(other, field.name))
