"""Engines under test, each real: one fixture per engine, one harness for all."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from artesian.engines.base import Engine, HostNode
from artesian.engines.local.engine import LocalEngine, attempt_folder
from artesian.engines.local.records import AttemptFolder
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, JobKind, Outcome
from artesian.model.plan import Start, Stop
from builders import a_job, a_node, a_placement

TIMEOUT_S = 60.0
"""A test that waits for so long has failed."""


class Harness:
    """An engine that a test talks to, and the events that it reported."""

    def __init__(self, root: Path, make: Callable[[], Engine]) -> None:
        self.root = root
        self.make = make
        self.engine = make()
        self.events: list[Event] = []
        self.nodes: Sequence[Node] = ()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Harness"]:
        """A new engine on the same files, as after a crash of the driver; events begin anew."""
        self.engine = self.make()
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


@pytest.fixture(params=["local"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """Every engine, one after the other."""
    assert request.param == "local"
    host = HostNode(node=a_node("here", devices=2, cpus=2), device_ids=("0", "1"))
    harness = Harness(tmp_path / "jobs", lambda: LocalEngine(tmp_path / "jobs", [host], time.time))
    yield harness
    for folder in (tmp_path / "jobs").glob("*/attempt-*"):
        for pid in AttemptFolder(folder).survivors():
            os.kill(pid, 9)


def shell(script: str, *, id: str = "j1", **more: Any) -> Job:
    """A job without a gang whose command is a shell script."""
    given: dict[str, Any] = {
        "kind": JobKind.BATCH,
        "env": {"PATH": os.environ["PATH"]},
        "workdir": "/",
        "command": ("sh", "-c", script),
    }
    return a_job(id, **{**given, **more})
