"""Resuming: the stored proposals and observations, replayed into a freshly seeded controller."""

from __future__ import annotations

import numpy as np

from evomerge.archive import Archive
from evomerge.controllers import Controller, CountsUpdates, Replayable, tell
from evomerge.errors import RunError

LAST_DIGITS = 1e-9  # a proposal may differ by so much where another processor or BLAS rounds differently


def replay(archive: Archive, controller: Controller, versions: dict[int, int] | None = None) -> list[np.ndarray]:
    """Bring a freshly seeded controller to where the archive's last event left it.

    What is stored stays the truth, and a `Replayable` controller takes it as it is. Others propose again: on the same
    machine the proposals are the same bit for bit; where they differ by rounding (`LAST_DIGITS`), a note event says by
    how much.

    Args:
        archive: its proposals and observations are replayed, in their order.
        controller: freshly seeded.
        versions: filled with unobserved candidate -> the controller's number of updates when it was proposed.

    Returns:
        Proposals that became no candidates, because the budget ended inside a batch.

    Raises:
        RunError: the controller proposes something else than what is stored.
    """
    left: list[np.ndarray] = []
    rounding = 0.0
    for event in archive.events("asked", "observed"):
        if event.kind == "observed":
            assert event.candidate is not None
            tell(controller, event.candidate, event.payload["fitness"], event.payload.get("stderr"))
            if versions is not None:
                versions.pop(event.candidate, None)
            continue
        first, count, size = (int(event.payload[key]) for key in ("first", "count", "size"))
        if size and size == count and _repeated(controller, archive, first, count):
            left = []
            continue
        if size:  # 0: the rest of the batch before, added when the budget was raised
            left = controller.ask()
            if len(left) != size:
                raise _differs(archive, f"a batch from candidate {first} on had {size} proposals, now {len(left)}")
        rounding = max(rounding, _difference(archive, left[:count], first, count))
        left = left[count:]
        if versions is not None and isinstance(controller, CountsUpdates):
            versions.update(dict.fromkeys(range(first, first + count), controller.updates))
    if rounding:
        text = f"replayed proposals differ by {rounding:.1e} in the last digits: another processor or BLAS"
        archive.put_event("note", None, {"text": text})
    return left


def _repeated(controller: Controller, archive: Archive, first: int, count: int) -> bool:
    """Return whether the controller has taken a stored batch as its own."""
    return isinstance(controller, Replayable) and controller.repeat(list(archive.genotypes(first, count)))


def _difference(archive: Archive, proposed: list[np.ndarray], first: int, count: int) -> float:
    """Return the largest difference between proposed and stored genes, having refused a real one."""
    stored = archive.genotypes(first, count)
    if stored.shape != np.shape(proposed):
        raise _differs(archive, f"stored genotypes are {stored.shape}, proposed ones {np.shape(proposed)}")
    gaps = np.abs(stored - np.array(proposed)).max(axis=1)
    if gaps.max() > LAST_DIGITS:
        row = int(np.argmax(gaps > LAST_DIGITS))
        gene = int(np.argmax(np.abs(stored[row] - proposed[row])))
        was, now = float(stored[row, gene]), float(proposed[row][gene])
        raise _differs(archive, f"candidate {first + row}, gene {gene} is {was!r} in the archive and {now!r} now")
    return float(gaps.max())


def _differs(archive: Archive, what: str) -> RunError:
    config = archive.config_json
    made_with = ", ".join(f"{key}: {config.get(key)}" for key in ("seed", "versions"))
    return RunError(
        f"{archive.path.parent} cannot be resumed: the controller does not repeat its proposals ({what}). Its seed, "
        f"its options or a library's version differ from those that made the run ({made_with}); restore them"
    )
