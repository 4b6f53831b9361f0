"""The live driver, with an engine that only pretends and a clock that jumps to whatever happens next."""

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from artesian.kernel.lifecycle import JobState
from artesian.kernel.state import Record, State
from artesian.model.events import Event, NodeJoined, NodeLost
from artesian.model.job import Cause, Job
from artesian.model.plan import Plan, Start
from artesian.policy.registry import in_rounds
from artesian.policy.solver import FloatArray, LinearProgram, SolverFailed
from artesian.server import driver as module
from artesian.server.driver import SecondDriver
from artesian.store import StoreUnavailable
from artesian.store.chained import KEPT_OVER
from builders import a_job, a_node, cancelled, lost, retry, submitted
from driver_harness import (
    DONE,
    KILLED,
    PretendEngine,
    WatchedJournal,
    a_driver,
    a_watched_journal,
    drive,
    now_s,
    virtually,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[WatchedJournal]:
    with a_watched_journal(tmp_path / "journal.sqlite3") as journal:
        yield journal


def records(journal: WatchedJournal, *kinds: type) -> list[Record]:
    return [record for _, record in journal.read() if isinstance(record, kinds)]


def state_of(journal: WatchedJournal, job_id: str = "j1") -> JobState:
    state, _ = journal.load()
    state.validate()
    return state.jobs[job_id].state


# -- work -------------------------------------------------------------------------------------------


def test_a_job_that_was_submitted_while_nobody_drove_is_started(journal: WatchedJournal) -> None:
    async def test() -> None:
        await drive(journal, PretendEngine(a_node()))
        journal.append([submitted()])
        engine = PretendEngine(a_node())
        await drive(journal, engine)
        assert engine.calls == ["start/j1/1"]
        assert state_of(journal) is JobState.SUCCEEDED

    virtually(test)


def test_a_cancel_that_was_asked_for_while_nobody_drove_is_carried_out(journal: WatchedJournal) -> None:
    async def test() -> None:
        engine = PretendEngine(a_node(), lasts_s=1000.0)
        first = a_driver(journal, engine)
        journal.append([submitted()])
        await first.open()
        running = asyncio.create_task(first.run(idle_exit_s=None))
        await asyncio.sleep(1.0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await first.close()
        journal.append([cancelled()])
        await drive(journal, engine)
        assert engine.calls == ["start/j1/1", "start/j1/1", "stop/j1/1"], "the start is repeated, once it ran"
        assert state_of(journal) is JobState.CANCELLED

    virtually(test)


def test_what_is_submitted_while_it_waits_is_started_when_the_bell_rings(journal: WatchedJournal) -> None:
    async def test() -> None:
        engine = PretendEngine(a_node())
        driver = a_driver(journal, engine)
        await driver.open()
        running = asyncio.create_task(driver.run(idle_exit_s=100.0))
        await asyncio.sleep(7.0)
        journal.append([submitted()])
        driver.wake()
        await running
        assert engine.ran == {"start/j1/1": 7.0}
        assert now_s() == 7.0 + 10.0 + 100.0, "it left 100 s after the last thing it did"
        assert driver.seq == journal.last_seq

    virtually(test)


def test_a_delay_is_over_on_time_and_the_driver_stays_for_it(journal: WatchedJournal) -> None:
    async def test() -> None:
        journal.append([submitted(a_job(retry=retry(3, Cause.SIGNAL, backoff_s=30.0, max_backoff_s=40.0)))])
        engine = PretendEngine(a_node(), outcomes=(KILLED, KILLED, DONE))
        await drive(journal, engine, idle_exit_s=1.0)
        assert engine.ran == {"start/j1/1": 0.0, "start/j1/2": 10.0 + 30.0, "start/j1/3": 50.0 + 40.0}
        assert state_of(journal) is JobState.SUCCEEDED
        assert now_s() == 100.0 + 1.0

    virtually(test)


def test_a_delay_that_was_over_while_nobody_drove_is_over(journal: WatchedJournal) -> None:
    async def test() -> None:
        journal.append([submitted(a_job(retry=retry(3, Cause.SIGNAL, backoff_s=30.0)))])
        engine = PretendEngine(a_node(), outcomes=(KILLED, DONE))
        first = a_driver(journal, engine)
        await first.open()
        running = asyncio.create_task(first.run(idle_exit_s=None))
        await asyncio.sleep(11.0)
        assert state_of(journal) is JobState.BACKING_OFF
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await first.close()
        await asyncio.sleep(1000.0)
        await drive(journal, engine)
        assert engine.ran["start/j1/2"] == 1011.0
        assert state_of(journal) is JobState.SUCCEEDED

    virtually(test)


def test_a_driver_does_not_leave_while_a_job_waits_for_devices(journal: WatchedJournal) -> None:
    async def test() -> None:
        journal.append([submitted(a_job("j1", devices="cpu:8")), submitted(a_job("j2", devices="cpu:8"))])
        engine = PretendEngine(a_node(devices=8), lasts_s=500.0)
        await drive(journal, engine, idle_exit_s=1.0)
        assert engine.ran == {"start/j1/1": 0.0, "start/j2/1": 500.0}
        assert state_of(journal, "j2") is JobState.SUCCEEDED

    virtually(test)


def test_a_solver_that_fails_is_logged_once_and_counted_in_each_cycle_until_it_is_well_again(
    journal: WatchedJournal, caplog: pytest.LogCaptureFixture
) -> None:
    sound = LinearProgram.solve
    cycles: list[bool] = []

    def solve(program: LinearProgram) -> FloatArray:
        if now_s() < 25.0:
            raise SolverFailed("the solver found no optimum: told so by a test")
        return sound(program)

    async def test() -> None:
        journal.append([submitted(a_job(f"j{number}", devices="cpu:8")) for number in range(5)])
        driver = a_driver(
            journal,
            PretendEngine(a_node(devices=8)),
            policy=in_rounds("max-min"),
            cycled=lambda _, has_notice: cycles.append(has_notice),
        )
        await driver.open()
        await driver.run(idle_exit_s=5.0)
        await driver.close()

    with caplog.at_level("INFO", logger=module.__name__), mock.patch.object(LinearProgram, "solve", solve):
        virtually(test)
    assert set(cycles) == {True, False}
    assert cycles == sorted(cycles, reverse=True), "each of them, until it is well"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "fair share of throughput came to nothing" in warnings[0]
    assert "told so by a test" in warnings[0]
    assert [record.getMessage() for record in caplog.records].count("the policy has no notice any more") == 1
    plans = [plan for plan in records(journal, Plan) if isinstance(plan, Plan)]
    assert [plan.notice is not None for plan in plans if plan.starts] == [True, True, True, False, False]
    assert all(state_of(journal, f"j{number}") is JobState.SUCCEEDED for number in range(5))


def test_nothing_is_carried_out_before_it_is_in_the_journal(journal: WatchedJournal) -> None:
    class Checking(PretendEngine):
        def start(self, command: Start, job: Job) -> None:
            decided = [start for plan in records(journal, Plan) for start in getattr(plan, "starts", ())]
            assert command in decided
            super().start(command, job)

    async def test() -> None:
        journal.append([submitted(a_job(f"j{number}")) for number in range(4)])
        engine = Checking(a_node(devices=2))
        await drive(journal, engine)
        assert len(engine.calls) == 4

    virtually(test)


# -- the inventory ----------------------------------------------------------------------------------


def inventory(journal: WatchedJournal) -> list[str]:
    """Return what was said of nodes, in order."""
    return [
        f"+{record.node.id}:{record.node.devices}" if isinstance(record, NodeJoined) else f"-{record.node_id}"
        for record in records(journal, NodeJoined, NodeLost)
        if isinstance(record, NodeJoined | NodeLost)
    ]


def test_only_what_is_new_about_the_nodes_is_said(journal: WatchedJournal) -> None:
    async def test() -> None:
        n1, n2 = a_node("n1"), a_node("n2")
        for nodes, news in (
            ((n1,), ["+n1:8"]),
            ((n1,), []),
            ((n1, n2), ["+n2:8"]),
            ((n2,), ["-n1"]),
            ((n2,), []),
            ((a_node("n2", devices=4), n1), ["+n2:4", "+n1:8"]),
            ((), ["-n1", "-n2"]),
        ):
            before = len(inventory(journal))
            await drive(journal, PretendEngine(*nodes))
            assert sorted(inventory(journal)[before:]) == sorted(news)

    virtually(test)


def test_a_job_on_a_node_that_is_lost_is_stopped_and_runs_elsewhere(journal: WatchedJournal) -> None:
    async def test() -> None:
        engine = PretendEngine(a_node("n1"), lasts_s=100.0)
        driver = a_driver(journal, engine)
        journal.append([submitted()])
        await driver.open()
        running = asyncio.create_task(driver.run(idle_exit_s=1.0))
        await asyncio.sleep(3.0)
        engine.say(lost("n1", now_s()))
        await asyncio.sleep(3.0)
        assert state_of(journal) is JobState.QUEUED
        engine.say(NodeJoined(at_s=now_s(), node=a_node("n2")))
        await running
        assert engine.calls == ["start/j1/1", "stop/j1/1", "start/j1/2"]
        record = journal.load()[0].jobs["j1"]
        assert [str(attempt.placement) for attempt in record.attempts] == ["n1[0]", "n2[0]"]
        assert record.attempts[0].outcome is not None
        assert record.attempts[0].outcome.cause is Cause.NODE_LOST
        assert record.state is JobState.SUCCEEDED

    virtually(test)


# -- the journal ------------------------------------------------------------------------------------


def test_a_second_driver_in_the_same_journal_is_fatal(journal: WatchedJournal) -> None:
    async def test() -> None:
        driver = a_driver(journal, PretendEngine(a_node()))
        await driver.open()
        journal.append([submitted(), Plan(at_s=0.0)])
        with pytest.raises(SecondDriver, match="record 2 of the journal is another driver's plan"):
            await driver.run(idle_exit_s=1.0)
        assert len(records(journal, Plan)) == 1, "it has added nothing"

    virtually(test)


def test_a_snapshot_is_saved_every_so_many_records_and_at_the_end(
    journal: WatchedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SNAPSHOT_EVERY", 10)

    async def test() -> None:
        journal.append([submitted(a_job(f"j{number}")) for number in range(20)])
        await drive(journal, PretendEngine(a_node(devices=1)))
        gaps = [later - earlier for earlier, later in itertools.pairwise((0, *journal.snapshots))]
        assert len(gaps) > 4
        assert all(gap >= 10 for gap in gaps[:-1]), gaps
        assert journal.snapshots[-1] == journal.last_seq
        replayed = State(keeps_over=KEPT_OVER)
        for _, record in journal.read():
            replayed.apply(record)
        assert journal.load()[0].image() == replayed.image()

    virtually(test)


def test_a_driver_that_did_nothing_new_saves_no_snapshot(journal: WatchedJournal) -> None:
    async def test() -> None:
        driver = a_driver(journal, PretendEngine())
        await driver.open()
        await driver.close()
        assert journal.snapshots == ()

    virtually(test)


def two_jobs_in_a_row() -> list[Event]:
    """One that is killed and tried again, and one that waits for it and is killed once and for all."""
    again, never = retry(1, Cause.SIGNAL, backoff_s=5.0), retry(0, Cause.SIGNAL)
    jobs = [a_job("j1", devices="cpu:8", retry=again), a_job("j2", devices="cpu:8", retry=never)]
    return [submitted(job) for job in jobs]


def commits_of_an_undisturbed_run(folder: Path) -> int:
    """Return how many transactions the driver commits for these jobs."""
    with a_watched_journal(folder / "undisturbed.sqlite3") as journal:
        journal.append(two_jobs_in_a_row())
        journal.commits_left = 1000

        async def test() -> None:
            await drive(journal, PretendEngine(a_node(devices=8), outcomes=(KILLED, DONE)))

        virtually(test)
        return 1000 - journal.commits_left


def test_a_journal_that_fails_ends_the_driver_and_loses_nothing(tmp_path: Path) -> None:
    commits = commits_of_an_undisturbed_run(tmp_path)
    assert commits > 5
    for number in range(commits):
        with a_watched_journal(tmp_path / f"{number}.sqlite3") as journal:
            check_failure_at_commit(number, journal)


def check_failure_at_commit(number: int, journal: WatchedJournal) -> None:
    async def test() -> None:
        journal.append(two_jobs_in_a_row())
        engine = PretendEngine(a_node(devices=8), outcomes=(KILLED, DONE))
        journal.commits_left = number
        with pytest.raises(StoreUnavailable):
            await drive(journal, engine)
        await engine.close()  # the driver is dead: what runs goes on, and nobody listens
        journal.commits_left = None
        decided = [start.id for plan in records(journal, Plan) for start in getattr(plan, "starts", ())]
        assert set(engine.ran) <= set(decided), "what was not committed was not carried out"

        await drive(journal, engine)
        assert state_of(journal, "j1") is JobState.SUCCEEDED
        assert state_of(journal, "j2") is JobState.FAILED
        assert sorted(engine.ran) == ["start/j1/1", "start/j1/2", "start/j2/1"]

    virtually(test)
