"""Snapshots are a shortcut: with them or without, whole or damaged, load() is what replay gives."""

import gc
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artesian.kernel import archive
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State, StateImage
from artesian.model.events import Event
from artesian.model.job import Cause
from artesian.policy.registry import policy
from artesian.store import JournalCorrupt, SqliteJournal, chained, journal_file, snapshots
from artesian.store.chain import Link
from builders import a_job, a_node, cancelled, ended, joined, lost, retry, started, submitted, ticked

JOBS = [f"j{number}" for number in range(5)]
NODES = ["n1", "n2"]
KEPT, BLOCK = 2, 2


@pytest.fixture(autouse=True, scope="module")
def a_small_archive() -> Iterator[None]:
    """So few jobs that are over stay as they are that short histories have an archive with full blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chained, "KEPT_OVER", KEPT)
        patch.setattr(archive, "_BLOCK", BLOCK)
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return journal_file(tmp_path)


def image_of(state: State) -> StateImage:
    """Everything in a state, in an order that does not depend on how it came about."""
    image = state.image()
    image.nodes.sort(key=lambda record: record.node.id)
    image.jobs.sort(key=lambda record: record.job.id)
    return image


def replayed(journal: SqliteJournal) -> State:
    return replay((record for _, record in journal.read()), State(keeps_over=KEPT))


# -- any history --------------------------------------------------------------------------------------

job_ids = st.sampled_from(JOBS)
events = st.one_of(
    st.builds(
        lambda id, devices, workers: submitted(a_job(id, devices=devices, retry=retry(2, *Cause))),
        job_ids,
        st.sampled_from(["cpu:1", "cpu:2", "cpu:1..3", "cpu:6", "0.5"]),
        st.none(),
    ),
    st.builds(cancelled, job_ids, user=st.sampled_from(["", "ada"])),
    st.builds(started, job_ids, st.integers(1, 4)),
    st.builds(ended, job_ids, st.integers(1, 4), st.sampled_from(Cause)),
    st.builds(
        lambda id, devices: joined(a_node(id, devices=devices)), st.sampled_from(NODES), st.integers(1, 4)
    ),
    st.builds(lost, st.sampled_from(NODES)),
    st.just(ticked()),
)
steps = st.lists(
    st.tuples(st.floats(0, 30), st.lists(events, min_size=1, max_size=4), st.booleans()),
    min_size=1,
    max_size=25,
)


def drive(journal: SqliteJournal, given_steps: Sequence[tuple[float, list[Event], bool]]) -> Scheduler:
    """Do what a driver does: events and plan in one transaction, a snapshot now and then."""
    scheduler = Scheduler(policy("fifo"), State(keeps_over=KEPT))
    at_s = 0.0
    for wait_s, batch, is_snapshot_due in given_steps:
        at_s += wait_s
        happened = [at(event, at_s) for event in batch]
        with journal.transaction() as transaction:
            transaction.append(happened)
            transaction.append([scheduler.step(happened)])
        if is_snapshot_due:
            journal.save_snapshot(scheduler.state, journal.last_seq)
    return scheduler


def at(event: Event, at_s: float) -> Event:
    fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
    return type(event)(**{**fields, "at_s": at_s})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(given_steps=steps, more=steps)
def test_loading_gives_the_state_of_a_full_replay_and_goes_on_as_if_nothing_had_been(
    tmp_path_factory: pytest.TempPathFactory,
    given_steps: list[tuple[float, list[Event], bool]],
    more: list[tuple[float, list[Event], bool]],
) -> None:
    path = journal_file(tmp_path_factory.mktemp("journal"))
    with SqliteJournal.open(path) as journal:
        lived = drive(journal, given_steps)
    with SqliteJournal.open(path) as journal:
        loaded, seq = journal.load()
        assert journal.problems == []
        assert seq == journal.last_seq
        loaded.validate()
        assert image_of(loaded) == image_of(lived.state) == image_of(replayed(journal))
    restarted = Scheduler(policy("fifo"), loaded)
    at_s = loaded.at_s
    for wait_s, batch, _ in more:
        at_s += wait_s
        happened = [at(event, at_s) for event in batch]
        assert restarted.step(happened) == lived.step(happened)


# -- which one is taken -------------------------------------------------------------------------------


def four_steps(journal: SqliteJournal) -> None:
    """Four jobs, of which a snapshot is saved after the first, the second and the third."""
    for number in range(1, 5):
        journal.append([submitted(a_job(f"j{number}"), float(number))])
        if number < 4:
            journal.save_snapshot(replayed(journal), number)


def places(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    found = [row[0] for row in connection.execute("SELECT seq FROM snapshots ORDER BY seq")]
    connection.close()
    return found


def tamper(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(sql).rowcount > 0
    connection.close()


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The snapshots that load() went on from."""
    used: list[int] = []
    plain = snapshots.decode

    def decode(row: snapshots.SnapshotRow, at: Link) -> State | None:
        state = plain(row, at)
        if state is not None:
            used.append(row.seq)
        return state

    monkeypatch.setattr(snapshots, "decode", decode)
    return used


def test_the_last_two_snapshots_are_kept_and_the_newest_is_used(path: Path, used: list[int]) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
        assert places(path) == [2, 3]
        state, seq = journal.load()
    assert (sorted(state.jobs), seq) == (["j1", "j2", "j3", "j4"], 4)
    assert used == [3]


def test_a_reader_uses_snapshots_too(path: Path, used: list[int]) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
    with SqliteJournal.open(path, read_only=True) as reader:
        assert len(reader.load()[0].jobs) == 4
    assert used == [3]


def test_a_state_in_which_nothing_happened_needs_no_snapshot(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        journal.save_snapshot(*journal.load())
        assert journal.load()[1] == 0
    assert places(path) == []


def test_a_snapshot_of_what_has_not_happened_is_a_mistake(path: Path) -> None:
    with SqliteJournal.open(path) as journal:
        journal.append([ticked()])
        with pytest.raises(ValueError, match="from 0 to 1, got 2"):
            journal.save_snapshot(State(), 2)


DAMAGE = {
    "a changed body": "UPDATE snapshots SET body = CAST(substr(body, 1, 40) || x'5500' || substr(body, 43) AS BLOB)"
    " WHERE seq {}",
    "a truncated body": "UPDATE snapshots SET body = substr(body, 1, 40) WHERE seq {}",
    "a body of another type": "UPDATE snapshots SET body = 'text' WHERE seq {}",
    "a changed checksum": "UPDATE snapshots SET crc = crc + 1 WHERE seq {}",
    "a checksum of another type": "UPDATE snapshots SET crc = 'x' WHERE seq {}",
    "another record's checksum": "UPDATE snapshots SET record_crc = record_crc + 1 WHERE seq {}",
    "a changed version": "UPDATE snapshots SET version = 'x' || version WHERE seq {}",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_snapshot_is_reported_and_the_one_before_it_is_used(
    path: Path, used: list[int], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
        expected = image_of(replayed(journal))
    tamper(path, DAMAGE[damage].format("= 3"))
    with SqliteJournal.open(path) as journal:
        state, seq = journal.load()
        (problem,) = journal.problems
    assert (image_of(state), seq) == (expected, 4)
    assert used == [2]
    assert "the snapshot at record 3 is not used" in problem
    assert problem in caplog.messages


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_a_sound_snapshot_everything_is_replayed(path: Path, used: list[int], damage: str) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
        expected = image_of(replayed(journal))
    tamper(path, DAMAGE[damage].format("> 0"))
    with SqliteJournal.open(path) as journal:
        state, seq = journal.load()
        assert len(journal.problems) == 2
        journal.load()
        assert len(journal.problems) == 2, "said once"
    assert (image_of(state), seq) == (expected, 4)
    assert used == []


def test_a_snapshot_moved_to_another_record_is_not_used(path: Path, used: list[int]) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
    tamper(path, "UPDATE snapshots SET seq = 4 WHERE seq = 3")
    with SqliteJournal.open(path) as journal:
        assert len(journal.load()[0].jobs) == 4
        assert "the snapshot at record 4 is not used" in journal.problems[0]
    assert used == [2]


def test_a_snapshot_whose_record_was_changed_is_not_used(path: Path, used: list[int]) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
        journal.append([ticked(9.0)])
    tamper(path, "UPDATE records SET crc = crc + 1 WHERE seq = 3")
    with SqliteJournal.open(path) as journal:
        with pytest.raises(JournalCorrupt, match="record 3 is damaged"):
            journal.load()
        assert "the snapshot at record 3 is not used" in journal.problems[0]
    assert used == [2]


def test_a_snapshot_by_another_version_is_passed_over_without_a_word(
    path: Path, used: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SqliteJournal.open(path) as journal:
        four_steps(journal)
    monkeypatch.setattr(snapshots, "__version__", "99.0")
    with SqliteJournal.open(path) as journal:
        assert len(journal.load()[0].jobs) == 4
        assert journal.problems == []
    assert used == []


@pytest.mark.parametrize("is_on", [False, True])
def test_loading_leaves_the_garbage_collector_as_it_was(path: Path, is_on: bool) -> None:
    was_on = gc.isenabled()
    try:
        (gc.enable if is_on else gc.disable)()
        with SqliteJournal.open(path) as journal:
            journal.append([submitted(), submitted(a_job("j2"))])
            journal.load()
            assert gc.isenabled() == is_on
            tamper(path, "UPDATE records SET crc = crc + 1 WHERE seq = 1")
            with pytest.raises(JournalCorrupt):
                journal.load()
            assert gc.isenabled() == is_on
    finally:
        (gc.enable if was_on else gc.disable)()
