"""Snapshots of large states, by a process of their own."""

from contextlib import closing
from pathlib import Path

import pytest

from artesian.server import snapshotting
from artesian.server.snapshotting import SnapshotProcess, main
from artesian.store import Journal, journal_file, open_journal
from builders import a_job, submitted, ticked


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A journal with ten jobs."""
    found: str = (
        request.getfixturevalue("postgres_url")
        if request.param == "postgres"
        else str(journal_file(tmp_path))
    )
    with closing(open_journal(found)) as journal:
        journal.append(submitted(a_job(f"j{number}")) for number in range(10))
    return found


def snapshots(journal: Journal) -> list[int]:
    return journal._snapshot_places()  # type: ignore[attr-defined,no-any-return]  # of both kinds


def test_a_large_state_is_saved_by_another_process(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotting, "_AT_ONCE", 9)
    with closing(open_journal(place)) as journal:
        state, seq = journal.load()
        process = SnapshotProcess(place)
        process.save(state, seq)
        process.save(state, seq)  # one at a time: this does nothing, or the first is done already
        process.wait()
        assert snapshots(journal) == [10]
        assert journal.load()[0].image() == state.image()
        assert journal.problems == []


def test_a_small_state_is_saved_at_once(place: str) -> None:
    with closing(open_journal(place)) as journal:
        SnapshotProcess(place).save(*journal.load())
        assert snapshots(journal) == [10]


def test_the_process_saves_what_the_journal_has_by_then(place: str) -> None:
    with closing(open_journal(place)) as journal:
        journal.append([ticked(5.0)])
        assert main([place]) == 0
        assert snapshots(journal) == [11]


def test_a_journal_that_cannot_be_read_is_no_reason_to_raise(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no journal")
    assert main([str(tmp_path / "file")]) == 1
