"""``Saver``: what a run saves with. Memory every step, storage when it is due, one way back to the newest.

::

    saver = Saver("/shared/run", job="run-7", rank=rank)
    found = saver.restore()
    for step in ...:
        loss = forward_and_backward()
        saver.wait()                                    # before anything changes the state
        optimizer.step()
        saver.begin(step, make_state, position=samples)
    saver.save_now(step, make_state, position=samples)
    saver.close()
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artesian.train.checkpoint import Checkpointer, Rejected
from artesian.train.errors import CheckpointError
from artesian.train.fence import Writer
from artesian.train.interval import Interval
from artesian.train.last_save import leave_note
from artesian.train.memory import Memory
from artesian.train.peer import Peer, fetch
from artesian.train.persist import Persister, Report, failures_told
from artesian.train.persist_process import to_peer, to_storage
from artesian.train.segment import SHARED_MEMORY, JobFolder, Snapshot, sweep
from artesian.train.snapshot_pace import SnapshotPace
from artesian.train.storage import remove_later

MakeState = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """The newest whole state that was found, and where. ``rejected`` are checkpoints that were not whole."""

    step: int
    position: int
    state: Mapping[str, Any]
    layer: Literal["memory", "storage"]
    rejected: tuple[Rejected, ...] = ()


class Saver:
    """Saves one rank's state. Failures of saves are reported, and training goes on; but not where a later attempt of
    the job saves to the same place: then the next call of ``begin`` or ``wait`` raises SupersededError."""

    def __init__(
        self,
        where: Path | str | None,
        *,
        job: str | None = None,
        rank: int = 0,
        interval: Interval | None = None,
        memory_every: int | None = 1,
        copy_costs: bool = False,
        keep_last: int = 2,
        keep_every: int | None = None,
        options: Mapping[str, Any] | None = None,
        peer: Peer | None = None,
        shared_memory: Path = SHARED_MEMORY,
        on_report: Callable[[Report], object] | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Save to ``where``, a folder or URL, and to the shared memory of ``job`` on this node; either may be None.

        To memory every ``memory_every`` steps; None: as often as costs at most 2% of the time, by what the
        last snapshots have cost, and ten times a second at most. That is the time that ``begin`` and ``wait`` took; with ``copy_costs``, for
        states on an accelerator, whose next work waits for the copy, it is the copy's. To storage when ``interval`` says so (None: never but by
        ``save_now``). Every snapshot goes to ``peer`` too, the newest next; where this node has none of the
        rank, the peer's is fetched. ``saved_step`` and ``peer_step`` are the newest that arrived. ``on_report`` is called, from any thread, for every save to storage and every failure;
        ``failures`` counts them too. ``environ`` says which attempt of a job this is. What killed jobs of this user left in shared memory is swept.

        Raises CheckpointError when the rank's memory belongs to another process.
        """
        if memory_every is not None and memory_every < 1:
            raise ValueError(f"memory_every must be at least 1, got {memory_every}")
        self.failures = 0
        self.saved_step: int | None = None
        self.peer_step: int | None = None
        self._refused: Report | None = None
        """The save that was refused for good, as a later attempt has come."""
        self._due_steps: set[int] = set()
        self._has_gone_back = False
        self._last = (0, time.monotonic())
        self._stall_s = 0.0
        self._interval = interval
        self._memory_every = memory_every
        self._copy_costs = copy_costs
        self._pace = SnapshotPace()
        self._rank = rank
        self._on_report = on_report
        self._checkpointer = (
            None
            if where is None
            else Checkpointer(
                where, keep_last=keep_last, keep_every=keep_every, options=options, environ=environ
            )
        )
        self._folder: JobFolder | None = None
        self._memory: Memory | None = None
        self._persister: Persister | None = None
        self._sender: Persister | None = None
        if job is not None:
            self._folder = JobFolder(job, base=shared_memory)
            sweep(shared_memory)
            if peer is not None and not self._folder.snapshots(rank):
                self._fetch(peer, rank, self._folder)
            buffers = 2 + (where is not None) + (peer is not None)
            self._memory = Memory(self._folder, rank, buffers=buffers, on_commit=self._committed)
            if where is not None:
                storage = to_storage(
                    where,
                    keep_last=keep_last,
                    keep_every=keep_every,
                    options=options,
                    writer=Writer.from_env(environ),
                )
                leave_note(self._folder, storage)
                self._persister = Persister(storage, newest=self._newest, on_report=self._report)
            if peer is not None:
                self._sender = Persister(
                    to_peer(peer, rank), newest=self._newest, on_report=self._report_of_peer
                )

    @property
    def memory(self) -> Memory | None:
        """The rank's shared memory; None where there is none, or no room for it."""
        return self._memory

    def prepare(self, make_state: MakeState) -> None:
        """Take the shared memory that states like this one need now, and not at the first save."""
        if self._memory is not None:
            try:
                self._memory.prepare(make_state())
            except CheckpointError as error:
                self._give_up_memory(0, error)

    @property
    def memory_step(self) -> int | None:
        """The step of the newest snapshot in memory; None where there is none. For ranks to agree on one."""
        newest = self._newest()
        return None if newest is None else newest.step

    def restore(self) -> Restored | None:
        """Return the newest whole state, of memory or storage; None if there never was one.

        From now on earlier attempts of the job save nothing to the same place. Raises CheckpointError when there are
        checkpoints, but nothing is whole; SupersededError when a later attempt has come.
        """
        self._claim()
        remembered = self.restore_from_memory()
        if remembered is None:
            return self.restore_from_storage()
        try:
            stored = [] if self._checkpointer is None else self._checkpointer.steps()
            if not stored or remembered.step >= stored[-1]:
                return remembered
            found = self.restore_from_storage()
        except CheckpointError as error:
            self._report(Report(step=remembered.step, failure=str(error), hint=error.hint))
            return remembered
        return remembered if found is None or remembered.step >= found.step else found

    def _claim(self) -> None:
        with failures_told(self._last[0], self._report):  # the next save claims it
            if self._checkpointer is not None:
                self._checkpointer.claim()

    def restore_from_memory(self, step: int | None = None) -> Restored | None:
        """Return the newest state in memory, or that of ``step``; None if it is not there.

        The snapshot before the newest is there too, mostly: ranks that were stopped one step apart can
        agree on the lower.
        """
        recalled = None if self._memory is None else self._memory.load(step)
        if recalled is None:
            return None
        found_step = recalled.snapshot.step
        self._last = (found_step, time.monotonic())
        return Restored(
            step=found_step, position=recalled.meta["position"], state=recalled.state, layer="memory"
        )

    def restore_at_most(self, step: int) -> Restored | None:
        """Return the newest state of ``step`` or before, of memory or storage; None if there is none.

        Raises CheckpointError when there are such checkpoints in storage, but none is whole.
        """
        # What is on its way to storage may be of a step that comes again, and is another then.
        self.saved_step, self._has_gone_back = None, True
        if self._memory is not None and self._folder is not None:
            self._memory.finish()
            for snapshot in self._folder.snapshots(self._rank):
                if snapshot.step <= step and (found := self.restore_from_memory(snapshot.step)) is not None:
                    return found
        return self.restore_from_storage(at_most=step)

    def restore_from_storage(self, *, at_most: int | None = None) -> Restored | None:
        """Return the newest whole state in storage; None if there never was one.

        ``at_most``: of those of this step and before only. Raises CheckpointError when there are
        checkpoints, but none is whole.
        """
        checkpoint = None if self._checkpointer is None else self._checkpointer.load_newest(at_most=at_most)
        if checkpoint is None:
            return None
        found = checkpoint.manifest
        self.saved_step = found.step
        self._last = (found.step, time.monotonic())
        return Restored(
            step=found.step,
            position=found.position,
            state=checkpoint.state,
            layer="storage",
            rejected=checkpoint.rejected,
        )

    def forget_later(
        self, step: int, make_state: MakeState, *, position: int = 0, world_size: int = 1
    ) -> None:
        """Have nobody go on from what was saved after ``step``, whose state is back: it is what is newest now.

        Storage first: what is cut off between the two has memory go on from where it stood before. Raises
        SupersededError when a later attempt has come; any other failure is reported.
        """
        if self._memory is not None:
            self._memory.finish()
        if self._persister is not None:
            self._persister.drain()
        if self._checkpointer is not None:
            with failures_told(step, self._report):
                remove_later(self._checkpointer.storage, step)
        if self._memory is not None:
            self._due_steps.clear()
            meta = {"position": position, "world_size": world_size}
            self._snapshot(time.monotonic(), step, make_state(), meta)
        if self._memory is not None:
            self._memory.finish()

    def begin(self, step: int, make_state: MakeState, *, position: int = 0, world_size: int = 1) -> None:
        """Save the state after ``step`` where it is due; ``wait`` before anything changes it."""
        start_s = time.monotonic()
        self._check()
        is_due = self._is_due(step, start_s)
        if is_due:
            self._last = (step, start_s)
        if self._memory is not None and (is_due or self._is_memory_due(step, start_s)):
            if is_due:
                self._due_steps.add(step)
            self._snapshot(start_s, step, make_state(), {"position": position, "world_size": world_size})
        elif self._memory is not None:
            return
        if self._memory is None and is_due:
            self._save_in_step(step, make_state, position, world_size)
        self._stall_s = time.monotonic() - start_s

    def _snapshot(self, at_s: float, step: int, state: Mapping[str, Any], meta: Mapping[str, int]) -> None:
        assert self._memory is not None
        self._pace.taken(at_s)
        try:
            self._memory.begin(step, state, meta)
        except CheckpointError as error:
            self._give_up_memory(step, error)

    def wait(self) -> None:
        """Return when the state may change."""
        self._check()
        start_s = time.monotonic()
        if self._memory is not None:
            try:
                self._memory.wait()
            except CheckpointError as error:
                self._report(Report(step=self._last[0], failure=str(error), hint=error.hint))
        if self._stall_s:
            stall_s = self._stall_s + time.monotonic() - start_s
            if self._interval is not None:
                self._interval.stalled(stall_s)
            if not self._copy_costs:
                self._pace.cost(stall_s)
        self._stall_s = 0.0

    def save_now(self, step: int, make_state: MakeState, *, position: int = 0, world_size: int = 1) -> None:
        """Save to storage, durably, before this returns: at the end, or when told to stop.

        Raises CheckpointError when it cannot be saved.
        """
        if self._memory is not None:
            self._memory.finish()
        if self._persister is not None:
            self._persister.drain()
        if self._checkpointer is None or (self.saved_step == step and not self._has_gone_back):
            return
        size_bytes = self._checkpointer.save(
            step, make_state(), position=position, world_size=world_size
        ).size_bytes
        self._report(Report(step=step, size_bytes=size_bytes))

    def close(self, *, keep: bool = False) -> None:
        """Finish what was begun, and leave nothing in shared memory; ``keep`` it for a successor.

        Which does not wait then for a storage or a peer that takes long, or is gone: what is under way there goes on.
        """
        if self._memory is not None:
            self._memory.finish()
        self._end_helpers(waits=not keep)
        if self._memory is not None:
            self._memory.close(keep=keep)
            self._memory = None
        if self._folder is not None:
            self._folder.leave(keep=keep)
            self._folder = None

    def _check(self) -> None:
        if self._refused is not None:
            self._refused.raise_superseded()

    def _is_due(self, step: int, now_s: float) -> bool:
        if self._interval is None or self._checkpointer is None:
            return False
        last_step, last_s = self._last
        return self._interval.is_due(step, last_step, now_s - last_s)

    def _is_memory_due(self, step: int, now_s: float) -> bool:
        if self._memory_every is not None:
            return step % self._memory_every == 0
        return self._pace.is_due(now_s)

    def _committed(self, snapshot: Snapshot) -> None:
        if self._copy_costs:
            self._pace.cost(time.monotonic() - self._pace.last_s)
        if snapshot.step in self._due_steps and self._persister is not None:
            self._due_steps.discard(snapshot.step)
            self._persister.persist(snapshot)
        if self._sender is not None:
            self._sender.persist(snapshot)

    def _save_in_step(self, step: int, make_state: MakeState, position: int, world_size: int) -> None:
        assert self._checkpointer is not None
        with failures_told(step, self._report):
            manifest = self._checkpointer.save(step, make_state(), position=position, world_size=world_size)
            self._report(Report(step=step, size_bytes=manifest.size_bytes))

    def _give_up_memory(self, step: int, error: CheckpointError) -> None:
        """Go on with storage alone: there is no room, or the state is nothing that memory can hold."""
        self._report(Report(step=step, failure=f"{error}; saving to storage only", hint=error.hint))
        memory, self._memory = self._memory, None
        self._end_helpers()
        if memory is not None:
            memory.close()

    def _end_helpers(self, *, waits: bool = True) -> None:
        for helper in (self._persister, self._sender):
            if helper is not None:
                helper.close(waits=waits)
        self._persister = self._sender = None

    def _newest(self) -> Snapshot | None:
        return None if self._memory is None else self._memory.newest

    def _fetch(self, peer: Peer, rank: int, folder: JobFolder) -> None:
        try:
            fetch(peer, rank, folder)
        except CheckpointError as error:  # storage is the next layer
            self._report(Report(step=0, failure=str(error), hint=error.hint))

    def _report_of_peer(self, report: Report) -> None:
        if report.size_bytes is not None:
            self.peer_step = report.step
        elif report.failure is not None:
            self._report(report)

    def _report(self, report: Report) -> None:
        if report.failure is not None:
            self.failures += 1
        if report.is_superseded:
            self._refused = report
        if report.size_bytes is not None:
            self.saved_step = report.step
        if self._on_report is not None:
            self._on_report(report)
