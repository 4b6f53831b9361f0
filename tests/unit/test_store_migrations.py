"""The schema's versions: older ones are brought up, newer ones are refused, half a step is none."""

import sqlite3
from pathlib import Path

import pytest

from artesian.kernel.state import Record
from artesian.store import JournalTooNew, SqliteJournal, StoreError, journal_file, migrations
from artesian.store.chain import START, extend
from artesian.store.migrations.v0001_records import APPLICATION_ID
from builders import cancelled, submitted

RECORDS: list[Record] = [submitted(), cancelled(at_s=1.0)]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A journal of version 1 as that version made it, written by hand."""
    path = journal_file(tmp_path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA application_id = 1095914579")
    connection.execute(
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, type TEXT NOT NULL,"
        " body BLOB NOT NULL, crc INTEGER NOT NULL)"
    )
    connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", extend(START, RECORDS))
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    return path


def schema(path: Path) -> tuple[int, set[str]]:
    connection = sqlite3.connect(path)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    version = migrations.version(connection)
    connection.close()
    return version, tables


def test_the_application_id_reads_arts() -> None:
    assert APPLICATION_ID.to_bytes(4, "big") == b"ARTS"


def test_every_step_has_a_file_of_its_number() -> None:
    numbers = [int(step.__module__.rpartition(".v")[2].split("_")[0]) for step in migrations.STEPS]
    assert numbers == list(range(1, migrations.LATEST + 1))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_journal_of_version_1_is_brought_up_and_keeps_its_records(old: Path, read_only: bool) -> None:
    with SqliteJournal.open(old, read_only=read_only) as journal:
        assert [record for _, record in journal.read()] == RECORDS
        assert journal.load()[1] == journal.verify() == 2
        assert journal.problems == []
    assert schema(old) == (migrations.LATEST, {"records", "snapshots", "quarantine"})
    with SqliteJournal.open(old) as journal:
        assert journal.append([submitted()]) == 3
        journal.save_snapshot(*journal.load())


def test_a_new_journal_has_the_latest_version(tmp_path: Path, old: Path) -> None:
    new = journal_file(tmp_path / "new")
    SqliteJournal.open(new).close()
    SqliteJournal.open(old).close()
    assert schema(new) == schema(old)


@pytest.mark.parametrize("read_only", [False, True])
def test_a_journal_of_a_newer_artesian_is_refused_and_left_alone(old: Path, read_only: bool) -> None:
    connection = sqlite3.connect(old)
    connection.execute(f"PRAGMA user_version = {migrations.LATEST + 1}")
    connection.close()
    before = old.read_bytes()
    with pytest.raises(JournalTooNew, match=f"version {migrations.LATEST + 1}, known are") as caught:
        SqliteJournal.open(old, read_only=read_only)
    assert caught.value.path == old
    assert caught.value.hint
    assert old.read_bytes() == before


def test_a_step_that_fails_leaves_the_version_before_it(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE half (x)")
        connection.execute("INSERT INTO no_such_table VALUES (1)")

    with monkeypatch.context() as patch:
        patch.setattr(migrations.migrate, "__defaults__", ((*migrations.STEPS, breaks),))
        with pytest.raises(StoreError, match="no_such_table"):
            SqliteJournal.open(old)
    assert schema(old) == (1, {"records"})
    with SqliteJournal.open(old) as journal:
        assert [record for _, record in journal.read()] == RECORDS


def test_steps_that_were_taken_are_not_taken_again(old: Path) -> None:
    SqliteJournal.open(old).close()
    connection = sqlite3.connect(old, isolation_level=None)
    connection.execute("BEGIN")
    migrations.migrate(connection)
    connection.execute("COMMIT")
    assert migrations.version(connection) == migrations.LATEST
    connection.close()
