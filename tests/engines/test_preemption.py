"""A job of higher priority takes the place of a lower one, on every engine: the real driver, and a policy that stops."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from artesian.kernel.lifecycle import JobState
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.events import AttemptEnded, JobSubmitted
from artesian.model.job import Cause, Job
from artesian.model.plan import Plan
from artesian.policy.backfill import EasyBackfill
from artesian.policy.order import AgedPriority
from artesian.policy.place import Pack
from artesian.policy.preemptive import Preemptive
from artesian.policy.rights import ByPriority
from artesian.policy.room import Limits
from artesian.server.driver import Driver
from artesian.store import SqliteJournal
from engines_harness import TIMEOUT_S, Harness, shell

AT_ONCE = Preemptive(
    EasyBackfill(order=AgedPriority(), place=Pack()), Pack(), (ByPriority(),), Limits(min_runtime_s=0.0)
)
"""The policy ``priority``, but nobody is left alone for the first minutes."""


def test_who_is_preempted_saves_within_the_grace_and_goes_on_later(harness: Harness, tmp_path: Path) -> None:
    saves = (
        "trap 'echo saved; exit 0' TERM; echo begun $ARTESIAN_EPOCH;"
        f" while ! [ -e {tmp_path}/go ]; do sleep 0.05; done"
    )

    async def test() -> None:
        with SqliteJournal.open(tmp_path / "journal") as journal:
            driver = Driver(journal, Scheduler(AT_ONCE), 0, harness.ground.make(), time.time)
            await driver.open()

            def submit(*jobs: Job) -> None:
                with journal.transaction() as transaction:
                    transaction.append([JobSubmitted(at_s=time.time(), job=job) for job in jobs])
                driver.wake()

            def state() -> State:
                return journal.load()[0]

            async def until(holds: Callable[[], bool]) -> None:
                async with asyncio.timeout(TIMEOUT_S):
                    while not holds():
                        await asyncio.sleep(0.05)

            running = asyncio.create_task(driver.run(idle_exit_s=None))
            await until(lambda: bool(state().nodes))
            first, *others = [record.node for record in state().nodes.values()]
            alike = [first, *(node for node in others if node.accelerator == first.accelerator)]
            devices = f"{first.accelerator}:{first.devices}"
            low = [shell(saves, id=f"low-{number}", devices=devices) for number in range(len(alike))]
            high = shell("echo first", id="high", devices=devices, priority=10)
            submit(*low)
            await until(
                lambda: all(
                    harness.folder(job).stdout.exists() and "begun" in harness.stdout(job) for job in low
                )
            )
            submit(high)
            await until(lambda: state().jobs["high"].state is JobState.SUCCEEDED)

            def again() -> list[Job]:
                """Who has begun a second time, which comes some time after the end of the one that was first."""
                return [
                    job
                    for job in low
                    if harness.folder(job, 2).stdout.exists() and "begun 2" in harness.stdout(job, 2)
                ]

            await until(lambda: bool(again()))
            (victim,) = again()
            (tmp_path / "go").touch()
            await until(lambda: all(record.state.is_final for record in state().jobs.values()))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert {record.state for record in state().jobs.values()} == {JobState.SUCCEEDED}
            assert harness.stdout(victim) == "begun 1\nsaved\n"
            causes = [
                attempt.outcome.cause for attempt in state().jobs[victim.id].attempts if attempt.outcome
            ]
            assert causes == [Cause.PREEMPTED, Cause.COMPLETED]
            records = [record for _, record in journal.read()]
            left = next(
                number
                for number, record in enumerate(records)
                if isinstance(record, AttemptEnded) and record.job_id == victim.id
            )
            came = next(
                number
                for number, record in enumerate(records)
                if isinstance(record, Plan) and any(start.job_id == "high" for start in record.starts)
            )
            assert left < came, "nobody is given devices that somebody still holds"
            await driver.close()

    asyncio.run(test())
