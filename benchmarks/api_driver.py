"""A driver of 10,000 nodes that only pretend, beside a server: ``python benchmarks/api_driver.py STATE_DIR``.

The scheduler, the journal and the daemon's bell are the real ones; attempts start at once and never end.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from artesian.engines.base import Report
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import AttemptStarted
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.plan import Start, Stop
from artesian.policy.registry import policy
from artesian.server.bell import Bell
from artesian.server.config import StateDir
from artesian.server.driver import Driver
from artesian.store import SqliteJournal


class PretendEngine:
    """Has the nodes that it is given."""

    name = "pretend"

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._report: Report | None = None

    async def open(self, report: Report) -> Sequence[Node]:
        """Begin."""
        self._report = report
        return self._nodes

    def start(self, command: Start, job: Job) -> None:
        """Say that it runs."""
        del job
        assert self._report is not None
        self._report(AttemptStarted(at_s=time.time(), job_id=command.job_id, epoch=command.epoch))

    def stop(self, command: Stop) -> None:
        """Nothing is stopped in this benchmark."""
        raise AssertionError(command)

    async def close(self) -> None:
        """End."""


async def main(state: StateDir) -> None:
    """Drive until killed."""
    with SqliteJournal.open(state.journal) as journal:
        replayed, seq = journal.load()
        engine = PretendEngine([record.node for record in replayed.nodes.values()])
        driver = Driver(journal, Scheduler(policy("fifo"), replayed), seq, engine, time.time)
        await driver.open()
        bell = Bell(state.bell)

        def rung() -> None:
            bell.answer()
            driver.wake()

        asyncio.get_running_loop().add_reader(bell.fd, rung)
        print("driving", flush=True)
        await driver.run(idle_exit_s=None)


if __name__ == "__main__":
    asyncio.run(main(StateDir(Path(sys.argv[1]))))
