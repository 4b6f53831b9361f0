"""The indices over the jobs: whatever happens, they say what the state says."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.kernel import archive
from artesian.kernel.lifecycle import JobState
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.events import Event
from artesian.server.board import BadCursor, Board, Filter, recent
from builders import a_job, a_node, cancelled, ended, fifo, joined, lost, started, submitted, ticked


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """So that short histories fill blocks of the archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_BLOCK", 2)
        yield


JOBS = [f"j{number}" for number in range(6)]
TEAMS = ("red", "blue")


def an_event(kind: str, job: str, at_s: float) -> Event:
    number = JOBS.index(job)
    match kind:
        case "submit":
            return submitted(
                a_job(job, name=f"n{number % 2}", team=TEAMS[number % 2], user=f"u{number % 3}"), at_s
            )
        case "cancel":
            return cancelled(job, at_s)
        case "start":
            return started(job, 1, at_s)
        case "end":
            return ended(job, 1, at_s=at_s)
        case "lose":
            return lost("n1", at_s)
        case "join":
            return joined(a_node(devices=2), at_s)
    return ticked(at_s)


KINDS = ("submit", "cancel", "start", "end", "lose", "join", "tick")


def everything(board: Board, wanted: Filter, *, limit: int, newest_first: bool) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        records, cursor = board.page(wanted, limit=limit, cursor=cursor, newest_first=newest_first)
        assert len(records) <= limit
        found += [record.job.id for record in records]
        if cursor is None:
            return found


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(JOBS)), max_size=40),
    st.sampled_from([None, *TEAMS]),
    st.frozensets(st.sampled_from(JobState), max_size=3),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([None, 0, 1, 3]),
)
def test_pages_and_counts_are_those_of_the_state(
    happened: list[tuple[str, str]],
    team: str | None,
    states: frozenset[JobState],
    limit: int,
    newest_first: bool,
    keeps_over: int | None,
) -> None:
    scheduler = Scheduler(fifo())
    mirrored = State(keeps_over=keeps_over)
    board = Board(mirrored)
    for number, (kind, job) in enumerate([("join", "j0"), *happened]):
        event = an_event(kind, job, float(number))
        plan = scheduler.step([event])
        for record in (event, plan):
            mirrored.apply(record)
            board.took(record)
    for one in (board, Board(mirrored)):
        jobs = sorted(mirrored.records(), key=lambda record: record.number)
        assert [record.job.id for record in one.beginning("j")] == [record.job.id for record in jobs]
        assert {name: one.named(name) for name in ("n0", "n1")} == {
            name: next((record for record in reversed(jobs) if record.job.name == name), None)
            for name in ("n0", "n1")
        }
        assert one.counts() == {
            state.value: sum(record.state is state for record in jobs) for state in JobState
        }
        wanted = Filter(states=states, team=team)
        right = [
            record.job.id
            for record in jobs
            if (team is None or record.job.team == team) and (not states or record.state in states)
        ]
        if newest_first:
            right.reverse()
        assert everything(one, wanted, limit=limit, newest_first=newest_first) == right
        assert set(one.attempted) == {record.job.id for record in mirrored.jobs.values() if record.attempts}
    again = Board(mirrored)
    assert [pair for pair in board.waited if pair[0] != pair[1]] == [
        pair for pair in again.waited if pair[0] != pair[1]
    ]
    assert board.ended == again.ended
    assert {t: c for t, c in board.active_by_team().items() if c} == {
        t: c for t, c in again.active_by_team().items() if c
    }


def test_a_filter_that_hardly_any_job_passes_yields_short_pages_and_no_long_search() -> None:
    state = State()
    for number in range(12_000):
        state.apply(submitted(a_job(f"j{number}", user="busy" if number else "rare")))
    board = Board(state)
    wanted = Filter(user="rare", kind="train")
    assert board.page(wanted, limit=5, cursor=None, newest_first=True) == ([], None)
    kinds = Filter(kind="train")
    found, cursor = board.page(kinds, limit=5, cursor=None, newest_first=True)
    assert (found, cursor is None) == ([], False)
    assert everything(board, kinds, limit=5, newest_first=False) == []


@pytest.mark.parametrize("cursor", ["", "x", "ajE", "ag", "aiAx", "é", "ajk5OTk5OTk5OTk5OTk5", "Li4vLi4"])
def test_a_cursor_that_no_page_gave_is_refused(cursor: str) -> None:
    board = Board(State())
    if cursor == "ajE":
        assert board.page(Filter(), limit=1, cursor=cursor, newest_first=False) == ([], None)
        return
    with pytest.raises(BadCursor, match="expected the next of a page"):
        board.page(Filter(), limit=1, cursor=cursor, newest_first=False)


def test_a_short_list_has_who_holds_devices_then_who_waits_longest_and_the_last_that_are_over() -> None:
    state = State()
    for number in range(8):
        state.apply(submitted(a_job(f"j{number}")))
    for number in (0, 1, 2):
        state.apply(cancelled(f"j{number}"))
    shown, more = recent(state.jobs.values(), active=3, over=2)
    assert [record.job.id for record in shown] == ["j1", "j2", "j3", "j4", "j5"]
    assert more == 3
