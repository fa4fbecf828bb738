"""The archive keeps what it was given, bit for bit, in order, for one writer and many readers."""

from __future__ import annotations

import math
import os
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive import FILE_NAME, Archive
from evomerge.archive import _schema as schema
from evomerge.candidate import Answers, Candidate, Failure, Outcome, Response
from evomerge.errors import RunError
from evomerge.recipe import Conditional, Recipe, Source, passthrough
from evomerge.scoring._synthetic import synthetic_recipe

AWKWARD = (0.1 + 0.2, 1 / 3, 5e-324, 1.0 - 2**-53, 0.0, 1.0)  # floats that lose bits when written shortly


def candidate(number: int, genotype: tuple[float, ...] = (0.25, 0.5)) -> Candidate:
    return Candidate(number, synthetic_recipe(genotype), genotype)


def answers(number: int, values: dict[str, float], task: str = "add", metric: str = "acc") -> Answers:
    return Answers(number, "search", task, tuple(Response(task, item, metric, v, "said") for item, v in values.items()))


@pytest.fixture
def archive(tmp_path: Path):
    with Archive.create(tmp_path / "run", {"seed": 7}) as made:
        yield made


def test_what_is_put_comes_back_equal(archive: Archive) -> None:
    recipe = Recipe(
        "ties",
        (Source("a", (("weight", (0.1 + 0.2, 0.7)),)), Source("b", (("weight", (Conditional(0.5, "mlp"),)),))),
        base="base",
        parameters=(("normalize", False),),
        mask_seed=3,
        revisions=(("a", "4f2a"),),
    )
    asked = [Candidate(0, recipe, AWKWARD), candidate(1)]
    parents = [Candidate(-1, passthrough("a"), (), "parent", "a"), Candidate(-2, passthrough("b"), (), "parent", "b")]
    outcomes = [
        Outcome(0, "search", None, "host/0", 1.5, {"merge": 0.1 + 0.2}, "beef"),
        Outcome(1, "search", Failure("candidate", "NaN logits", "Traceback ..."), "host/1", 0.5),
    ]
    archive.put_parents(parents)
    archive.put_asked(asked, size=2)
    archive.put_answers(answers(0, {"x": 1.0, "y": 0.1 + 0.2}))
    for outcome in outcomes:
        archive.put_outcome(outcome)
    archive.put_observed(0, (0.1 + 0.2, -1 / 3))
    archive.put_observed(1, None)
    with Archive.open(archive.path.parent) as reader:
        assert list(reader.candidates("search")) == asked
        assert list(reader.candidates("parent")) == parents[::-1]  # ascending numbers
        assert [c.number for c in reader.candidates()] == [-2, -1, 0, 1]
        assert [c.number for c in reader.candidates(first=1)] == [1]
        assert [c.recipe.digest for c in reader.candidates("search")] == [c.recipe.digest for c in asked]
        assert list(reader.outcomes()) == outcomes
        assert reader.responses("search", 0) == answers(0, {"x": 1.0, "y": 0.1 + 0.2}).responses
        assert reader.responses("holdout", 0) == ()
        assert list(reader.response_rows("search")) == [(0, r) for r in reader.responses("search", 0)]
        assert reader.answered("search", 0) == {"add": {"x", "y"}}
        assert [e.payload["fitness"] for e in reader.events("observed")] == [[0.1 + 0.2, -1 / 3], None]
        assert reader.config_json == {"seed": 7}


def test_floats_keep_every_bit(archive: Archive) -> None:
    archive.put_asked([candidate(0, AWKWARD)], size=1)
    assert [gene.hex() for gene in archive.genotypes(0, 1)[0]] == [gene.hex() for gene in AWKWARD]


def test_events_keep_their_order_and_active_time_grows(archive: Archive) -> None:
    for i in range(600):  # more than a chunk of the reader
        archive.put_event("note", i, {"text": str(i)})
    events = list(archive.events())
    assert [event.candidate for event in events] == list(range(600))
    assert [event.seq for event in events] == sorted(event.seq for event in events)
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds)
    before = seconds[-1]
    archive.close()
    with Archive.open(archive.path.parent, read_only=False) as again:
        assert before <= again.seconds() < before + 60  # goes on where it was; the pause does not count


def test_a_transaction_is_all_or_nothing(archive: Archive) -> None:
    def interrupted() -> None:
        with archive.transaction():
            archive.put_asked([candidate(0)], size=1)
            archive.put_answers(answers(0, {"x": 1.0}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(archive.candidates()) == []
    assert list(archive.events()) == []
    archive.put_asked([candidate(0)], size=1)
    archive.put_answers(answers(0, {"x": 1.0}))  # the item's id was given inside what was undone
    assert archive.responses("search", 0) == answers(0, {"x": 1.0}).responses


def test_an_item_is_answered_once(archive: Archive) -> None:
    archive.put_asked([candidate(0)], size=1)
    archive.put_answers(answers(0, {"x": 1.0}))
    with pytest.raises(RunError, match="answered twice"):
        archive.put_answers(answers(0, {"w": 1.0, "x": 0.0}))
    assert archive.answered("search", 0) == {"add": {"x"}}
    archive.put_answers(answers(0, {"x": 0.5}, metric="acc_norm"))
    archive.put_answers(Answers(0, "holdout", "add", (Response("add", "x", "acc", 0.0),)))
    assert [r.value for r in archive.responses("search", 0)] == [1.0, 0.5]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_none_are_refused(archive: Archive, value: float) -> None:
    archive.put_asked([candidate(0)], size=1)
    with pytest.raises(RunError, match="item 'y' has no finite value"):
        archive.put_answers(answers(0, {"x": 1.0, "y": value}))
    with pytest.raises(ValueError, match="not JSON compliant"):
        archive.put_observed(0, [value])
    assert archive.responses("search", 0) == ()


@pytest.mark.parametrize("table", ["config", "candidates", "events", "items", "answers", "outcomes"])
@pytest.mark.parametrize("statement", ["DELETE FROM {table}", "UPDATE {table} SET {column} = {column}"])
def test_rows_are_only_ever_added(archive: Archive, table: str, statement: str) -> None:
    archive.put_asked([candidate(0)], size=1)
    archive.put_answers(answers(0, {"x": 1.0}))
    archive.put_outcome(Outcome(0, "search"))
    connection = sqlite3.connect(archive.path)
    column = connection.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchone()[0]
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement.format(table=table, column=column))
    connection.close()


def test_a_numbers_second_candidate_is_refused(archive: Archive) -> None:
    archive.put_asked([candidate(0)], size=1)
    with pytest.raises(RunError, match="number is taken"):
        archive.put_asked([candidate(0, (0.0, 0.0))], size=1)
    assert [c.genotype for c in archive.candidates()] == [(0.25, 0.5)]


def test_twins_share_answers(archive: Archive) -> None:
    archive.put_asked([candidate(0), candidate(1, (0.0, 1.0)), candidate(2)], size=3)
    assert [archive.duplicate_of(c) for c in archive.candidates()] == [None, None, 0]
    with pytest.raises(RunError, match="candidate 0 is not finished"):
        archive.copy_answers(0, 2)
    archive.put_answers(answers(0, {"x": 1.0, "y": 0.0}))
    archive.put_outcome(Outcome(0, "search", None, "host/0", 2.0, {}, "beef"))
    archive.copy_answers(0, 2)
    assert archive.responses("search", 2) == archive.responses("search", 0)
    assert archive.outcome(2) == Outcome(2, "search", None, "as 0", 0.0, {}, "beef")


def test_the_last_of_several_outcomes_counts(archive: Archive) -> None:
    archive.put_asked([candidate(0)], size=1)
    archive.put_outcome(Outcome(0, "search", Failure("infrastructure", "lost")))
    archive.put_outcome(Outcome(0, "search"))
    archive.put_outcome(Outcome(0, "holdout", Failure("candidate", "NaN")))
    last = archive.outcome(0)
    assert last is not None
    assert last.done
    assert len(list(archive.outcomes())) == 3


# -- who may open it ---------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_readers_are_not(archive: Archive) -> None:
    archive.put_event("note")
    folder = archive.path.parent
    with pytest.raises(RunError, match=rf"in use by process {os.getpid()} on .*evomerge status"):
        Archive.open(folder, read_only=False)
    with Archive.open(folder) as reader:
        assert len(list(reader.events())) == 1
        archive.put_event("note")
        assert len(list(reader.events())) == 2
        with pytest.raises(RunError, match="opened for reading only"):
            reader.put_event("note")
    archive.put_event("note")  # the refused writer and the reader's end took nothing away
    with pytest.raises(RunError, match="in use"):
        Archive.open(folder, read_only=False)
    archive.close()
    Archive.open(folder, read_only=False).close()


def test_a_taken_folder_is_refused_with_the_command_to_type(archive: Archive) -> None:
    folder = archive.path.parent
    with pytest.raises(RunError, match="in use"):
        Archive.create(folder, {})
    archive.close()
    with pytest.raises(RunError, match=f"already holds a search; continue it with: evomerge resume {folder}"):
        Archive.create(folder, {})
    with Archive.open(folder) as reader:
        assert reader.config_json == {"seed": 7}


def test_a_creation_that_was_killed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    def stop(moment: str) -> None:
        raise SystemExit(moment)

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / FILE_NAME).touch()  # killed before the first byte
    assert not Archive.exists(tmp_path / "run")
    Archive.create(tmp_path / "run", {"seed": 1}).close()
    assert Archive.exists(tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_the_folder_is_private(archive: Archive) -> None:
    archive.put_event("note")
    assert stat.S_IMODE(archive.path.parent.stat().st_mode) == 0o700
    for file in archive.path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_a_closed_archive_is_one_file(archive: Archive) -> None:
    archive.put_event("note")
    archive.close()
    archive.close()
    assert {file.name for file in archive.path.parent.iterdir()} == {FILE_NAME, "archive.lock"}


@pytest.mark.parametrize(("network", "journal"), [(False, "wal"), (True, "delete")])
def test_every_commit_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: bool, journal: str
) -> None:
    """The write-ahead log needs shared memory, which network file systems lack."""
    monkeypatch.setattr(schema, "on_network", lambda path: network)
    with Archive.create(tmp_path / "run", {}) as archive:
        assert archive._connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert archive._connection.execute("PRAGMA journal_mode").fetchone()[0] == journal


# -- what can be wrong with it -----------------------------------------------------------------------------------


def filled(folder: Path) -> Path:
    with Archive.create(folder, {"seed": 7}) as archive:
        archive.put_asked([candidate(i, (i / 400, 0.5)) for i in range(400)], size=400)
        for i in range(40):
            archive.put_answers(answers(i, {f"item-{k}": 1.0 for k in range(50)}))
    return folder / FILE_NAME


@pytest.mark.parametrize("read_only", [True, False])
def test_a_truncated_file_is_said_to_be_damaged(tmp_path: Path, read_only: bool) -> None:
    path = filled(tmp_path / "run")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(RunError, match=r"archive.sqlite is damaged \(.*`evomerge resume .*restores"):
        Archive.open(path.parent, read_only)
    assert path.stat().st_size == size // 2  # left as it was found


def test_garbage_in_the_middle_is_said_to_be_damaged(tmp_path: Path) -> None:
    path = filled(tmp_path / "run")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 8192)
    with pytest.raises(RunError, match="is damaged"):
        Archive.open(path.parent)


@pytest.mark.parametrize("content", [b"not a database, but a text file of some length\n" * 40, b"SQLite format 3\0"])
def test_another_file_in_its_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(RunError, match=r"damaged|not an evomerge archive"):
        Archive.open(tmp_path)
    with pytest.raises(RunError):
        Archive.create(tmp_path, {})
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_another_programs_database(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("CREATE TABLE songs (name)")
    connection.commit()
    connection.close()
    with pytest.raises(RunError, match="not an evomerge archive"):
        Archive.open(tmp_path)
    with pytest.raises(RunError, match="already holds"):
        Archive.create(tmp_path, {})


def test_a_newer_schema(tmp_path: Path) -> None:
    path = filled(tmp_path / "run")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RunError, match="schema version 99, this evomerge reads 1"):
        Archive.open(path.parent)


def test_no_run_here(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        Archive.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no run"):
        Archive.open(tmp_path, read_only=False)
    assert not (tmp_path / "nowhere").exists()


def test_a_task_that_is_half_answered_is_known_with_what_was_asked(archive: Archive) -> None:
    archive.put_asked([candidate(0), candidate(1, (0.5, 0.5))], size=2)
    part, rest = replace(answers(0, {"x": 1.0}), left=2), replace(answers(0, {"y": 0.0}), left=1)
    archive.put_answers(part, ("x", "y", "z"))
    archive.put_answers(rest)
    archive.put_answers(replace(answers(1, {"x": 1.0}), left=1), ("w", "x"))
    archive.put_answers(Answers(1, "holdout", "add", (Response("add", "h", "acc", 0.0),), left=1), ("h", "i"))
    half = {(0, "add"): ("x", "y", "z"), (1, "add"): ("w", "x")}
    with Archive.open(archive.path.parent) as reader:
        assert reader.half_way("search") == half
        assert reader.half_way("holdout") == {(1, "add"): ("h", "i")}
        assert reader.half_way("search_rest") == {}
    archive.put_answers(answers(0, {"z": 1.0}))
    assert archive.half_way("search") == {(1, "add"): ("w", "x")}
    archive.put_answers(replace(answers(0, {"later": 1.0}), left=1), ("later", "last"))  # a race's next round
    assert archive.half_way("search")[0, "add"] == ("later", "last")
    assert archive.answered("search", 0) == {"add": {"x", "y", "z", "later"}}
