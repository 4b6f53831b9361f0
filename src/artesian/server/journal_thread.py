"""The thread that owns the journal: it commits what many requests append in one transaction, and reads.

A commit reaches the disk before it is acknowledged, which takes milliseconds; a hundred requests that wait
for one commit wait no longer than one does. The event loop's thread meanwhile serves.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

from artesian.kernel.state import Record, State
from artesian.store import Journal, StoreError, StoreUnavailable, UnstorableRecord

_PAGE = 100
"""Records handed to the event loop at once: some two milliseconds of its time."""
_LOOK_S = 0.05
"""Between two looks for what other processes have appended."""
_MOST_AT_ONCE = 5_000
_RETRY_S = 0.5

_log = logging.getLogger(__name__)

Page = Sequence[tuple[int, Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """An append that is durable and handed over: the number of its last record, and, by ``time.perf_counter``,
    when its transaction was begun with, when it could write, and when it was on the disk."""

    seq: int
    begun_s: float
    locked_s: float
    committed_s: float


@dataclass(slots=True)
class _Append:
    records: Sequence[Record]
    done: Future[Appended]


@dataclass(slots=True)
class _Read:
    after: int
    most: int
    done: Future[Page] = field(default_factory=Future)


class JournalThread(threading.Thread):
    """Owns a journal. ``loaded`` gets the state, once; ``deliver`` every record behind it, in order.

    Both are called on this thread. ``deliver`` may block, which holds the thread back.
    """

    def __init__(
        self,
        open_journal: Callable[[], Journal],
        *,
        loaded: Callable[[State, int], None],
        deliver: Callable[[Page], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        super().__init__(name="journal", daemon=True)
        self._open = open_journal
        self._loaded, self._deliver, self._failed = loaded, deliver, failed
        self._requests: queue.SimpleQueue[_Append | _Read | None] = queue.SimpleQueue()
        self._seq = 0
        self.waiting = 0
        """Records that wait to be committed; written on the event loop's thread only."""

    # -- for the event loop's thread ----------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> Future[Appended]:
        """Have the records appended, all or none."""
        request = _Append(records, Future())
        self._requests.put(request)
        return request.done

    def read(self, *, after: int, most: int) -> Future[Page]:
        """Read what is behind record ``after``."""
        request = _Read(after, most)
        self._requests.put(request)
        return request.done

    def stop(self) -> None:
        """End after what was asked for so far."""
        self._requests.put(None)

    # -- on this thread -----------------------------------------------------------------------------

    def run(self) -> None:
        """Load the state, then serve requests and look for news until told to stop."""
        try:
            journal = self._open()
        except Exception as error:
            self._failed(error)
            return
        try:
            state, self._seq = journal.load()
            self._loaded(state, self._seq)
            del state  # the event loop's, from now on
            while self._serve(journal, self._collect()):
                pass
        except Exception as error:
            _log.exception("the journal's thread ends")
            self._failed(error)
        finally:
            journal.close()
            self._refuse_rest()

    def _collect(self) -> list[_Append | _Read | None]:
        """Return what was asked for, at least after the time of a look."""
        requests: list[_Append | _Read | None] = []
        try:
            requests.append(self._requests.get(timeout=_LOOK_S))
            while len(requests) < _MOST_AT_ONCE:
                requests.append(self._requests.get_nowait())
        except queue.Empty:
            pass
        return requests

    def _serve(self, journal: Journal, requests: list[_Append | _Read | None]) -> bool:
        wanted = [r for r in requests if r is not None and r.done.set_running_or_notify_cancel()]
        appends = [request for request in wanted if isinstance(request, _Append)]
        if appends:
            self._append(journal, appends)
        else:
            self._look(journal)
        for request in wanted:
            if isinstance(request, _Read):
                self._answer(journal, request)
        return None not in requests

    def _append(self, journal: Journal, appends: list[_Append]) -> None:
        """Commit all of them in one transaction, and hand over what is then new."""
        fresh: list[tuple[int, Record]] = []
        begun_s = time.perf_counter()
        try:
            with journal.transaction() as transaction:
                locked_s = time.perf_counter()
                ends = [transaction.append(request.records) for request in appends]
                fresh = transaction.read(after=self._seq)
        except UnstorableRecord as error:
            if len(appends) == 1:
                appends[0].done.set_exception(error)
                return
            for request in appends:  # one of them is to blame, the others are not to suffer
                self._append(journal, [request])
            return
        except StoreError as error:
            for request in appends:
                request.done.set_exception(error)
            return
        committed_s = time.perf_counter()
        self._hand_over(fresh)
        for request, seq in zip(appends, ends, strict=True):
            request.done.set_result(
                Appended(seq=seq, begun_s=begun_s, locked_s=locked_s, committed_s=committed_s)
            )

    def _look(self, journal: Journal) -> None:
        """Hand over what others have appended."""
        try:
            if journal.last_seq > self._seq:
                self._hand_over(list(islice(journal.read(after=self._seq), _MOST_AT_ONCE)))
        except StoreUnavailable as error:
            _log.warning("%s; looking again", error)
            time.sleep(_RETRY_S)

    def _hand_over(self, fresh: Page) -> None:
        for start in range(0, len(fresh), _PAGE):
            self._deliver(fresh[start : start + _PAGE])
        if fresh:
            self._seq = fresh[-1][0]

    def _answer(self, journal: Journal, request: _Read) -> None:
        try:
            request.done.set_result(list(islice(journal.read(after=request.after), request.most)))
        except (StoreError, ValueError) as error:
            request.done.set_exception(error)

    def _refuse_rest(self) -> None:
        while True:
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return
            if request is not None and request.done.set_running_or_notify_cancel():
                request.done.set_exception(StoreUnavailable("the journal is closed", hint="try again"))
