"""The state as a server shows it: current, whole, and waited for."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.kernel.lifecycle import JobState
from artesian.kernel.state import Record, State
from artesian.server.view import StateView
from artesian.store import SqliteJournal
from builders import a_job, cancelled, submitted


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    with SqliteJournal.open(tmp_path / "journal.sqlite3") as journal:
        yield journal


def jobs(*numbers: int) -> list[Record]:
    return [submitted(a_job(f"j{number}")) for number in numbers]


def test_a_view_opens_with_what_the_journal_has(journal: SqliteJournal) -> None:
    journal.append(jobs(1, 2))
    view = StateView.open(journal)
    assert (sorted(view.state().jobs), view.seq) == (["j1", "j2"], 2)


def test_refreshing_applies_what_others_appended_and_keeps_the_object(journal: SqliteJournal) -> None:
    view = StateView.open(journal)
    state = view.state()
    journal.append(jobs(1))
    assert view.seq == 0, "reading does no I/O"
    assert view.refresh() is False
    assert view.state() is state
    assert (list(state.jobs), view.seq) == (["j1"], 1)


def test_a_long_way_is_gone_in_pages(journal: SqliteJournal) -> None:
    view = StateView.open(journal)
    journal.append(jobs(*range(5)))
    assert view.refresh(most=3) is True
    assert view.seq == 3
    assert view.refresh(most=3) is False
    assert view.seq == 5


def test_who_waits_for_a_record_goes_on_when_the_state_has_it(journal: SqliteJournal) -> None:
    async def test() -> None:
        view = StateView.open(journal)
        late, soon = asyncio.create_task(view.reached(2)), asyncio.create_task(view.reached(1))
        await asyncio.sleep(0)
        journal.append(jobs(1))
        view.refresh()
        await soon
        assert not late.done()
        journal.append(jobs(2))
        view.refresh()
        await late
        await view.reached(1)

    asyncio.run(test())


def test_who_gave_up_waiting_disturbs_nobody(journal: SqliteJournal) -> None:
    async def test() -> None:
        view = StateView.open(journal)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(view.reached(1), 0.001)
        journal.append(jobs(1))
        view.refresh()
        assert view.seq == 1

    asyncio.run(test())


def test_a_record_applied_by_half_is_loaded_anew(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = StateView.open(journal)
    journal.append(jobs(1, 2))

    def interrupted(state: State, record: Record) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(State, "apply", interrupted)
        with pytest.raises(KeyboardInterrupt):
            view.refresh()
    view.refresh()
    assert sorted(view.state().jobs) == ["j1", "j2"]
    view.state().validate()


def test_a_lent_state_is_changed_by_its_driver_alone(journal: SqliteJournal) -> None:
    view = StateView.open(journal)
    lent = view.lend()
    journal.append(jobs(1))
    assert view.refresh() is False
    assert view.seq == 0
    lent.apply(submitted(a_job("j1")))
    view.advanced(1)
    assert (list(view.state().jobs), view.seq) == (["j1"], 1)


def test_what_a_driver_decided_and_did_not_commit_is_forgotten(journal: SqliteJournal) -> None:
    journal.append(jobs(1))
    view = StateView.open(journal)
    view.lend().apply(cancelled("j1"))  # and the append failed
    view.take_back(is_whole=False)
    view.refresh()
    assert view.state().jobs["j1"].state is JobState.QUEUED


def test_a_state_that_its_driver_left_in_order_is_gone_on_with(journal: SqliteJournal) -> None:
    view = StateView.open(journal)
    state = view.lend()
    journal.append(jobs(1))
    state.apply(submitted(a_job("j1")))
    view.advanced(1)
    view.take_back(is_whole=True)
    journal.append(jobs(2))
    view.refresh()
    assert view.state() is state
    assert (sorted(state.jobs), view.seq) == (["j1", "j2"], 2)
