"""What every journal promises, wherever it keeps its records: the same tests on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from artesian.kernel.state import State
from artesian.model.plan import Plan
from artesian.store import (
    Journal,
    StoreError,
    StoreUnavailable,
    UnstorableRecord,
    chained,
    open_journal,
)
from builders import a_job, cancelled, submitted, ticked


@pytest.fixture
def journal(place: str) -> Iterator[Journal]:
    with closing(open_journal(place)) as journal:
        yield journal
        assert journal.problems == []


# -- order and transactions ---------------------------------------------------------------------------


def test_a_new_journal_is_empty(journal: Journal) -> None:
    assert journal.last_seq == 0
    assert list(journal.read()) == []
    assert journal.verify() == 0
    state, seq = journal.load()
    assert (state.jobs, seq) == ({}, 0)


def test_records_are_numbered_from_one_in_the_order_of_appending(journal: Journal) -> None:
    assert journal.append([submitted(), cancelled()]) == 2
    assert journal.append([ticked(3.0)]) == 3
    assert list(journal.read()) == [(1, submitted()), (2, cancelled()), (3, ticked(3.0))]
    assert list(journal.read(after=2)) == [(3, ticked(3.0))]
    assert list(journal.read(after=3)) == []
    assert journal.last_seq == 3


def test_appending_nothing_changes_nothing(journal: Journal) -> None:
    journal.append([ticked()])
    assert journal.append([]) == 1


def test_what_is_appended_is_there_at_the_next_opening(place: str) -> None:
    with closing(open_journal(place)) as journal:
        journal.append([submitted()])
    with closing(open_journal(place)) as journal:
        assert list(journal.read()) == [(1, submitted())]
        assert journal.append([cancelled()]) == 2


def test_more_records_than_a_page_are_read_in_order(journal: Journal) -> None:
    journal.append(ticked(float(number)) for number in range(1, 1001))
    assert [(seq, record.at_s) for seq, record in journal.read()] == [(n, float(n)) for n in range(1, 1001)]


def test_reading_stops_where_the_journal_ended_when_it_began(journal: Journal) -> None:
    journal.append([ticked(1.0)])
    reading = journal.read()
    journal.append([ticked(2.0)])
    assert [seq for seq, _ in reading] == [1]


def test_reading_on_from_behind_the_end_is_a_mistake(journal: Journal) -> None:
    journal.append([ticked()])
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        journal.read(after=2)


def test_a_transaction_sees_what_others_appended_before_it_and_what_it_appends(place: str) -> None:
    with closing(open_journal(place)) as command, closing(open_journal(place)) as driver:
        command.append([submitted()])
        with driver.transaction() as transaction:
            assert transaction.read(after=0) == [(1, submitted())]
            assert transaction.append([ticked(1.0)]) == 2
            assert transaction.append([Plan(at_s=1.0)]) == 3
            assert transaction.read(after=1) == [(2, ticked(1.0)), (3, Plan(at_s=1.0))]
            assert command.last_seq == 1, "not committed yet"
        assert command.last_seq == transaction.last_seq == 3


def test_an_exception_undoes_the_transaction(journal: Journal) -> None:
    journal.append([submitted()])

    def half_way() -> None:
        with journal.transaction() as transaction:
            transaction.append([cancelled()])
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        half_way()
    assert list(journal.read()) == [(1, submitted())]
    assert journal.append([ticked()]) == 2


def test_a_transaction_is_over_when_its_block_is_left(journal: Journal) -> None:
    with journal.transaction() as transaction:
        pass
    with pytest.raises(AssertionError):
        transaction.append([ticked()])


def test_transactions_do_not_nest(journal: Journal) -> None:
    with journal.transaction(), pytest.raises(AssertionError, match="one transaction at a time"):
        journal.append([ticked()])


def test_one_record_that_cannot_be_stored_keeps_its_whole_batch_out(journal: Journal) -> None:
    with pytest.raises(UnstorableRecord):
        journal.append([ticked(1.0), ticked(float("nan"))])
    assert journal.last_seq == 0


def test_a_closed_journal_says_so_in_our_terms(place: str) -> None:
    journal = open_journal(place)
    journal.close()
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        list(journal.read())


# -- readers and writers ------------------------------------------------------------------------------


def test_a_reader_does_not_wait_for_a_writer_and_sees_nothing_of_what_is_not_committed(place: str) -> None:
    with closing(open_journal(place)) as writer, closing(open_journal(place)) as reader:
        writer.append([submitted()])
        with writer.transaction() as transaction:
            transaction.append([cancelled()])
            assert reader.last_seq == 1
            assert list(reader.read()) == [(1, submitted())]
        assert list(reader.read(after=1)) == [(2, cancelled())]


def test_a_journal_that_another_holds_for_too_long_is_unavailable_and_then_goes_on(place: str) -> None:
    with closing(open_journal(place)) as holder, closing(open_journal(place, busy_timeout_s=0.01)) as other:
        with holder.transaction(), pytest.raises(StoreUnavailable) as caught:
            other.append([submitted()])
        assert caught.value.hint
        assert other.append([submitted()]) == 1


def test_a_failed_append_that_was_caught_cannot_be_committed_by_half(journal: Journal) -> None:
    with journal.transaction() as transaction:
        transaction.append([submitted()])
        with pytest.raises(UnstorableRecord):
            transaction.append([ticked(float("nan"))])
    assert list(journal.read()) == [(1, submitted())], "what could not be stored was never begun"


def test_verifying_counts_the_records(journal: Journal) -> None:
    assert journal.append(ticked(float(number)) for number in range(250)) == journal.verify() == 250


# -- snapshots ----------------------------------------------------------------------------------------


def test_loading_goes_on_from_a_snapshot(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_journal(place)) as journal:
        journal.append([submitted(a_job(f"j{number}"), 1.0) for number in range(5)])
        for number in (1, 2, 3):
            journal.append([ticked(float(number))])
            journal.save_snapshot(*journal.load())
        journal.append([cancelled("j0", at_s=9.0)])
        expected = journal.load()
    applied = 0
    plain = State.apply

    def counted(state: State, record: object) -> None:
        nonlocal applied
        applied += 1
        plain(state, record)  # type: ignore[arg-type]

    monkeypatch.setattr(State, "apply", counted)
    with closing(open_journal(place)) as journal:
        state, seq = journal.load()
        assert journal.problems == []
    assert (applied, seq) == (1, 9)
    assert state.image() == expected[0].image()


def test_jobs_that_were_over_long_ago_come_back_packed_from_a_snapshot_and_from_a_replay(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chained, "KEPT_OVER", 10)
    with closing(open_journal(place)) as journal:
        for number in range(260):
            id_ = f"j{number:03}"
            journal.append([submitted(a_job(id_), float(number)), cancelled(id_, at_s=number + 0.5)])
        replayed, seq = journal.load()
        journal.save_snapshot(replayed, seq)
    with closing(open_journal(place)) as journal:
        monkeypatch.setattr(State, "apply", None)  # nothing is replayed
        state, _ = journal.load()
        assert journal.problems == []
    state.validate()
    assert (len(state.archive), len(state.archive.blocks), len(state.jobs)) == (250, 2, 10)
    assert state.image() == replayed.image()
    assert all(state.record(f"j{number:03}") is not None for number in range(260))


def test_a_snapshot_of_what_has_not_happened_is_a_mistake(journal: Journal) -> None:
    journal.append([ticked()])
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        journal.save_snapshot(State(), 2)


def test_a_state_in_which_nothing_happened_needs_no_snapshot(journal: Journal) -> None:
    journal.save_snapshot(*journal.load())
    assert journal.load()[1] == 0
