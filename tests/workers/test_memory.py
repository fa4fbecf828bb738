"""The share of memory that jobs begin with: it falls with trouble, to a floor, and is regained slowly."""

from __future__ import annotations

from evomerge.workers._retry import LEAST, REGAIN, MemoryFraction


def test_half_after_running_out_and_for_all_once_that_has_worked() -> None:
    memory = MemoryFraction()
    half = memory.after_running_out(1.0)
    assert half == 0.5
    assert memory.value == 1.0  # it may not be of any use
    memory.worked(half)
    assert memory.value == 0.5
    memory.worked(1.0)  # a job that began before
    assert memory.value == 0.5


def test_never_below_the_floor() -> None:
    memory, share = MemoryFraction(), 1.0
    for _ in range(12):
        share = memory.after_running_out(share)
        memory.worked(share)
    assert memory.value == share == LEAST


def test_regained_after_many_jobs_without_trouble() -> None:
    memory = MemoryFraction()
    memory.worked(memory.after_running_out(memory.after_running_out(1.0)))
    for _ in range(REGAIN - 1):
        memory.worked(0.25)
    assert memory.value == 0.25
    memory.after_running_out(0.25)  # elsewhere: the count begins again
    for _ in range(REGAIN):
        assert memory.value == 0.25
        memory.worked(0.25)
    assert memory.value == 0.5
    for _ in range(2 * REGAIN):
        memory.worked(memory.value)
    assert memory.value == 1.0
