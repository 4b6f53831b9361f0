"""What running attempts tell, as events: any engine, and beside it a look into the progress files of its attempts.

A worker writes each step and each checkpoint into a file (``artesian.wire``). The kernel wants to know little
of that: up to when an attempt's work is saved, and how fast it goes. So only rank 0 is listened to, and it
becomes an event only where there is a new checkpoint or another speed, never more often than once a minute
for an attempt, nor more often than once a second for all: who has not been heard for longest comes first. A gang that
has changed its size is heard at once: what it did before and what after are two events, for two speeds.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from artesian.engines.base import Clock, Engine, Report
from artesian.engines.local.engine import attempt_folder
from artesian.model.events import AttemptEnded, AttemptProgressed, Event
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.plan import Start, Stop
from artesian.wire import CheckpointCommitted, Message, ProgressReader, Restored, StepCommitted, WorkerStarted

LOOK_EVERY_S = 20.0
SAY_EVERY_S = 60.0
_MOST_IN_A_LOOK = 20
_OTHER_SPEED = 0.05
"""By how much a speed must have changed to be news."""
_MOST_STEPS_KEPT = 10_000
_MOST_WORKERS = 2**31 - 1
"""A file may say anything; torch and NCCL count ranks so far."""

_log = logging.getLogger(__name__)


class Made(NamedTuple):
    """So many steps in so many seconds, from the attempt's beginning on, the latest of them by so many workers."""

    steps: int = 0
    steps_s: float = 0.0
    workers: int | None = None


_NOTHING_MADE = Made()


@dataclass(slots=True)
class Heard:
    """What rank 0 of an attempt has said so far. ``steps`` in ``steps_s`` leave out the first step, and gaps.

    ``workers``: how many the gang has, None where it does not tell; ``passed``: what it had done at each change of that,
    for a listener to take out; ``since`` at the last one.
    """

    saved_s: float | None = None
    steps: int = 0
    steps_s: float = 0.0
    workers: int | None = None
    passed: deque[Made] = field(default_factory=deque)
    since: Made = _NOTHING_MADE
    _last: StepCommitted | None = None
    _ends_s: dict[int, float] = field(default_factory=dict)

    def take(self, message: Message) -> None:
        """Take in a message, in the order of their saying."""
        match message:
            case WorkerStarted():
                self._last = None  # as after a restart
                if 0 < message.world_size <= _MOST_WORKERS:
                    self._resize(message.world_size)
            case StepCommitted():
                if self._last is not None and message.step == self._last.step + 1:
                    self.steps += 1
                    self.steps_s += max(0.0, message.end_s - self._last.end_s)
                self._last = message
                self._ends_s[message.step] = message.end_s
                if len(self._ends_s) > _MOST_STEPS_KEPT:
                    del self._ends_s[next(iter(self._ends_s))]
            case CheckpointCommitted():
                # It has the state of the step's end, though it may have been durable only later.
                saved_s = self._ends_s.get(message.step, message.at_s)
                self.saved_s = saved_s if self.saved_s is None else max(self.saved_s, saved_s)
            case Restored():
                self._last = None  # what lies between is no time of training

    @property
    def made(self) -> Made:
        """What it has done up to now."""
        return Made(self.steps, self.steps_s, self.workers)

    def _resize(self, workers: int) -> None:
        # What was told before anybody said a number was done by that number too.
        if self.workers not in (workers, None) and self.steps > self.since.steps:
            self.passed.append(self.made)
            self.since = self.made
        self.workers = workers


@dataclass(slots=True)
class _Ear:
    """Listens to one attempt. ``said`` is the last event, ``said_s`` when it was made."""

    reader: ProgressReader
    heard: Heard = field(default_factory=Heard)
    said: AttemptProgressed | None = None

    def is_due(self, now_s: float) -> bool:
        return self.said is None or bool(self.heard.passed) or now_s >= self.said.at_s + SAY_EVERY_S

    def listen(self, now_s: float, job_id: str, epoch: int) -> AttemptProgressed | None:
        """Return what is new, if it is worth an event."""
        if not self.heard.passed:
            with suppress(OSError):  # a file that cannot be read now may be read the next time
                for message in self.reader.read():
                    self.heard.take(message)
        made = self._next()
        if made is None:
            return None
        self.said = AttemptProgressed(
            at_s=now_s,
            job_id=job_id,
            epoch=epoch,
            saved_s=self.heard.saved_s,
            steps=float(made.steps),
            steps_s=made.steps_s,
            workers=made.workers,
        )
        return self.said

    def _next(self) -> Made | None:
        """Return up to where the work is to be told of now; None where there is no news."""
        while self.heard.passed:
            passed = self.heard.passed.popleft()
            if self.said is None or passed.steps > self.said.steps:
                return passed
        return self.heard.made if self._is_news() else None

    def _is_news(self) -> bool:
        heard, said = self.heard, self.said
        if said is None:
            return (heard.steps > 0 and heard.steps_s > 0) or heard.saved_s is not None
        if heard.saved_s != said.saved_s:
            return True
        more, more_s = heard.steps - said.steps, heard.steps_s - said.steps_s
        if more < 1 or more_s <= 0:
            return False
        told, told_s = said.steps - heard.since.steps, said.steps_s - heard.since.steps_s
        if told < 1 or told_s <= 0:
            return True  # nobody was told of any speed at this size
        # The speed of late, not the mean: that of a long run hardly changes any more.
        return abs(more / more_s / (told / told_s) - 1.0) > _OTHER_SPEED


class Listening:
    """An engine, and what its attempts tell. ``root`` is where their files are: see ``Site``."""

    def __init__(self, engine: Engine, root: Path, clock: Clock) -> None:
        self.name = engine.name
        self._engine = engine
        self._root = root
        self._now_s = clock
        self._ears: dict[tuple[str, int], _Ear] = {}
        self._report: Report | None = None
        self._looking: asyncio.Task[None] | None = None

    async def open(self, report: Report) -> Sequence[Node]:
        """Open the engine, and begin to listen."""
        self._report = report
        nodes = await self._engine.open(self._pass_on)
        self._looking = asyncio.create_task(self._look_again_and_again())
        return nodes

    def start(self, command: Start, job: Job) -> None:
        """Have the attempt started, and listen to it."""
        key = (command.job_id, command.epoch)
        if key not in self._ears:
            folder = attempt_folder(self._root, *key)
            self._ears[key] = _Ear(ProgressReader(folder.progress, only="rank-0.jsonl"))
        self._engine.start(command, job)

    def stop(self, command: Stop) -> None:
        """Have the attempt stopped."""
        self._engine.stop(command)

    async def close(self) -> None:
        """Listen no more, and close the engine."""
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None
        await self._engine.close()

    def _pass_on(self, event: Event) -> None:
        if isinstance(event, AttemptEnded):
            self._ears.pop((event.job_id, event.epoch), None)
        assert self._report is not None
        self._report(event)

    async def _look_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except Exception:
                # Without it decisions are worse informed, and no more than that.
                _log.exception("cannot listen to the attempts; trying again")

    async def look(self) -> None:
        """Look at all attempts once, and report what is new."""
        now_s = self._now_s()
        due = [(key, ear) for key, ear in self._ears.items() if ear.is_due(now_s)]
        due.sort(key=lambda pair: 0.0 if pair[1].said is None else pair[1].said.at_s)
        for event in await asyncio.to_thread(_listen, due, now_s):
            if (event.job_id, event.epoch) in self._ears and self._report is not None:
                self._report(event)


def _listen(due: Sequence[tuple[tuple[str, int], _Ear]], now_s: float) -> list[AttemptProgressed]:
    events: list[AttemptProgressed] = []
    for (job_id, epoch), ear in due:
        if len(events) == _MOST_IN_A_LOOK:
            break
        if (event := ear.listen(now_s, job_id, epoch)) is not None:
            events.append(event)
    return events
