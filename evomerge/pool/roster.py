"""Who works: the workers of a cluster, started where there is room, missed when they are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from evomerge.errors import InputError
from evomerge.pool.cluster import Cluster, Died, Greeting, Needs, Node
from evomerge.pool.placement import to_start, usable, why_none_fits
from evomerge.pool.protocol import Notice
from evomerge.pool.slots import Slot
from evomerge.pool.versions import differences, versions_here

SURVEY_SECONDS = 1.0  # between two looks at the cluster's nodes
NODE_WAIT = 900.0  # seconds that a cluster gets to grow before it is said that no worker fits
FIRST_REST = 1.0  # seconds before a worker is started where one died; doubled while that goes on
LONGEST_REST = 60.0


@dataclass(frozen=True)
class Staff:
    """How many workers there should be, and where."""

    workers: int | None = None  # None: as many as fit, more when nodes join
    needs: Needs = field(default_factory=Needs)
    use_head: bool = False
    may_grow: bool = False  # the cluster may get nodes later, so that having none now is no mistake


class Roster:
    """Owns the slots. `survey` follows the cluster: nodes that join get workers, workers that died get successors."""

    def __init__(self, cluster: Cluster, staff: Staff) -> None:
        self.slots: dict[int, Slot] = {}
        self._cluster, self._staff = cluster, staff
        self._versions = versions_here()
        self._barred: dict[str, str] = {}  # node id -> why no worker of it can be used
        self._rests: dict[str, tuple[int, float]] = {}  # node id -> (deaths in a row, no start before)
        self._next = 0
        self._surveyed = float("-inf")
        self._short_since = cluster.now()

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self.slots.values()))

    def survey(self) -> Iterator[tuple[Slot, Died]]:
        """Start workers where some are missing; yield those whose node is gone, which are to be dropped.

        Raises:
            InputError: no worker fits on any node, or none has the driver's versions.
        """
        now = self._cluster.now()
        if now < self._surveyed + SURVEY_SECONDS:
            return
        self._surveyed = now
        nodes = {node.id: node for node in self._cluster.nodes()}
        for slot in self:
            if slot.node.id not in nodes:
                yield slot, Died("its node left the cluster", "node")
            else:
                slot.node = nodes[slot.node.id]
        self._start_missing(list(nodes.values()), now)

    def drop(self, slot: Slot, kill: bool = False) -> None:
        """Forget a worker that is gone, or that is to go."""
        self.slots.pop(slot.number, None)
        if kill:
            self._cluster.kill(slot.number)

    def died(self, slot: Slot) -> None:
        """Let a node rest a little longer each time a worker dies on it; a finished job ends that."""
        deaths, _ = self._rests.get(slot.node.id, (0, 0.0))
        rest = min(LONGEST_REST, FIRST_REST * 2.0**deaths) if deaths else 0.0  # the first time at once
        self._rests[slot.node.id] = (deaths + 1, self._cluster.now() + rest)

    def did_well(self, slot: Slot) -> None:
        """Note that a worker finished a job."""
        slot.done += 1
        self._rests.pop(slot.node.id, None)

    def welcome(self, slot: Slot, greeting: Greeting) -> Notice:
        """Let a started worker in, or refuse it where its packages are others than the driver's."""
        facts = {"node": slot.node.name, "pid": greeting.pid, "gpus": slot.share}
        found = differences(self._versions, greeting.versions)
        if not found:
            slot.greet(greeting, self._cluster.now())
            return Notice("joined", slot.name, facts)
        message = f"node {slot.node.name}: {', '.join(found)}; install the driver's versions there"
        self._barred[slot.node.id] = message
        self.drop(slot, kill=True)
        return Notice("refused", slot.name, {**facts, "message": message})

    def _start_missing(self, nodes: list[Node], now: float) -> None:
        allowed = [node for node in nodes if node.id not in self._barred]
        rested = [node for node in allowed if now >= self._rests.get(node.id, (0, now))[1]]
        placed = Counter(slot.node.id for slot in self)
        staff = self._staff
        # The head may be used only if no other node exists, even one that rests at the moment.
        whole = {node.id for node in usable(allowed, staff.needs, staff.use_head)}
        open_ones = [node for node in rested if node.id in whole]
        for node in to_start(open_ones, staff.needs, staff.workers, True, placed):
            self._start(node, now)
        if self.slots or whole:
            self._short_since = now
        elif self._barred and not allowed:
            raise InputError(f"no worker can be used: {'; '.join(self._barred.values())}")
        elif not staff.may_grow or now > self._short_since + NODE_WAIT:
            raise InputError(why_none_fits(nodes, staff.needs))

    def _start(self, node: Node, now: float) -> None:
        taken = {slot.index for slot in self}
        index = next(index for index in range(len(taken) + 1) if index not in taken)
        number, self._next = self._next, self._next + 1
        slot = Slot(number, index, node, f"{node.name}/{index}", now, share=self._staff.needs.gpus)
        self.slots[number] = slot
        self._cluster.start(node, number, slot.name)
