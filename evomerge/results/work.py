"""Who was busy when: one row per evaluation that a worker did, on the clock of the run's active time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from evomerge.archive.reader import Event
from evomerge.candidate import Outcome

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("candidate", "split", "worker", "start", "end", "failed")


def work_frame(events: Iterable[Event], outcomes: Iterable[Outcome]) -> pd.DataFrame:
    """Return the evaluations in the order in which they were finished.

    An evaluation is recorded when it is finished; it began as many seconds earlier as its worker says that it took.
    Candidates that share another one's answers took no time and are left out.

    Args:
        events: of the kind 'finished', in order.
        outcomes: in order of recording; each has its event.
    """
    import pandas as pd

    rows = []
    for event, outcome in zip(events, outcomes, strict=False):
        if outcome.seconds > 0:
            start = max(0.0, event.seconds - outcome.seconds)
            failed = outcome.failure is not None
            rows.append((outcome.number, outcome.split, outcome.worker, start, event.seconds, failed))
    return pd.DataFrame(rows, columns=list(COLUMNS))
