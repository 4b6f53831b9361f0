"""Saves of a gang whose state is sharded (FSDP2): each rank has a part that no other has.

So all ranks must go back to the same step, each with its own part of it. A snapshot is begun by all of them at the
same step, and the next one not before this one is at home everywhere: in the rank's own memory, and in that of the
node after its own, whose holder gets a copy. Two snapshots are kept, so that one of them is whole on all ranks
whenever a node is lost. To storage each rank's helper brings its part of a snapshot, beside the training (``PartSaver``),
and any number of ranks can read them.
"""

import secrets
import time
from collections import deque
from typing import NamedTuple

import torch.distributed as dist

from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.last_save import leave_note
from artesian.train.membership import Membership
from artesian.train.memory import Memory
from artesian.train.part_saver import PartSaver
from artesian.train.peer import Peer
from artesian.train.persist import Persister, Report, failures_told
from artesian.train.persist_process import in_parts, to_peer, to_storage
from artesian.train.reporter import Reporter, say
from artesian.train.restorable import Restorable
from artesian.train.saves import Position
from artesian.train.segment import JobFolder, Snapshot, sweep
from artesian.train.sharded import ShardedCheckpointer
from artesian.train.sharded_back import Places, WayBack
from artesian.train.shards import ShardTable, local_shards
from artesian.train.snapshot_pace import SnapshotPace
from artesian.train.storage import remove_later
from artesian.train.vote import Vote
from artesian.wire.messages import Phase

_STALL_S = 1e-4


class _Votes(NamedTuple):
    """What each rank says after a step; of all ranks, the greatest counts."""

    is_memory_due: int = 0
    is_storage_due: int = 0
    is_sending: int = 0
    is_storing: int = 0
    failed_step: int = 0
    has_no_memory: int = 0


class ShardedSaves:
    """What ``Saves`` is for replicated state. All ranks call the same methods in the same order."""

    def __init__(self, places: Places, what: Restorable, member: Membership, reporter: Reporter) -> None:
        """Raises CheckpointError when the rank's memory belongs to another process, ValueError for a place that others
        do not see."""
        if str(places.folder).startswith("memory://") and member.world_size > 1:
            raise ValueError(
                f"sharded state is saved to a place that all ranks see, which memory is not, got {places.folder}"
            )
        self._places = places
        self._what = what
        self._table = ShardTable(what.model, what.optimizer)
        self._member = member
        self._reporter = reporter
        self._storage = (
            None
            if places.folder is None
            else ShardedCheckpointer(
                places.folder,
                keep_last=places.keep_last,
                keep_every=places.keep_every,
                group=member.control,
                environ=places.environ,
            )
        )
        self._votes = None if member.control is None else Vote(member.control, dist.ReduceOp.MAX, 6)
        self._own_votes = _Votes()
        self._reports: deque[Report] = deque()
        self._refused: Report | None = None
        """The save that was refused for good, as a later attempt has come."""
        self._job: JobFolder | None = None
        self._memory: Memory | None = None
        self._sender: Persister | None = None
        self._parts: PartSaver | None = None
        self._is_sending = False
        self._pace = SnapshotPace()
        self._begun_s: float | None = None
        self._last_saved = (0, time.monotonic())
        self._is_storage_due = False
        self._saved_step: int | None = None
        self._snapshots = 0
        self._snapshot_step = 0
        self._run = ""
        """A name that no other run of this job has; the same on all ranks."""
        self.failed = 0
        """Saves that failed: training goes on, as what was saved before is intact."""
        if places.memory is not None:
            self._job = JobFolder(places.memory)
            sweep()
            buffers = 2 + (places.folder is not None)
            self._memory = Memory(self._job, member.local_rank, buffers=buffers, on_commit=self._committed)
        self._back = WayBack(places, what, member, self._storage, self._job)

    # -- back -----------------------------------------------------------------------------------------

    def restore(self) -> Position | None:
        """Bring back the newest state that all ranks have a part of; None where there is none.

        From now on earlier attempts of the job save nothing to the same place. Raises CheckpointError when there are
        checkpoints but none is whole, SupersededError when a later attempt has come.
        """
        start_s = self._reporter.end_start_up()
        self._claim()
        self._run = str(self._back.gathered(secrets.token_hex(6))[0])
        self._back.meet_peers()
        found = self._back.find(None, self._memory)
        self._saved_step = self._back.saved_step
        self._start_helpers(self._back.peer)
        if found is not None:
            self._reporter.restored(found.step, start_s)
        self._vote(0 if found is None else found.step)
        return found

    def _claim(self) -> None:
        try:
            if self._storage is not None:
                self._storage.claim()
        except SupersededError:
            raise
        except CheckpointError as error:  # as for a save that fails; the next one claims it
            if self._member.rank == 0:
                self._reports.append(Report(step=0, failure=str(error), hint=error.hint))

    def _start_helpers(self, peer: Peer | None) -> None:
        if self._memory is None:
            return
        if peer is not None:
            self._sender = Persister(
                to_peer(peer, self._back.key),
                newest=lambda: None if self._memory is None else self._memory.newest,
                on_report=self._sent,
            )
        if self._places.folder is not None and self._storage is not None:
            settings = in_parts(
                to_storage(
                    self._places.folder,
                    keep_last=self._places.keep_last,
                    keep_every=self._places.keep_every,
                    writer=self._storage.storage.writer,
                )
            )
            if self._job is not None:
                leave_note(self._job, settings)
            self._parts = PartSaver(settings, self._reports.append)

    def go_back(self, step: int) -> Position | None:
        """Bring back the newest state of ``step`` or before that all ranks have; None where there is none.

        Raises CheckpointError as ``restore`` does.
        """
        start_s = self._reporter.now_s()
        self._saved_step = None  # a step of that number may come again, and be another
        if self._parts is not None:
            self._parts.forget(step)
        found = self._back.find(step, self._memory)
        if found is not None:
            self._reporter.restored(found.step, start_s)
        return found

    def forget_later(self, at: Position) -> None:
        """Have no successor go on from what was saved after ``at``, which ``go_back`` has brought back."""
        self._drain(at.step)  # what was begun may still be committed
        if self._storage is not None and self._member.rank == 0:
            with failures_told(at.step, self._reports.append):
                remove_later(self._storage.storage, at.step)
        self._snapshot(at)  # the step that was saved last is the latest to go back to
        if self._memory is not None:
            self._memory.finish()

    # -- forth ----------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Return when the state may change. To be called before the optimizer's step."""
        if self._memory is None:
            return
        start_s = time.monotonic()
        try:
            self._memory.wait()
        except CheckpointError as error:
            self._is_sending = False  # it is not committed, and goes nowhere
            self._spoiled()
            self._reports.append(Report(step=self._snapshot_step, failure=str(error), hint=error.hint))
        if self._begun_s is not None:
            stall_s = self._begun_s + time.monotonic() - start_s
            self._pace.cost(stall_s)
            if self._places.interval is not None:
                self._places.interval.stalled(stall_s)
            self._begun_s = None

    def begin(self, at: Position) -> None:
        """Save the state after a step, where all ranks have found at the step before that it is due.

        Raises SupersededError where a save was refused, as a later attempt has come.
        """
        start_s = self._reporter.now_s()
        all_say = self._outcome()
        self._is_storage_due |= bool(all_say.is_storage_due) and self._storage is not None
        if self._is_storage_due and all_say.has_no_memory:
            self._save_in_step(at)
        elif (self._is_storage_due or all_say.is_memory_due) and not all_say.is_sending:
            self._snapshot(at)
        if self._parts is not None:
            self._parts.go_on(is_anybody_busy=bool(all_say.is_storing), failed_step=all_say.failed_step)
        end_s = self._reporter.now_s()
        if end_s - start_s > _STALL_S:
            self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, end_s)
        self._tell_reports()
        if self._refused is not None:
            self._refused.raise_superseded()
        self._vote(at.step)

    def _snapshot(self, at: Position) -> None:
        """Take a snapshot, for memory and, where that is due, for storage."""
        if self._memory is None:  # of another rank
            return
        start_s = time.monotonic()
        self._snapshots += 1
        self._snapshot_step = at.step
        if self._is_storage_due:
            self._is_storage_due = False
            self._last_saved = (at.step, start_s)
            if self._parts is not None:
                # A save that is begun has its snapshot first: on other ranks it may be under way. Whoever takes the
                # next snapshot waits for this one anyway.
                self._memory.finish()
                self._parts.want(at.step)
        self._is_sending = self._sender is not None
        self._pace.taken(start_s)
        state = self._what.state()
        meta = {
            "position": at.samples,
            "world_size": self._member.world_size,
            "rank": self._member.rank,
            "key": self._back.key,
            "save": f"{self._run}-{self._snapshots}",
            **self._table.meta(state),
        }
        try:
            self._memory.begin(at.step, {**local_shards(state), "data": at.data}, meta)
        except CheckpointError as error:
            self._reports.append(
                Report(step=at.step, failure=f"{error}; saving to storage only", hint=error.hint)
            )
            self._is_sending = False
            self._spoiled()
            memory, self._memory = self._memory, None
            self._end_sender()
            memory.close()
        self._begun_s = time.monotonic() - start_s

    def _spoiled(self) -> None:
        if self._parts is not None:
            self._parts.spoiled(self._snapshot_step)

    def _committed(self, snapshot: Snapshot) -> None:
        if self._parts is not None:
            self._parts.committed(snapshot)
        if self._sender is not None:
            self._sender.persist(snapshot)

    def _sent(self, report: Report) -> None:
        self._is_sending = False
        if report.failure is not None:
            self._reports.append(report)

    def _vote(self, step: int) -> None:
        """Say what should be done after the next step, in the background."""
        now_s = time.monotonic()
        every, interval = self._places.memory_every, self._places.interval
        if self._memory is None:
            is_memory_due = False
        elif every is not None:
            is_memory_due = (step + 1) % every == 0
        else:
            is_memory_due = self._pace.is_due(now_s)
        last_step, last_s = self._last_saved
        is_storage_due = (
            interval is not None
            and self._member.rank == 0
            and interval.is_due(step + 1, last_step, now_s - last_s)
        )
        self._own_votes = _Votes(
            is_memory_due=int(is_memory_due),
            is_storage_due=int(is_storage_due),
            is_sending=int(self._is_sending),
            is_storing=int(self._parts is not None and self._parts.is_busy),
            failed_step=0 if self._parts is None else self._parts.failed_step,
            has_no_memory=int(self._memory is None),
        )
        if self._votes is not None:
            self._votes.start(*self._own_votes)

    def _outcome(self) -> _Votes:
        if self._votes is None:
            return self._own_votes
        outcome = self._votes.settle()
        return _Votes() if outcome is None else _Votes(*outcome)

    def save_now(self, at: Position) -> None:
        """Save to storage, durably, before this returns on any rank. Raises CheckpointError on all where it fails."""
        self._outcome()
        if self._storage is None or not at.step:
            return
        start_s = self._reporter.now_s()
        self.settle()
        try:
            self._drain(at.step)
            if self._back.gathered(self._saved_step)[0] != at.step:
                self._save(self._storage, at)
        except CheckpointError:
            self.failed += 1
            raise
        finally:
            self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, self._reporter.now_s())
            self._tell_reports()

    def _save_in_step(self, at: Position) -> None:
        """Save while training waits: a rank has no memory to do it from beside the training."""
        assert self._storage is not None
        start_s = self._reporter.now_s()
        self._is_storage_due = False
        with failures_told(at.step, self._reports.append):
            self._drain(at.step)
            self._save(self._storage, at)
        self._last_saved = (at.step, time.monotonic())
        if self._places.interval is not None:
            self._places.interval.stalled(self._reporter.now_s() - start_s)

    def _drain(self, by: int) -> None:
        """Have nothing under way to storage, on any rank."""
        if self._parts is None:
            self._back.gathered(0)
        else:
            if self._memory is not None:
                self._memory.finish()
            self._parts.drain(by, self._back.gathered, is_first=self._member.rank == 0)
        self._tell_reports()

    def _save(self, storage: ShardedCheckpointer, at: Position) -> None:
        state = {**self._what.state(), "data": at.data}
        size_bytes = storage.save_state(at.step, state, self._table, position=at.samples)
        self._saved_step = at.step
        if size_bytes is not None:
            self._reporter.checkpoint(at.step, size_bytes)

    def close(self, *, keep: bool) -> None:
        """Finish what was begun; ``keep``: leave the node's memory to a successor of this process."""
        if self._memory is not None:
            self._memory.finish()
        self._end_sender(waits=not keep)  # the node that it sends to may be the one that was lost
        if self._parts is not None:
            self._parts.close()
            self._parts = None
        if self._memory is not None:
            self._memory.close(keep=keep)
            self._memory = None
        if self._job is not None:
            self._job.leave(keep=keep)
            self._job = None
        self._tell_reports()

    def _end_sender(self, *, waits: bool = True) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close(waits=waits)

    def _tell_reports(self) -> None:
        """Tell what other threads have reported; only this one writes to the wire."""
        while self._reports:
            report = self._reports.popleft()
            if report.failure is not None:
                self.failed += 1
                if report.is_superseded:  # which ends the run, and tells why
                    self._refused = report
                    continue
                say(f"{report.failure}; training goes on ({self.failed} saves failed so far)")
            elif report.size_bytes is not None and self._member.rank == 0:
                self._saved_step = report.step
                self._reporter.checkpoint(report.step, report.size_bytes)
