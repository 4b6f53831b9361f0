"""A gang's saves: what each rank's ``Saver`` does, agreed on by all ranks, and told.

Every rank keeps its own state in its node's memory, after every step; rank 0 brings it to storage when that is
due. Back comes the newest that any rank has.
"""

import contextlib
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from artesian.train.agreement import newest_of_all
from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.membership import Membership
from artesian.train.persist import Report
from artesian.train.reporter import Reporter, say
from artesian.train.restorable import Restorable
from artesian.train.saver import Restored, Saver
from artesian.train.vote import Vote
from artesian.wire.messages import Phase

_STALL_S = 1e-4
_REFUSED, _NOT_NOW, _SAVED = 0, 1, 2
"""How a save ended, for all ranks: the worst counts. ``_REFUSED`` is for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a run stands: committed steps, samples that the job has consumed, and the state of its data (None:
    the samples say it all)."""

    step: int
    samples: int
    data: Mapping[str, Any] | None = None


class Saves:
    """All ranks call the same methods in the same order."""

    def __init__(
        self,
        saver: Saver | None,
        reports: deque[Report],
        what: Restorable,
        member: Membership,
        reporter: Reporter,
        *,
        has_storage: bool,
    ) -> None:
        """``saver`` is this rank's own, which adds to ``reports``; ``has_storage``: rank 0's saves durably."""
        self._saver = saver
        self._what = what
        self._member = member
        self._reporter = reporter
        self._has_storage = has_storage
        self._all_saved = None if member.control is None else Vote(member.control, dist.ReduceOp.MIN)
        self._saved_step: int | None = None
        self._reports = reports
        self._data: Mapping[str, Any] | None = None
        self.failed = 0
        """Saves that failed: training goes on, as what was saved before is intact."""

    def restore(self) -> Position | None:
        """Bring back the newest state that any rank has; None where there is none.

        Raises CheckpointError when there are checkpoints but none is whole.
        """
        start_s = self._reporter.end_start_up()
        return self._brought_back(start_s, lambda saver: saver.restore())

    def go_back(self, step: int) -> Position | None:
        """Bring back the newest state of ``step`` or before that any rank has; None where there is none.

        Raises CheckpointError as ``restore`` does.
        """
        start_s = self._reporter.now_s()
        self._saved_step = None  # a step of that number may come again, and be another
        return self._brought_back(start_s, lambda saver: saver.restore_at_most(step))

    def forget_later(self, at: Position) -> None:
        """Have no successor go on from what was saved after ``at``, which ``go_back`` has brought back.

        ``at.data`` may know more than what was saved there: the samples that are passed over from now on.
        """
        if self._saver is None:
            return
        self._data = at.data
        self._saver.forget_later(
            at.step, self._state, position=at.samples, world_size=self._member.world_size
        )
        self._tell_reports()

    def _brought_back(self, start_s: float, restored: Callable[[Saver], Restored | None]) -> Position | None:
        """Take the newest that any rank has; what this one cannot read ends the run only where the others have nothing."""
        own, failure = None, None
        try:
            own = None if self._saver is None else restored(self._saver)
        except SupersededError:
            raise
        except CheckpointError as error:
            failure = error
        for rejected in own.rejected if own else ():
            say(f"{rejected.path} is not whole, going back to an older one: {rejected.reason}")
        found = self._take(own)
        if failure is not None:
            if found is None:
                raise failure
            say(f"{failure}; going on from step {found.step}, which another rank has in memory")
        if found is not None:
            self._reporter.restored(found.step, start_s)
        return found

    def _take(self, own: Restored | None) -> Position | None:
        found, is_own = newest_of_all(own, self._member)
        if found is None:
            return None
        # Storage has the generators of rank 0; what memory has is each rank's own.
        is_own = is_own and (found.layer == "memory" or self._member.rank == 0)
        self._what.load(dict(found.state), is_own=is_own)
        return Position(step=found.step, samples=found.position, data=found.state.get("data"))

    def settle(self) -> None:
        """Return when the state may change. To be called before the optimizer's step."""
        if self._saver is not None:
            self._saver.wait()

    def begin(self, at: Position) -> None:
        """Save the state after a step, to memory and, where that is due, to storage: beside the next step."""
        if self._saver is None:
            return
        self._data = at.data
        start_s = self._reporter.now_s()
        self._saver.begin(at.step, self._state, position=at.samples, world_size=self._member.world_size)
        end_s = self._reporter.now_s()
        if end_s - start_s > _STALL_S:
            self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, end_s)
        self._tell_reports()

    def save_now(self, at: Position) -> None:
        """Save to storage, durably, before this returns on any rank. Raises CheckpointError on all where it fails."""
        if not self._has_storage or self._saved_step == at.step or not at.step:
            return
        self._data = at.data
        start_s = self._reporter.now_s()
        failure: CheckpointError | None = None
        if self._member.rank == 0 and self._saver is not None:
            try:
                self._saver.save_now(
                    at.step, self._state, position=at.samples, world_size=self._member.world_size
                )
            except CheckpointError as error:
                failure = error
                # The others fail as soon as they know, and this process may be ended before its traceback.
                with contextlib.suppress(OSError):  # a log on the same disk
                    sys.stderr.write(f"rank 0: {error}\n")
                    sys.stderr.flush()
        outcome = _SAVED if failure is None else _REFUSED if failure.is_final else _NOT_NOW
        if self._all_saved is not None:
            (outcome,) = self._all_saved.hold(outcome)
        self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, self._reporter.now_s())
        self._tell_reports()
        if outcome == _SAVED:
            self._saved_step = at.step
            return
        self.failed += 1
        raise failure or CheckpointError(
            f"rank 0 could not save the checkpoint of step {at.step}: its output says why",
            is_final=outcome == _REFUSED,
        )

    def close(self, *, keep: bool) -> None:
        """Finish what was begun; ``keep``: leave the node's memory to a successor of this process."""
        if self._saver is not None:
            self._saver.close(keep=keep)
            self._tell_reports()

    def _state(self) -> Mapping[str, Any]:
        return {**self._what.state(), "data": self._data}

    def _tell_reports(self) -> None:
        """Tell what the saver's threads have reported; only this thread writes to the wire."""
        while self._reports:
            report = self._reports.popleft()
            if report.size_bytes is not None:
                self._reporter.checkpoint(report.step, report.size_bytes)
            if report.failure is not None:
                self.failed += 1
            if report.failure is not None and not report.is_superseded:  # which ends the run, and tells why
                say(f"{report.failure}; training goes on ({self.failed} saves failed so far)")
