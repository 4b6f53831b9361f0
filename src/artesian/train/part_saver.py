"""``PartSaver``: brings a rank's parts of sharded saves to storage, in the background.

All ranks write their parts of one save at a time; who has written all of his waits for the others. A save that is due
meanwhile waits with its snapshot held in memory, which nothing overwrites: a newer one takes its place, so at most two
are held, and training is held up by the copy alone. What is due, begun and given up follows from what the
ranks have voted, so that it is the same on all of them.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from artesian.train.persist import Persister, Report
from artesian.train.segment import Hold, Snapshot

OnReport = Callable[[Report], object]


class PartSaver:
    """One rank's. ``begin``, ``go_on`` and ``drain`` are called by all ranks at the same steps."""

    def __init__(self, settings: Mapping[str, Any], on_report: OnReport) -> None:
        """``settings`` are of ``in_parts``. ``on_report`` is called from other threads, too."""
        self._on_report = on_report
        self._lock = threading.Lock()
        self._next_step: int | None = None
        """Due, and not begun yet."""
        self._next: Hold | None = None
        """Its snapshot, once that is whole."""
        self._is_begun = False
        """Whether the next is only waiting for its snapshot to be whole."""
        self._is_spoiled = False
        """Whether there will be no snapshot of the next."""
        self._active: Hold | None = None
        self._active_step: int | None = None
        self.failed_step = 0
        """The save of which this rank could not write its part; 0: none."""
        self._persister = Persister(settings, newest=lambda: None, on_report=self._reported)

    @property
    def is_busy(self) -> bool:
        """Whether this rank's part is being written, or rank 0's helper waits for the others'."""
        with self._lock:
            return self._is_begun or self._active is not None

    def want(self, step: int) -> None:
        """Have the snapshot of ``step``, which is about to be taken, brought to storage."""
        with self._lock:
            replaced, self._next_step = self._next_step, step
            if (
                self._is_begun and replaced is not None
            ):  # its snapshot has not come; the others may be writing theirs
                self.failed_step, self._is_begun = replaced, False
            self._is_spoiled = False
            if self._next is not None:
                self._next.let_go()
                self._next = None
        if replaced is not None:
            self._on_report(Report(step=replaced, replaced_by=step))

    def committed(self, snapshot: Snapshot) -> None:
        """Take a snapshot that is whole now, if it is the one that is wanted. From any thread."""
        with self._lock:
            if snapshot.step != self._next_step or self._next is not None:
                return
            self._next = Hold(snapshot)
            if self._is_begun:
                self._write()

    def spoiled(self, step: int) -> None:
        """Say that there will be no snapshot of ``step``."""
        with self._lock:
            if step == self._next_step and self._next is None:
                self._is_spoiled = True
                if self._is_begun:
                    self._fail()

    def go_on(self, *, is_anybody_busy: bool, failed_step: int) -> None:
        """Begin the save that waits, when nobody is busy any more; give up one that somebody could not write."""
        with self._lock:
            if failed_step and failed_step == self._active_step and self._active is not None:
                self._persister.give_up(failed_step)
            if is_anybody_busy:
                return
            if self._next_step is not None:
                self.failed_step = 0
                self._is_begun = True
                if self._next is not None:
                    self._write()
                elif self._is_spoiled:
                    self._fail()

    def forget(self, by: int) -> None:
        """Forget the save that waits: that of step ``by`` takes its place, or the run has gone back to there."""
        with self._lock:
            if self._next is not None:
                self._next.let_go()
            if self._is_begun and self._next_step is not None:  # the others may have begun to write theirs
                self.failed_step = self._next_step
            replaced, self._next_step, self._next, self._is_begun = self._next_step, None, None, False
        if replaced is not None:
            self._on_report(Report(step=replaced, replaced_by=by))

    def drain(self, by: int, gathered: Callable[[int], list[int]], *, is_first: bool) -> None:
        """Finish the save that was begun, and ``forget`` the one that waits.

        ``gathered`` gives what all ranks say, once they have written their parts: the save that one of them could not.
        """
        self.forget(by)
        if not is_first:
            self._persister.drain()
        failed = gathered(self.failed_step)
        if is_first:
            with self._lock:
                active = self._active_step if self._active is not None else None
            if active is not None and active in failed:
                self._persister.give_up(active)
            self._persister.drain()

    def close(self) -> None:
        """End the helper. One that is busy goes on on its own: after an error the others' parts may never come."""
        if self.is_busy:
            self._persister.detach()
        else:
            self._persister.close()
        with self._lock:
            if self._next is not None:
                self._next.let_go()
                self._next = None

    def _fail(self) -> None:
        """Have no part in the save that is begun. Not before it is: what has failed is the save that others write."""
        assert self._next_step is not None
        self.failed_step = self._next_step
        self._next_step, self._is_begun, self._is_spoiled = None, False, False

    def _write(self) -> None:
        assert self._next is not None
        hold, self._next = self._next, None
        self._active, self._active_step = hold, hold.snapshot.step
        self._next_step, self._is_begun = None, False
        self._persister.persist(hold.snapshot)

    def _reported(self, report: Report) -> None:
        with self._lock:
            hold, self._active = self._active, None
            if report.failure is not None:
                self.failed_step = report.step
        if hold is not None:
            hold.let_go()
        self._on_report(report)
