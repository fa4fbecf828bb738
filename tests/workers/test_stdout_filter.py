"""What Ray's threads print goes to a log, and everybody else's lines to standard output."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from evomerge.workers.ray._local_cluster import StdoutFilter


def said_by(name: str, text: str) -> None:
    thread = threading.Thread(target=lambda: print(text), name=name)
    thread.start()
    thread.join()


def test_lines_of_rays_threads_are_put_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "planted-token")
    before, log = sys.stdout, tmp_path / "ray.log"
    with StdoutFilter(log):
        said_by("ray_listen_error_messages", "(raylet) a worker died with planted-token")
        said_by("another", "of somebody else")
        print("ours")
        assert sys.stdout.encoding == before.encoding
    assert sys.stdout is before
    said_by("ray_listen_error_messages", "afterwards")
    assert capsys.readouterr().out == "of somebody else\nours\nafterwards\n"
    assert log.read_text() == "(raylet) a worker died with [secret]\n"
    assert log.stat().st_mode & 0o777 == 0o600


def test_without_a_log_they_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with StdoutFilter(None):
        said_by("ray_listen_error_messages", "(raylet) a worker died")
    assert capsys.readouterr() == ("", "(raylet) a worker died\n")


def test_a_stream_that_somebody_put_in_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.stdout
    try:
        with StdoutFilter(None):
            sys.stdout = other = open("/dev/null", "w")  # noqa: SIM115
        assert sys.stdout is other
        other.close()
    finally:
        sys.stdout = before
