"""What can happen between two lines of the driver."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from artesian.engines.base import Report
from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.events import AttemptEnded, AttemptStarted
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.plan import Plan, Reason, Start, Stop
from artesian.model.snapshot import Snapshot
from artesian.server.driver import Driver
from artesian.store import Journal, SqliteJournal, Transaction
from builders import a_job, a_node, cancelled, fifo, submitted


class InstantEngine:
    """Every attempt starts and completes at once."""

    name = "instant"

    async def open(self, report: Report) -> Sequence[Node]:
        self.report = report
        return [a_node()]

    def start(self, command: Start, job: Job) -> None:
        outcome = Outcome(cause=Cause.COMPLETED, exit_code=0)
        self.report(AttemptStarted(at_s=0.0, job_id=job.id, epoch=command.epoch))
        self.report(AttemptEnded(at_s=0.0, job_id=job.id, epoch=command.epoch, outcome=outcome))

    def stop(self, command: Stop) -> None:
        raise AssertionError("nothing runs for so long")

    async def close(self) -> None:
        return


class JournalWithAQuickUser:
    """A journal into which another process submits a job right after each of the driver's first commits."""

    def __init__(self, path: Path, jobs: list[Job]) -> None:
        self._journal = SqliteJournal.open(path)
        self._other = SqliteJournal.open(path)
        self._jobs = jobs

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._journal.transaction() as transaction:
            yield transaction
        if self._jobs:
            self._other.append([submitted(self._jobs.pop())])

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)


def test_a_job_submitted_right_after_a_commit_is_not_overlooked(tmp_path: Path) -> None:
    journal = JournalWithAQuickUser(tmp_path / "journal", [a_job(f"j{number}") for number in range(5)])
    scheduler = Scheduler(fifo())
    driver = Driver(cast("Journal", journal), scheduler, 0, InstantEngine(), lambda: 0.0)

    async def drive() -> None:
        await driver.open()
        for _ in range(12):
            await driver.run(idle_exit_s=0.0)

    asyncio.run(drive())
    assert {id_: record.state for id_, record in scheduler.state.jobs.items()} == {
        f"j{number}": JobState.SUCCEEDED for number in range(5)
    }


class Thoughtful:
    """FIFO, and something happens each time that it thinks."""

    name = "thoughtful"

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._meanwhile = meanwhile
        self._fifo = fifo()

    def plan(self, snapshot: Snapshot) -> Plan:
        plan = self._fifo.plan(snapshot)
        self._meanwhile()
        return plan

    def explain(self, snapshot: Snapshot, job_id: str) -> Reason | None:
        return self._fifo.explain(snapshot, job_id)


def test_nobody_waits_for_a_policy_that_thinks(tmp_path: Path) -> None:
    """Others submit and cancel in the middle of every cycle: none is refused, none is missed, no job is lost."""
    path = tmp_path / "journal.sqlite3"
    with SqliteJournal.open(path) as journal, SqliteJournal.open(path, busy_timeout_s=0.01) as other:
        journal.append([submitted(a_job("j0"))])
        turns = iter(range(1, 10))
        drivers: list[Driver] = []

        def meanwhile() -> None:
            if (turn := next(turns, None)) is not None:
                other.append([submitted(a_job(f"j{turn}"))])
                if turn % 3 == 0:
                    other.append([cancelled(f"j{turn}"), cancelled(f"j{turn - 1}")])
                drivers[0].wake()

        async def test() -> None:
            state, seq = journal.load()
            scheduler = Scheduler(Thoughtful(meanwhile), state)
            driver = Driver(journal, scheduler, seq, InstantEngine(), lambda: 0.0)
            drivers.append(driver)
            await driver.open()
            await driver.run(idle_exit_s=0.05)
            await driver.close()
            scheduler.state.validate()
            again = State(keeps_over=state.archive.keeps)
            records = (record for _, record in journal.read())
            assert scheduler.state.image() == replay(records, again).image()

        asyncio.run(test())
        state, _ = journal.load()
    assert len(state.jobs) == 10
    assert {record.state for record in state.jobs.values()} <= {JobState.SUCCEEDED, JobState.CANCELLED}
    assert all(state.jobs[f"j{number}"].state is JobState.SUCCEEDED for number in (0, 1, 4, 7)), (
        "the ones that nobody cancelled"
    )
