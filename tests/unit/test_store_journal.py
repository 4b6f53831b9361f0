"""The journal on SQLite: its files, its readers, and everything that can stand in the way.

What holds for every journal is in tests/contract/test_journal_contract.py.
"""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from artesian.store import (
    JournalCorrupt,
    JournalMissing,
    NotAJournal,
    SqliteJournal,
    StoreUnavailable,
    journal_file,
)
from builders import a_node, cancelled, joined, submitted, ticked
from limits import no_file_larger_than


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_file(tmp_path / "state")


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    with SqliteJournal.open(path) as journal:
        yield journal
        assert journal.problems == []


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- files --------------------------------------------------------------------------------------------


def test_the_journal_is_for_its_owner_only(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        journal.append([ticked()])
        assert mode(path.parent) == 0o700
        files = sorted(file.name for file in path.parent.iterdir())
        assert files == [f"journal.sqlite3{suffix}" for suffix in ("", "-lock", "-shm", "-wal")]
        assert {mode(file) for file in path.parent.iterdir()} == {0o600}


def test_a_folder_that_is_there_keeps_its_mode(path: Path) -> None:
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o755)
    SqliteJournal.open(path).close()
    assert mode(path.parent) == 0o755


def test_every_commit_is_on_the_disk_before_it_is_acknowledged(journal: SqliteJournal) -> None:
    assert journal._file.execute("PRAGMA journal_mode") == [("wal",)]
    assert journal._file.execute("PRAGMA synchronous") == [(2,)], "2 is FULL"


def test_odd_names_are_names(tmp_path: Path) -> None:
    path = tmp_path / "50% of #1? é" / "journal.sqlite3"
    with SqliteJournal.open(path) as journal:
        journal.append([ticked()])
    with SqliteJournal.open(path, read_only=True) as journal:
        assert journal.last_seq == 1
    assert path.exists()


def test_appending_needs_no_numpy() -> None:
    """A command that only submits is not to pay for arrays."""
    code = "import sys, artesian.store; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- readers ------------------------------------------------------------------------------------------


def test_a_reader_follows_a_writer(path: Path) -> None:
    with SqliteJournal.open(path) as writer, SqliteJournal.open(path, read_only=True) as reader:
        writer.append([submitted()])
        assert reader.last_seq == 1
        writer.append([cancelled()])
        assert list(reader.read(after=1)) == [(2, cancelled())]


def test_a_reader_does_not_write(path: Path) -> None:
    SqliteJournal.open(path).close()
    with (
        SqliteJournal.open(path, read_only=True) as reader,
        pytest.raises(AssertionError, match="read_only"),
    ):
        reader.append([ticked()])


def test_a_reader_does_not_wait_for_a_writer(path: Path) -> None:
    with SqliteJournal.open(path) as writer, SqliteJournal.open(path, read_only=True) as reader:
        writer.append([submitted()])
        with writer.transaction() as transaction:
            transaction.append([cancelled()])
            assert list(reader.read()) == [(1, submitted())]


def test_a_reader_finds_no_journal_where_none_was_made(path: Path) -> None:
    with pytest.raises(JournalMissing) as caught:
        SqliteJournal.open(path, read_only=True)
    assert caught.value.hint
    assert not path.parent.exists()


# -- what stands in the way ---------------------------------------------------------------------------


def test_a_full_disk_leaves_the_journal_as_it_was(journal: SqliteJournal) -> None:
    journal.append([joined(a_node(f"n{number}")) for number in range(10)])
    pages = journal._file.execute("PRAGMA page_count")[0][0]
    journal._file.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full") as caught:
        journal.append([joined(a_node(f"n{number}")) for number in range(1000)])
    assert caught.value.hint is not None
    assert "space" in caught.value.hint
    assert journal.last_seq == journal.verify() == 10

    journal._file.execute("PRAGMA max_page_count = 1000000")
    assert journal.append([joined()]) == journal.verify() == 11


def test_half_an_append_cannot_be_committed(journal: SqliteJournal) -> None:
    pages = journal._file.execute("PRAGMA page_count")[0][0]
    journal._file.execute(f"PRAGMA max_page_count = {pages}")

    def takes_a_failure_for_none() -> None:
        with journal.transaction() as transaction, suppress(StoreUnavailable):
            transaction.append([joined(a_node(f"n{number}")) for number in range(1000)])

    with pytest.raises(StoreUnavailable, match="full"):
        takes_a_failure_for_none()
    assert journal.last_seq == 0


def test_a_write_that_the_system_cuts_short_leaves_the_journal_as_it_was(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        journal.append([ticked()])
        with no_file_larger_than(64 * 1024):
            with pytest.raises(StoreUnavailable) as caught:
                journal.append([joined(a_node(f"n{number}")) for number in range(2000)])
            assert caught.value.hint
        assert journal.last_seq == journal.verify() == 1
        assert journal.append([joined()]) == 2
    with SqliteJournal.open(path) as journal:
        assert journal.verify() == 2
        assert journal.problems == []


def test_a_journal_that_another_holds_for_too_long_is_unavailable(path: Path) -> None:
    with SqliteJournal.open(path) as holder, SqliteJournal.open(path, busy_timeout_s=0.01) as other:
        with holder.transaction(), pytest.raises(StoreUnavailable, match=r"within 0.01 s") as caught:
            other.append([submitted()])
        assert caught.value.hint
        assert other.append([submitted()]) == 1


def test_a_foreign_program_that_holds_the_database_makes_it_unavailable(path: Path) -> None:
    with SqliteJournal.open(path, busy_timeout_s=0.01) as journal:
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            journal.append([submitted()])
        foreign.execute("ROLLBACK")
        foreign.close()
        assert journal.append([submitted()]) == 1


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable) as caught:
        SqliteJournal.open(tmp_path / "file" / "state" / "journal.sqlite3")
    assert caught.value.hint
    with pytest.raises(StoreUnavailable):
        SqliteJournal.open(tmp_path / "file" / "journal.sqlite3")


def test_a_folder_in_the_journals_place_is_unavailable(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreUnavailable):
        SqliteJournal.open(path)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere: take its powers away for a moment."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(was)


def test_an_unwritable_folder_is_unavailable_and_stays_as_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o555)
        try:
            with without_privileges(), pytest.raises(StoreUnavailable, match="Permission denied") as caught:
                SqliteJournal.open(folder / "journal.sqlite3")
            assert caught.value.hint
            assert list(folder.iterdir()) == []
        finally:
            folder.chmod(0o700)


def test_the_database_of_another_application_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(NotAJournal) as caught:
        SqliteJournal.open(path)
    assert caught.value.hint
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"a letter, not a database\n" * 400])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    for read_only in (False, True):
        with pytest.raises(JournalCorrupt) as caught:
            SqliteJournal.open(path, read_only=read_only)
        assert str(path) in str(caught.value)
        assert caught.value.hint
    assert path.read_bytes() == content
