"""Engines under test, each real: one harness for all, and what each engine stands on.

An engine joins by a file ``tests/engine_NAME.py`` with ``ground(root, session)``, a context manager that
yields a ``Ground``: how to make the engine below ``root``. What takes long to set up, such as a cluster, it
gets from ``session.once(KEY, CONTEXT_MANAGER)``, which enters it once and leaves it when all tests are over.
Where the machine lacks what the engine needs, ``limits.needs`` skips the test, or fails it in CI.
"""

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from artesian.engines.base import Engine
from artesian.engines.local.engine import attempt_folder
from artesian.engines.local.records import AttemptFolder
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, JobKind, Outcome
from artesian.model.plan import Start, Stop
from builders import a_job, a_placement

TIMEOUT_S = 180.0
"""A test that waits for so long has failed."""

NAMES = sorted(path.stem.removeprefix("engine_") for path in Path(__file__).parent.glob("engine_*.py"))
"""Every engine that has joined."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What an engine stands on: ``make`` makes it anew, on the same files and the same cluster.

    ``lose_node`` kills a node with all that runs on it; None where an engine has no node to spare.
    """

    make: Callable[[], Engine]
    lose_node: Callable[[str], None] | None = None


class Session:
    """What lives as long as all tests together."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._entered: dict[str, Any] = {}

    def once(self, key: str, enter: Callable[[], AbstractContextManager[T]]) -> T:
        """Return what ``enter`` yields; it is entered at the first call for ``key``."""
        if key not in self._entered:
            self._entered[key] = self._stack.enter_context(enter())
        entered: T = self._entered[key]
        return entered


class Harness:
    """An engine that a test talks to, and the events that it reported."""

    def __init__(self, root: Path, ground: Ground) -> None:
        self.root = root
        self.ground = ground
        self.engine = ground.make()
        self.events: list[Event] = []
        self.nodes: Sequence[Node] = ()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Harness"]:
        """A new engine on the same files, as after a crash of the driver; events begin anew."""
        self.engine = self.ground.make()
        self.events.clear()
        self.nodes = await self.engine.open(self._report)
        try:
            yield self
        finally:
            await self.engine.close()

    def start(self, job: Job, epoch: int = 1) -> None:
        self.engine.start(
            Start(
                job_id=job.id, epoch=epoch, placement=a_placement((self.nodes[0].id, [0])), reason="a test"
            ),
            job,
        )

    def stop(self, job: Job, epoch: int = 1, *, grace_s: float = 30.0) -> None:
        self.engine.stop(
            Stop(job_id=job.id, epoch=epoch, grace_s=grace_s, cause=Cause.CANCELLED, reason="a test")
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that an event or the file system can make true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():
                self._news.clear()
                try:
                    async with asyncio.timeout(0.02):
                        await self._news.wait()
                except TimeoutError:
                    continue

    async def until_started(self) -> None:
        await self.until(lambda: any(isinstance(event, AttemptStarted) for event in self.events))

    async def outcome(self) -> Outcome:
        """Wait for the attempt's end, and return it."""
        await self.until(lambda: any(isinstance(event, AttemptEnded) for event in self.events))
        (end,) = (event for event in self.events if isinstance(event, AttemptEnded))
        return end.outcome

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    def folder(self, job: Job, epoch: int = 1) -> AttemptFolder:
        return attempt_folder(self.root, job.id, epoch)

    def stdout(self, job: Job, epoch: int = 1) -> str:
        return self.folder(job, epoch).stdout.read_text()

    def _report(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()


@contextmanager
def harness_of(name: str, root: Path, session: Session) -> Iterator[Harness]:
    """The harness of one engine; no process of its attempts survives it."""
    with importlib.import_module(f"engine_{name}").ground(root, session) as ground:
        yield Harness(root, ground)
        for folder in root.glob("*/attempt-*"):
            for pid in AttemptFolder(folder).survivors():
                with suppress(ProcessLookupError):  # it ended with one before it
                    os.kill(pid, 9)


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    """What engines keep for as long as the tests run."""
    with ExitStack() as stack:
        yield Session(stack)


@pytest.fixture(params=NAMES)
def harness(request: pytest.FixtureRequest, tmp_path: Path, session: Session) -> Iterator[Harness]:
    """Every engine, one after the other."""
    with harness_of(request.param, tmp_path / "jobs", session) as harness:
        yield harness


def shell(script: str, *, id: str = "j1", **more: Any) -> Job:
    """A job without a gang whose command is a shell script."""
    given: dict[str, Any] = {
        "kind": JobKind.BATCH,
        "env": {"PATH": os.environ["PATH"]},
        "workdir": "/",
        "command": ("sh", "-c", script),
    }
    return a_job(id, **{**given, **more})
