"""A driver with an engine that only pretends, on a real journal, in virtual time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artesian.engines.base import Report
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.plan import Start, Stop
from artesian.policy.base import Policy
from artesian.server.driver import Driver
from artesian.store import SqliteJournal, StoreUnavailable
from artesian.store.chained import ChainedTransaction
from builders import fifo

DONE = Outcome(cause=Cause.COMPLETED, exit_code=0)
KILLED = Outcome(cause=Cause.SIGNAL, signal=9)


class JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: the time that it was to wait has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for something that cannot happen"
            self.now_s += max(0.0, timeout)
        return ready


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self.selector = JumpingSelector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now_s


def virtually(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test in virtual time."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        runner.run(test())


def now_s() -> float:
    return asyncio.get_running_loop().time()


class PretendEngine:
    """Attempts last for ``lasts_s`` and end as ``outcomes`` say, the last of which goes on for ever."""

    name = "pretend"

    def __init__(self, *nodes: Node, lasts_s: float = 10.0, outcomes: Sequence[Outcome] = (DONE,)) -> None:
        self.nodes = nodes
        self.lasts_s = lasts_s
        self.outcomes = outcomes
        self.calls: list[str] = []
        self.ran: dict[str, float] = {}
        """When each attempt was first started, by its command's id."""
        self._report: Report | None = None

    async def open(self, report: Report) -> Sequence[Node]:
        self._report = report
        return self.nodes

    def start(self, command: Start, job: Job) -> None:
        assert command.job_id == job.id
        self.calls.append(command.id)
        loop = asyncio.get_running_loop()
        started_s = self.ran.setdefault(command.id, loop.time())
        self.say(AttemptStarted(at_s=started_s, job_id=job.id, epoch=command.epoch))
        outcome = self.outcomes[min(command.epoch, len(self.outcomes)) - 1]
        self._end_at(started_s + self.lasts_s, command, outcome)

    def stop(self, command: Stop) -> None:
        self.calls.append(command.id)
        self._end_at(now_s() + 1.0, command, Outcome(cause=Cause.SIGNAL, signal=15))

    async def close(self) -> None:
        self._report = None

    def say(self, event: Event) -> None:
        if self._report is not None:
            self._report(event)

    def _end_at(self, at_s: float, command: Start | Stop, outcome: Outcome) -> None:
        event = AttemptEnded(at_s=at_s, job_id=command.job_id, epoch=command.epoch, outcome=outcome)
        asyncio.get_running_loop().call_at(max(at_s, now_s()), self.say, event)


class WatchedJournal(SqliteJournal):
    """Counts snapshots, and can be told to fail at one of the next commits."""

    snapshots: tuple[int, ...] = ()
    commits_left: int | None = None

    def save_snapshot(self, state: State, seq: int) -> None:
        self.snapshots = (*self.snapshots, seq)
        super().save_snapshot(state, seq)

    @contextmanager
    def transaction(self) -> Iterator[ChainedTransaction]:
        with super().transaction() as transaction:
            yield transaction
            if self.commits_left is not None:
                self.commits_left -= 1
                if self.commits_left < 0:
                    raise StoreUnavailable("the disk is full", hint="free some space")


@contextmanager
def a_watched_journal(path: Path) -> Iterator[WatchedJournal]:
    with WatchedJournal.open(path) as journal:
        assert isinstance(journal, WatchedJournal)
        yield journal


def a_driver(
    journal: WatchedJournal,
    engine: PretendEngine,
    *,
    policy: Policy | None = None,
    cycled: Callable[[float, bool], object] = lambda *_: None,
) -> Driver:
    """A driver on what the journal has, as after a start of the daemon."""
    state, seq = journal.load()
    return Driver(journal, Scheduler(policy or fifo(), state), seq, engine, now_s, cycled=cycled)


async def drive(journal: WatchedJournal, engine: PretendEngine, *, idle_exit_s: float = 5.0) -> None:
    """A daemon's whole life."""
    driver = a_driver(journal, engine)
    await driver.open()
    await driver.run(idle_exit_s=idle_exit_s)
    await driver.close()
