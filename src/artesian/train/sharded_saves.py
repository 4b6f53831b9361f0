"""Saves of a gang whose state is sharded (FSDP2): each rank has a part that no other has.

So all ranks must go back to the same step, each with its own part of it. A snapshot is begun by all of them at the
same step, and the next one not before this one is at home everywhere: in the rank's own memory, and in that of the
node after its own, whose holder gets a copy. Two snapshots are kept, so that one of them is whole on all ranks
whenever a node is lost. Storage has the state in DCP's format, which any number of ranks can read.
"""

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist

from artesian.train.errors import CheckpointError
from artesian.train.interval import Interval
from artesian.train.membership import Membership
from artesian.train.memory import Memory, load
from artesian.train.peer import Peer, fetch, held_steps
from artesian.train.persist import Persister, Report
from artesian.train.persist_process import to_peer
from artesian.train.reporter import Reporter, say
from artesian.train.restorable import Restorable
from artesian.train.saves import Position
from artesian.train.segment import JobFolder, Snapshot, reading, sweep
from artesian.train.sharded import ShardedCheckpointer
from artesian.train.shards import ShardTable, load_shards, local_shards
from artesian.train.vote import Vote
from artesian.wire.messages import Phase

_SHARE = 0.02
"""Of the time, what snapshots to memory may cost."""
_COSTS = 5
_STALL_S = 1e-4
_FETCHED = 1 << 40
"""Added to a rank's key: where what was fetched of it lies until it is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a rank's parts go: storage, the node's shared memory, and the node's own holder, for others."""

    folder: Path | str | None
    interval: Interval | None
    memory: str | None
    memory_every: int | None
    keep_last: int
    node: int
    holder: Peer | None


class ShardedSaves:
    """What ``Saves`` is for replicated state. All ranks call the same methods in the same order."""

    def __init__(self, places: Places, what: Restorable, member: Membership, reporter: Reporter) -> None:
        """Raises CheckpointError when the rank's memory belongs to another process, ValueError for a URL."""
        if "://" in str(places.folder):
            raise ValueError(
                f"sharded state is saved to a folder that all nodes share, not to a URL, got {places.folder}"
            )
        self._places = places
        self._what = what
        self._table = ShardTable(what.model, what.optimizer)
        self._member = member
        self._reporter = reporter
        self._storage = (
            None
            if places.folder is None
            else ShardedCheckpointer(places.folder, keep_last=places.keep_last, group=member.control)
        )
        self._votes = None if member.control is None else Vote(member.control, dist.ReduceOp.MAX, 3)
        self._reports: deque[Report] = deque()
        self._job: JobFolder | None = None
        self._memory: Memory | None = None
        self._peer: Peer | None = None
        self._sender: Persister | None = None
        self._is_sending = False
        self._costs_s: deque[float] = deque(maxlen=_COSTS)
        self._begun_s: float | None = None
        self._last_s = time.monotonic()
        self._last_saved = (0, time.monotonic())
        self._saved_step: int | None = None
        self._snapshots = 0
        self._own_votes = (0, 0, 0)
        self.failed = 0
        """Saves that failed: training goes on, as what was saved before is intact."""
        if places.memory is not None:
            self._job = JobFolder(places.memory)
            sweep()
            self._memory = Memory(self._job, member.local_rank, on_commit=self._committed)

    # -- back -----------------------------------------------------------------------------------------

    def restore(self) -> Position | None:
        """Bring back the newest state that all ranks have a part of; None where there is none.

        Raises CheckpointError when there are checkpoints but none is whole.
        """
        start_s = self._reporter.end_start_up()
        self._meet_peers()
        found = self._back(None)
        if self._peer is not None and self._memory is not None:
            self._sender = Persister(
                to_peer(self._peer, self._key),
                newest=lambda: None if self._memory is None else self._memory.newest,
                on_report=self._sent,
            )
        if found is not None:
            self._reporter.restored(found.step, start_s)
        self._vote(0 if found is None else found.step)
        return found

    def go_back(self, step: int) -> Position | None:
        """Bring back the newest state of ``step`` or before that all ranks have; None where there is none.

        Raises CheckpointError as ``restore`` does.
        """
        start_s = self._reporter.now_s()
        found = self._back(step)
        if found is not None:
            self._reporter.restored(found.step, start_s)
        return found

    def _back(self, at_most: int | None) -> Position | None:
        """Go back to memory where it has a step on all ranks that storage has nothing newer than, else to storage.

        What cannot be read falls to the other.
        """
        own = self._own_steps()
        mine = valid_steps(own, self._copied_steps(own), at_most)
        stored = [] if self._storage is None else self._storage.steps()
        newest = max((step for step in stored if at_most is None or step <= at_most), default=0)
        told = self._gathered((sorted(mine), newest))
        common = max(set.intersection(*(set(steps) for steps, _ in told)), default=0)
        if common >= max(1, told[0][1]):
            found = self._from_memory(common, is_own=common in own)
            if found is not None or self._storage is None:
                return found
            common = 0
        found = None
        if self._storage is not None:
            try:
                found = self._from_storage(self._storage, at_most)
            except CheckpointError:
                if not common:
                    raise
        if common and (found is None or found.step < common):
            return self._from_memory(common, is_own=common in own) or found
        return found

    def _from_memory(self, step: int, *, is_own: bool) -> Position | None:
        """Load the step's snapshot, this rank's or the peer's copy of it; None where a rank could not."""
        state, position = None, 0
        try:
            recalled = self._recalled(step, is_own=is_own)
            if recalled is not None:
                state, position = dict(recalled.state), int(recalled.meta["position"])
        except (CheckpointError, KeyError, ValueError) as error:
            say(f"rank {self._member.rank} cannot read step {step} in memory: {error}")
        if not all(self._gathered(state is not None)) or state is None:
            return None
        load_shards(self._what.model, self._what.optimizer, state)
        self._what.load_rest(state)
        self._what.load_random(state)  # of this rank, whoever has kept it
        return Position(step=step, samples=position, data=state["data"])

    def _recalled(self, step: int, *, is_own: bool) -> Any:
        assert self._job is not None
        if is_own:
            return load(self._job, self._member.local_rank, step)
        assert self._peer is not None
        try:
            if fetch(self._peer, self._key, self._job, step) is None:
                return None
            return load(self._job, self._key, step)
        finally:
            self._job.remove(self._key)

    def _from_storage(self, storage: ShardedCheckpointer, at_most: int | None) -> Position | None:
        found = storage.load_newest(self._what.model, self._what.optimizer, at_most=at_most)
        if found is None:
            return None
        for rejected in found.rejected:
            say(f"{rejected.path} is not whole, going back to an older one: {rejected.reason}")
        self._what.load_rest(found.rest)
        if found.world_size == self._member.world_size and "rng" in found.rest:
            self._what.load_random(found.rest)
        self._saved_step = found.step
        return Position(step=found.step, samples=found.position, data=found.rest["data"])

    def _own_steps(self) -> list[int]:
        """Return the steps that this rank's memory has of it, the last saved first."""
        if self._job is None:
            return []
        if self._memory is not None:
            self._memory.finish()
        snapshots = self._job.snapshots(self._member.local_rank)
        # What another rank of this place has left is not its own.
        return [snapshot.step for snapshot in snapshots if _key_of(snapshot) == self._key]

    def _copied_steps(self, own: Sequence[int]) -> list[int]:
        """Return the steps that the node after this one has of this rank, the last saved first."""
        if self._peer is None or self._job is None:
            return []
        try:
            return held_steps(self._peer, self._key)
        except CheckpointError as error:
            if not own:
                say(str(error))
            return []

    @property
    def _key(self) -> int:
        """What a part is known by in other nodes' memory: those of another world size fit nobody here."""
        return _FETCHED + (self._member.world_size << 20) + self._member.rank

    def _meet_peers(self) -> None:
        """Find the holder of the node after this one, in a ring."""
        told = self._gathered((self._places.node, self._places.holder))
        holders = dict(sorted((node, holder) for node, holder in told if holder is not None))
        after = (self._places.node + 1) % (1 + max(node for node, _ in told))
        self._peer = holders.get(after) if after != self._places.node else None

    def _gathered(self, own: Any) -> list[Any]:
        control = self._member.control
        if control is None:
            return [own]
        told: list[Any] = [None] * self._member.world_size
        dist.all_gather_object(told, own, group=control)
        return told

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
            self._reports.append(Report(step=0, failure=str(error), hint=error.hint))
        if self._begun_s is not None:
            if self._snapshots > 1:  # the first one finds its memory, and is no measure
                self._costs_s.append(self._begun_s + time.monotonic() - start_s)
            self._begun_s = None

    def begin(self, at: Position) -> None:
        """Save the state after a step, where all ranks have found at the step before that it is due."""
        start_s = self._reporter.now_s()
        memory_due, is_anybody_sending, storage_due = self._outcome()
        if memory_due and not is_anybody_sending and self._memory is not None:
            self._snapshot(self._memory, at)
        if storage_due and self._storage is not None:
            try:
                self._save(self._storage, at)
            except CheckpointError as error:
                self._reports.append(Report(step=at.step, failure=str(error), hint=error.hint))
            self._last_saved = (at.step, time.monotonic())
            if self._places.interval is not None:
                self._places.interval.stalled(self._reporter.now_s() - start_s)
        end_s = self._reporter.now_s()
        if end_s - start_s > _STALL_S:
            self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, end_s)
        self._tell_reports()
        self._vote(at.step)

    def _snapshot(self, memory: Memory, at: Position) -> None:
        start_s = time.monotonic()
        self._is_sending = self._sender is not None
        self._last_s = start_s
        self._snapshots += 1
        meta = {"position": at.samples, "world_size": self._member.world_size, "key": self._key}
        try:
            memory.begin(at.step, {**local_shards(self._what.state()), "data": at.data}, meta)
        except CheckpointError as error:
            self._is_sending = False
            self._memory = None
            self._reports.append(
                Report(step=at.step, failure=f"{error}; saving to storage only", hint=error.hint)
            )
            self._end_sender()
            memory.close()
        self._begun_s = time.monotonic() - start_s

    def _committed(self, snapshot: Snapshot) -> None:
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
            is_memory_due = now_s - self._last_s >= min(self._costs_s, default=0.0) / _SHARE
        last_step, last_s = self._last_saved
        is_storage_due = (
            interval is not None
            and self._member.rank == 0
            and interval.is_due(step + 1, last_step, now_s - last_s)
        )
        self._own_votes = (int(is_memory_due), int(self._is_sending), int(is_storage_due))
        if self._votes is not None:
            self._votes.start(*self._own_votes)

    def _outcome(self) -> tuple[int, int, int]:
        if self._votes is None:
            return self._own_votes
        outcome = self._votes.settle()
        if outcome is None:
            return (0, 0, 0)
        memory_due, is_sending, storage_due = outcome
        return memory_due, is_sending, storage_due

    def save_now(self, at: Position) -> None:
        """Save to storage, durably, before this returns on any rank. Raises CheckpointError on all where it fails."""
        self._outcome()
        if self._storage is None or self._saved_step == at.step or not at.step:
            return
        start_s = self._reporter.now_s()
        self.settle()
        try:
            self._save(self._storage, at)
        except CheckpointError:
            self.failed += 1
            raise
        finally:
            self._reporter.phase(Phase.CHECKPOINT_STALL, start_s, self._reporter.now_s())
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
        self._end_sender()
        if self._memory is not None:
            self._memory.close(keep=keep)
            self._memory = None
        if self._job is not None:
            self._job.leave(keep=keep)
            self._job = None
        self._tell_reports()

    def _end_sender(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.close()

    def _tell_reports(self) -> None:
        """Tell what other threads have reported; only this one writes to the wire."""
        while self._reports:
            report = self._reports.popleft()
            self.failed += 1
            say(f"{report.failure}; training goes on ({self.failed} saves failed so far)")


def valid_steps(own: Sequence[int], copied: Sequence[int], at_most: int | None = None) -> set[int]:
    """Return the steps that a rank can go back to, of its own snapshots and of their copies, the last saved first.

    Steps beyond the one saved last were undone, by a run that went back and took another way from there.
    """
    last_saved = next(iter([*own, *copied]), 0)
    latest = last_saved if at_most is None else min(last_saved, at_most)
    return {step for step in (*own, *copied) if step <= latest}


def _key_of(snapshot: Snapshot) -> int | None:
    """Return whose part the snapshot is; None where it is none any more, or of state that is not sharded."""
    with reading(snapshot) as image:
        if image is None:
            return None
        meta = json.loads(bytes(image[: snapshot.document_bytes]))[1][0]
    key = meta.get("key")
    return key if isinstance(key, int) else None
