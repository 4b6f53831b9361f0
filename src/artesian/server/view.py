"""The state as a server shows it: replayed once, kept up to date record by record.

One process holds one state. While it follows, ``refresh`` applies what others appended; while it leads,
the driver changes the same state in its steps and says so with ``advanced``. All of it happens on one
thread, the event loop's: between two awaits a reader sees one consistent moment.
"""

import asyncio
import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice

from artesian.kernel.state import State
from artesian.store import Journal

_PAGE = 250
"""Records applied in one go: some ten milliseconds, so that a request is not kept waiting for long."""


class StateView:
    """The state after record ``seq`` of a journal. Make one with ``StateView.open``.

    ::

        view = StateView.open(journal)
        jobs = view.state().jobs                    # no I/O: as of record view.seq
        seq = journal.append([JobSubmitted(...)])   # by this process or another
        await view.reached(seq)                     # now view.state() has it

    ``refresh`` is called by whoever hears the journal's bell (``Replica`` does).
    """

    def __init__(self, journal: Journal, state: State, seq: int) -> None:
        self._journal = journal
        self._state, self._seq = state, seq
        self._is_whole = True
        self._is_lent = False
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()

    @classmethod
    def open(cls, journal: Journal) -> "StateView":
        """Return the view of what the journal has now. Raises StoreError."""
        view = cls(journal, State(), 0)
        view._load()
        return view

    @property
    def seq(self) -> int:
        """Number of the last record that ``state`` has."""
        return self._seq

    @property
    def is_lent(self) -> bool:
        """Whether a driver of this process changes the state, rather than ``refresh``."""
        return self._is_lent

    def state(self) -> State:
        """Return the state, for reading, until the next await. It is one object, changed in place."""
        return self._state

    async def reached(self, seq: int) -> None:
        """Wait until the state has record ``seq``. Cancel it, or use a timeout, to give up."""
        if seq <= self._seq:
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (seq, next(self._tickets), future))
        await future

    def refresh(self, most: int = _PAGE) -> bool:
        """Apply up to ``most`` records that are new; return whether there may be more. Raises StoreError.

        Does nothing while the state is lent.
        """
        if self._is_lent:
            return False
        if not self._is_whole:
            self._load()
        applied = 0
        with self._changing():
            for seq, record in islice(self._journal.read(after=self._seq), most):
                self._state.apply(record)
                self._seq = seq
                applied += 1
        self._wake()
        return applied == most

    # -- for whoever drives -------------------------------------------------------------------------

    def lend(self) -> State:
        """Give the state to a driver of this process, which changes it from now on, and says so."""
        assert self._is_whole, "refresh first"
        assert not self._is_lent
        self._is_lent = True
        return self._state

    def advanced(self, seq: int) -> None:
        """The driver's state now has record ``seq``, committed."""
        assert self._is_lent
        self._seq = seq
        self._wake()

    def take_back(self, *, is_whole: bool) -> None:
        """The driver is gone. Unless it ended in order, what it decided last may not be committed.

        Then the next ``refresh`` loads the state anew.
        """
        self._is_lent, self._is_whole = False, is_whole

    # -- inside -------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._state = State()  # let the old one go first: two would not fit
        self._state, self._seq = self._journal.load()
        self._is_whole = True
        self._wake()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A record that was applied by half, at a Ctrl-C say, leaves a state that is loaded anew."""
        self._is_whole = False
        yield
        self._is_whole = True

    def _wake(self) -> None:
        while self._waiters and self._waiters[0][0] <= self._seq:
            _, _, future = heapq.heappop(self._waiters)
            if not future.done():
                future.set_result(None)
