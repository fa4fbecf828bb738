"""Reports of synthetic runs, and a real browser where this machine has one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evomerge.reports import write_report
from evomerge.runs import Run, open_run
from tests.estimation.worlds import prepared
from tests.estimation.worlds import search as estimated_search
from tests.reports.worlds import HOSTILE, make_world

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("reported")
    worlds: dict[str, dict[str, Any]] = {
        "two": {"models": ("math", "code"), "candidates": 90, "trouble": {17: "candidate", 40: "bug"}},
        "four": {"tasks": ("gsm8k", "mbpp", "ifeval", "mmlu"), "models": ("math", "code", "chat"), "candidates": 120},
        "one": {"tasks": ("gsm8k",), "controller": "cma-es", "candidates": 24},
        "hostile": {"tasks": (HOSTILE, "sort"), "models": (HOSTILE.replace("/", "|"), "chat"), "candidates": 24},
    }
    worlds["predicted"] = {"controller": "quadratic", "candidates": 30, "asked": 400, "blocks": 1}
    made = {name: open_run(make_world(folder / name, **options)) for name, options in worlds.items()}
    estimated_search(folder / "estimated", prepared())
    return {**made, "estimated": open_run(folder / "estimated")}


@pytest.fixture(scope="session")
def reports(runs: dict[str, Run]) -> dict[str, Path]:
    return {name: write_report(run) for name, run in runs.items()}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, headless, with a profile of its own. `make browser` installs it."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'evomerge[test]'")
    path = os.environ.get("EVOMERGE_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser found ({', '.join(BROWSERS)}); install one with: make browser")
    with api.sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()
