"""A file's hash is remembered while the file is the same, and never a moment longer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.checkpoints import _file_hashes as file_hashes
from evomerge.checkpoints._file_hashes import CACHE_VARIABLE, file_hash


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of our own, in which files of any size and age are remembered."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(file_hashes, "WORTH_BYTES", 1)
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", -60.0)
    file_hashes._hash_in_state.cache_clear()
    yield tmp_path / "cache" / "hashes"
    file_hashes._hash_in_state.cache_clear()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    return path


def new_process() -> None:
    file_hashes._hash_in_state.cache_clear()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def forge(cache: Path) -> str:
    """Put another hash into the only note, so that reading it can be distinguished from reading the file."""
    (note,) = cache.iterdir()
    entry = json.loads(note.read_text())
    entry["sha256"] = "f" * 64
    note.write_text(json.dumps(entry))
    return "f" * 64


def test_the_hash_is_of_the_content(cache: Path, weights: Path) -> None:
    assert file_hash(weights) == sha256(weights)


def test_another_process_reads_the_note_and_not_the_file(cache: Path, weights: Path) -> None:
    file_hash(weights)
    forged = forge(cache)
    assert file_hash(weights) == sha256(weights)  # this process remembers by itself
    new_process()
    assert file_hash(weights) == forged


def test_a_byte_changed_under_the_same_size_and_time_is_seen(cache: Path, weights: Path) -> None:
    before = weights.stat()
    first = file_hash(weights)
    weights.write_bytes(b"same weights")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert file_hash(weights) == sha256(weights) != first
    new_process()
    assert file_hash(weights) == sha256(weights)


def test_a_file_put_in_its_place_is_seen(cache: Path, weights: Path, tmp_path: Path) -> None:
    file_hash(weights)
    other = tmp_path / "other"
    other.write_bytes(b"same weights")
    os.utime(other, ns=(weights.stat().st_atime_ns, weights.stat().st_mtime_ns))
    os.replace(other, weights)
    new_process()
    assert file_hash(weights) == sha256(weights)


def test_a_link_is_the_file_that_it_leads_to(cache: Path, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(weights)
    file_hash(tmp_path / "link")
    forged = forge(cache)
    new_process()
    assert file_hash(weights) == forged


def test_a_file_just_written_is_not_remembered(cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "SETTLED_SECONDS", 60.0)
    assert file_hash(weights) == sha256(weights)
    assert not cache.exists()


def test_small_files_leave_no_notes(cache: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_hashes, "WORTH_BYTES", 10**6)
    assert file_hash(weights) == sha256(weights)
    assert not cache.exists()


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", '{"state": null, "sha256": 1}'])
def test_a_damaged_note_is_replaced(cache: Path, weights: Path, note: str) -> None:
    file_hash(weights)
    (path,) = cache.iterdir()
    path.write_text(note)
    new_process()
    assert file_hash(weights) == sha256(weights)
    assert json.loads(path.read_text())["sha256"] == sha256(weights)


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(cache: Path, weights: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert file_hash(weights) == sha256(weights)


def test_nothing_but_the_note_is_left(cache: Path, weights: Path) -> None:
    file_hash(weights)
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_a_missing_file_is_an_error(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_hash(tmp_path / "none")
