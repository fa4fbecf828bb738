"""What a search prints while it runs."""

from __future__ import annotations

import io

import pytest

from evomerge.commands import progress_printer
from evomerge.loop import Progress
from evomerge.runs import progress_line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", ["x[/b]", "[bold]x", "a[0]", "\\[x]"])
def test_names_of_models_and_tasks_are_no_markup(name: str) -> None:
    for stream in (Terminal(), io.StringIO()):
        printer = progress_printer(stream)
        printer.note(f"loading {name}")
        printer.say(f"said {name}")
        printer.update(Progress(1, 30, {name: 0.5}, 1, 0, 0, 4, 0.5, 12.0, None))
        printer.close()
        assert f"{name} 0.500" in stream.getvalue()
        assert f"loading {name}" in stream.getvalue() or stream.isatty()  # a terminal may redraw before it is seen


def test_one_line_for_the_search_and_for_those_who_watch() -> None:
    best, stderr = {"add": 0.5, "sort": 0.25}, {"add": 0.02, "sort": 0.1}
    known = progress_line(candidates=10, budget=30, best=best, front=3, failures=1, busy=0.98, seconds=75.0, left=61.0)
    assert known == "10/30 candidates  best add 0.500 sort 0.250  front 3  1 failed  busy 98%  1m15s  1m01s left"
    line = progress_line(
        candidates=10,
        budget=30,
        best=best,
        front=3,
        failures=1,
        busy=0.98,
        seconds=75.0,
        left=61.0,
        state="running",
        stderr=stderr,
        rate=480.0,
    )
    assert line == (
        "running  10/30 candidates  best add 0.500±0.02 sort 0.250±0.10  front 3  1 failed  480/h  busy 98%  1m15s  "
        "1m01s left"
    )
    empty = progress_line(candidates=0, budget=None, best={}, front=0, failures=0, busy=None, seconds=1.0, left=None)
    assert empty == "0 candidates  1s"
