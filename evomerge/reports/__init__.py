"""Pictures and copies of a run: the HTML report, figures for notebooks, and experiment trackers.

All of it is read from the run folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge._facade import lazy_names

if TYPE_CHECKING:
    from evomerge.reports.html._page import report_html, write_report
    from evomerge.reports.trackers._targets import TrackerTarget, targets_of
    from evomerge.reports.trackers._writer import tracked

__all__ = [
    "TrackerTarget",
    "report_html",
    "targets_of",
    "tracked",
    "write_report",
]

__getattr__, __dir__ = lazy_names(__name__, __file__)
