"""How much memory batches may take, as learnt from workers that ran out of it."""

from __future__ import annotations

LEAST = 1 / 16  # of what a batch would take otherwise; smaller ones save nothing
REGAIN = 1000  # jobs without trouble, after which twice as much is tried again: others may have used the memory


class MemoryShare:
    """The share with which new jobs begin. A job that ran out goes on with half; what then works holds for all."""

    def __init__(self) -> None:
        self.value = 1.0
        self._quiet = 0  # jobs that went well since the last trouble

    def after_running_out(self, share: float) -> float:
        """Return the share for the next try of a job that ran out of memory with `share`."""
        self._quiet = 0
        return max(LEAST, share / 2)

    def worked(self, share: float) -> None:
        """Note that a job went well with `share`."""
        self._quiet += 1
        if share < self.value:
            self.value, self._quiet = share, 0
        elif self._quiet >= REGAIN:
            self.value, self._quiet = min(1.0, 2 * self.value), 0
