"""The HTML report of a run: one file, without server and network. It reads the run folder only.

from evomerge.report import write_report
write_report(open_run("runs/quickstart"), "report.html")
"""

from evomerge.report.page import report_html, write_report

__all__ = ["report_html", "write_report"]
