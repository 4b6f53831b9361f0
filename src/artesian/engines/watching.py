"""What engines have in common that leave attempts to somebody else's scheduler, and watch them from afar.

Commands are tried again, later and later, until they are answered; one loop looks at the attempts' files often,
and asks the scheduler when it is time, one question for all attempts. While nobody answers nothing is concluded from
the silence: attempts are held as they were last seen, and only their files tell of them.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from artesian.engines.base import Clock, Report
from artesian.engines.ended import Ended
from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.job import Job, Outcome
from artesian.model.plan import Start, Stop

BACKOFF_S, MOST_BACKOFF_S = 0.5, 30.0
MOST_LOAD = 0.2
"""Share of the time that may go into asking: a scheduler that answers slowly is asked less often."""
ORPHANS_AFTER_S = 15.0
"""When what runs in our name, and no command speaks of, is one too many. A driver repeats its commands at once."""
_CLOSE_WAIT_S = 5.0
_SUBMIT = "submit"

_log = logging.getLogger(__name__)

Key = tuple[str, int]
"""Job and epoch."""


class Unreachable(Exception):  # noqa: N818 - reads as what it is
    """Nobody answers, or can do anything for now: nothing is known, and the same may work later.

    ``hint``: what may help.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class Refused(Exception):  # noqa: N818 - reads as what it is
    """The scheduler says no, and would say it again."""


class Watched(Protocol):
    """An attempt under way, as far as all engines know it."""

    start: Start
    is_started: bool
    stop: Stop | None

    @property
    def key(self) -> Key:
        """Job and epoch."""
        ...


A = TypeVar("A", bound=Watched)


class WatchingEngine(ABC, Generic[A]):
    """Attempts by their keys, the tasks that carry commands out, and the loop that watches.

    ``scheduler`` is what the one behind the engine is called in messages.
    """

    def __init__(self, name: str, root: Path, clock: Clock, *, scheduler: str, look_s: float) -> None:
        self.name = name
        self._root = root
        self._now_s = clock
        self._scheduler = scheduler
        self._look_s = look_s
        self._attempts: dict[Key, A] = {}
        self._ended = Ended()
        self._tasks: set[asyncio.Task[None]] = set()
        self._report: Report | None = None
        self._kick = asyncio.Event()
        self._backoff_s = 0.0
        self._silent_until_s = 0.0

    # -- what an engine adds ------------------------------------------------------------------------

    @abstractmethod
    def _new_attempt(self, command: Start, job: Job) -> A:
        """Return the attempt of a command that was not seen before."""

    @abstractmethod
    async def _bring_up(self, attempt: A) -> bool:
        """Have the scheduler run the attempt, unless it does; whether that is done. Raises Unreachable: again, later."""

    @abstractmethod
    async def _bring_down(self, attempt: A) -> bool:
        """Have the attempt stopped, gently; whether that is done. Raises Unreachable, Refused: again, later."""

    @abstractmethod
    async def _look(self) -> None:
        """See what the files of the attempts say."""

    @abstractmethod
    def _is_due(self) -> bool:
        """Whether it is time to ask."""

    @abstractmethod
    async def _ask(self) -> None:
        """Ask the scheduler about all attempts. Raises Unreachable, Refused."""

    # -- commands -----------------------------------------------------------------------------------

    def start(self, command: Start, job: Job) -> None:
        """Have the attempt run, or find out what became of it."""
        key = (command.job_id, command.epoch)
        if key in self._attempts or key in self._ended:
            return
        attempt = self._attempts[key] = self._new_attempt(command, job)
        self._spawn(self._until_done(attempt, command.id, self._bring_up, Unreachable), name=_SUBMIT)

    def stop(self, command: Stop) -> None:
        """Stop the attempt; one that nothing has begun to run yet will never start."""
        attempt = self._attempts.get((command.job_id, command.epoch))
        if attempt is None or attempt.stop is not None:
            return  # its end is reported already, or under way
        attempt.stop = command
        self._spawn(self._until_done(attempt, command.id, self._bring_down, Unreachable, Refused))

    async def close(self) -> None:
        """Stop watching; attempts run on. A submit under way is let finish."""
        tasks, self._tasks = self._tasks, set()
        submits = [task for task in tasks if task.get_name() == _SUBMIT]
        if submits:
            await asyncio.wait(submits, timeout=_CLOSE_WAIT_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._attempts.clear()

    async def _until_done(
        self, attempt: A, id_: str, act: Callable[[A], Awaitable[bool]], *passing: type[Exception]
    ) -> None:
        """Do it until it is done, or the attempt is over; where one of ``passing`` comes up, later and later."""
        backoff_s = BACKOFF_S
        while attempt.key in self._attempts:
            try:
                if await act(attempt):
                    return
            except passing as error:
                _log.warning("%s: %s; trying again in %g s", id_, error, backoff_s)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, MOST_BACKOFF_S)

    # -- watching -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Begin to watch."""
        self._spawn(self._keep_watching())

    async def _keep_watching(self) -> None:
        while True:
            try:
                await self._look()
                if time.monotonic() >= self._silent_until_s and self._is_due():
                    await self._ask()
                    self._backoff_s = 0.0
            except (Unreachable, Refused) as error:
                self._put_off()
                _log.warning("%s; attempts are held as they were, next try in %g s", error, self._backoff_s)
            except Exception:
                self._put_off()
                _log.exception("watching %s failed", self._scheduler)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_s + len(self._attempts) / 1000):
                    await self._kick.wait()
            self._kick.clear()

    def _put_off(self) -> None:
        self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_S), MOST_BACKOFF_S)
        self._silent_until_s = time.monotonic() + self._backoff_s

    # -- what becomes of an attempt -----------------------------------------------------------------

    def _note_start(self, attempt: A, started_s: float | None) -> None:
        if started_s is not None and not attempt.is_started:
            attempt.is_started = True
            job_id, epoch = attempt.key
            self._say(AttemptStarted(at_s=started_s, job_id=job_id, epoch=epoch))

    def _end(self, attempt: A, outcome: Outcome, at_s: float | None = None) -> None:
        job_id, epoch = attempt.key
        del self._attempts[attempt.key]
        self._ended.add(attempt.key)
        at_s = self._now_s() if at_s is None else at_s
        self._say(AttemptEnded(at_s=at_s, job_id=job_id, epoch=epoch, outcome=outcome))

    def _say(self, event: Event) -> None:
        assert self._report is not None
        self._report(event)

    def _spawn(self, work: Coroutine[None, None, None], *, name: str | None = None) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
