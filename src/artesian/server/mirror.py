"""The state as the server shows it: kept current record by record, never replayed for a request.

All of it happens on the event loop's thread: between two awaits a reader sees one consistent moment.
"""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import Record, State
from artesian.kernel.told import moves_view
from artesian.model.errors import ArtesianError
from artesian.model.plan import Plan, Reason
from artesian.model.quota import Teams
from artesian.model.views import MovesView
from artesian.policy.base import Policy
from artesian.policy.outlook import Outlook
from artesian.server.board import Board
from artesian.server.journal_thread import JournalThread, Page
from artesian.server.memory import give_back_memory
from artesian.store import Journal, StoreUnavailable

MOST_UNCOMMITTED = 20_000
"""Records that may wait to be committed before more are refused."""
_MOST_LOOKED_AHEAD = 500
"""Jobs up to which an outlook takes tens of milliseconds; with 110,000 it takes six seconds."""
_FREEZE_EVERY = 20_000
"""Records after which what there is is left out of later collections, and what they took beside it is given back."""

STAGES = ("queue", "lock", "commit", "apply")
"""What an append waits for: the commit before it, other processes that write, the disk, and the event loop."""

_log = logging.getLogger(__name__)


class QueueFull(ArtesianError):  # noqa: N818 - reads as what it is
    """More is being submitted than can be written down."""


class Mirror:
    """State and board behind record ``seq``; ``append`` adds records, and returns when the state has them."""

    def __init__(
        self,
        open_journal: Callable[[], Journal],
        policy: Policy,
        *,
        wake: Callable[[], object],
        teams: Teams | None = None,
    ) -> None:
        self.on_plan: Callable[[float], object] = lambda _: None
        """Gets the seconds from the latest event that a plan knew of to when the plan is here."""
        self.on_append: Callable[[Mapping[str, float]], object] = lambda _: None
        """Gets how many seconds an append spent in each of its stages: see ``STAGES``."""
        self._open_journal = open_journal
        self._policy = policy
        self._teams = teams
        self._wake = wake
        self._thread: JournalThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: asyncio.Future[None] | None = None
        self._room = threading.Semaphore(4)
        """Pages on their way to the event loop: more would make it deaf to requests."""
        self._changed = asyncio.Event()
        self._applied = 0
        self.failure: BaseException | None = None
        """Why the journal is not followed any more."""
        self.seq = 0
        self.latest_s = 0.0
        """When the last record was applied, by ``time.time``."""
        self._set_state(State(), 0)

    def _set_state(self, state: State, seq: int) -> None:
        self.state, self.seq = state, seq
        self.board = Board(state)
        self._scheduler = Scheduler(self._policy, state)

    async def open(self) -> None:
        """Load the state, and follow the journal from now on. Raises StoreError."""
        self._loop = asyncio.get_running_loop()
        self._opened = self._loop.create_future()
        self._thread = JournalThread(
            self._open_journal, loaded=self._on_loaded, deliver=self._on_page, failed=self._on_failure
        )
        self._thread.start()
        await self._opened

    async def close(self) -> None:
        """Commit what was asked for, and let go of the journal."""
        if self._thread is not None:
            self._thread.stop()
            await asyncio.to_thread(self._thread.join)

    # -- asking -------------------------------------------------------------------------------------

    def why(self, record: JobRecord) -> Reason | None:
        """Return why the job waits, in words; None where it does not, or would start in the next cycle."""
        if not self.state.nodes:
            return None  # nobody has taken stock of the nodes yet, let alone decided anything
        return self._scheduler.why(record.job.id)

    def outlook(self, record: JobRecord) -> Outlook | None:
        """Return when the job is likely to start, and what would let it start now; None where it is not queued.

        None as well where so many wait that looking ahead would keep other requests waiting.
        """
        is_short = len(self.state.waiting) + len(self.state.running) <= _MOST_LOOKED_AHEAD
        return self._scheduler.outlook(record.job.id, self._teams) if self.state.nodes and is_short else None

    def moves(self) -> MovesView:
        """Return the moves of running jobs with which waiting ones can start."""
        return moves_view(self._scheduler if self.state.nodes else None, time.time())

    async def beyond(self, seq: int) -> None:
        """Wait until the state has a record behind ``seq``."""
        while self.seq <= seq:
            await self._changed.wait()

    async def read(self, *, after: int, most: int) -> Page:
        """Return records of the journal behind ``after``. Raises StoreError, ValueError."""
        return await asyncio.wrap_future(self._running().read(after=after, most=most))

    # -- changing -----------------------------------------------------------------------------------

    async def append(self, records: Sequence[Record]) -> int:
        """Append records, all or none; returns when they are durable and the state has them.

        Raises QueueFull, StoreError.
        """
        thread = self._running()
        if thread.waiting + len(records) > MOST_UNCOMMITTED:
            raise QueueFull(
                f"submits: expected at most {MOST_UNCOMMITTED} records under way, got more",
                hint="submit again a little later",
            )
        thread.waiting += len(records)
        asked_s = time.perf_counter()
        try:
            done = await asyncio.wrap_future(thread.append(records))
        finally:
            thread.waiting -= len(records)
        self._wake()
        await self.beyond(done.seq - 1)
        times = (asked_s, done.begun_s, done.locked_s, done.committed_s, time.perf_counter())
        self.on_append(
            {name: until - since for name, (since, until) in zip(STAGES, pairwise(times), strict=True)}
        )
        return done.seq

    @property
    def uncommitted(self) -> int:
        """Records that wait to be committed."""
        return 0 if self._thread is None else self._thread.waiting

    def _running(self) -> JournalThread:
        if self._thread is None or self.failure is not None:
            raise StoreUnavailable(
                f"the journal cannot be used: {self.failure or 'it is not open'}", hint="see the server's log"
            )
        return self._thread

    # -- on the journal's thread --------------------------------------------------------------------

    def _on_loaded(self, state: State, seq: int) -> None:
        self._call(self._begin, state, seq)

    def _on_page(self, page: Page) -> None:
        self._room.acquire()
        self._call(self._apply, page)

    def _on_failure(self, error: BaseException) -> None:
        self._call(self._fail, error)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(function, *arguments)

    # -- on the event loop's ------------------------------------------------------------------------

    def _begin(self, state: State, seq: int) -> None:
        self._set_state(state, seq)
        waiting = next(iter(state.waiting), None)
        if waiting is not None and state.nodes:
            self._scheduler.why(waiting)  # builds the policy's index now, not in the first request
        # What was loaded lives for long. Left to the collector, each full collection would walk through
        # a million objects, and stand still for a second.
        gc.collect()
        gc.freeze()
        give_back_memory()  # what loading took beside the state itself
        assert self._opened is not None
        self._opened.set_result(None)

    def _apply(self, page: Page) -> None:
        try:
            for seq, record in page:
                self.state.apply(record)
                self.board.took(record)
                self.seq = seq
                if isinstance(record, Plan):
                    self.on_plan(max(0.0, time.time() - record.at_s))
        except Exception as error:
            _log.exception("record %d cannot be applied", self.seq + 1)
            self._fail(error)
        finally:
            self._room.release()
        self.latest_s = time.time()
        self._applied += len(page)
        if self._applied >= _FREEZE_EVERY:
            self._applied = 0
            gc.freeze()
            give_back_memory()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(error)
