"""The way back of a gang whose state is sharded: memory, a neighbour's copy of it, storage.

All ranks must go back to the same step, each with its own part of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artesian.train.errors import CheckpointError
from artesian.train.interval import Interval
from artesian.train.membership import Membership, gathered
from artesian.train.memory import Memory, load
from artesian.train.peer import Peer, fetch, held_steps
from artesian.train.reporter import say
from artesian.train.restorable import Restorable
from artesian.train.saves import Position
from artesian.train.segment import JobFolder, Snapshot, meta_of, reading
from artesian.train.sharded import ShardedCheckpointer
from artesian.train.shards import load_shards

_FETCHED = 1 << 40
"""Added to a rank's key: where what was fetched of it lies until it is loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where a rank's parts go: storage, the node's shared memory, and the node's own holder, for others.

    ``environ`` says which attempt of a job saves to storage.
    """

    folder: Path | str | None
    interval: Interval | None
    memory: str | None
    memory_every: int | None
    keep_last: int
    keep_every: int | None
    node: int
    holder: Peer | None
    environ: Mapping[str, str] = field(default_factory=dict)


class WayBack:
    """Brings back the newest state that all ranks have a part of. All call the same methods in the same order."""

    def __init__(
        self,
        places: Places,
        what: Restorable,
        member: Membership,
        storage: ShardedCheckpointer | None,
        job: JobFolder | None,
    ) -> None:
        self._places = places
        self._what = what
        self._member = member
        self._storage = storage
        self._job = job
        self.peer: Peer | None = None
        """The holder of the node after this one."""
        self.saved_step: int | None = None
        """The step that came from storage, where one did."""

    @property
    def key(self) -> int:
        """What a part is known by in other nodes' memory: those of another world size fit nobody here."""
        return _FETCHED + (self._member.world_size << 20) + self._member.rank

    def find(self, at_most: int | None, memory: Memory | None) -> Position | None:
        """Go back to memory where it has a step on all ranks that storage has nothing newer than, else to storage.

        What cannot be read falls to the other.
        """
        own = self._own_steps(memory)
        mine = valid_steps(own, self._copied_steps(own), at_most)
        is_first = self._member.rank == 0  # its word counts, and listing a store costs
        stored = self._stored_steps() if is_first else []
        newest = max((step for step in stored if at_most is None or step <= at_most), default=0)
        told = self.gathered((sorted(mine), newest))
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

    def _stored_steps(self) -> list[int]:
        """Return the steps in storage; none where that cannot be said, for the others wait."""
        try:
            return [] if self._storage is None else self._storage.steps()
        except OSError as error:
            say(f"cannot list the checkpoints: {error.strerror or error}")
            return []

    def _from_memory(self, step: int, *, is_own: bool) -> Position | None:
        """Load the step's snapshot, this rank's or the peer's copy of it; None where a rank could not."""
        state, position = None, 0
        try:
            recalled = self._recalled(step, is_own=is_own)
            if recalled is not None:
                state, position = dict(recalled.state), int(recalled.meta["position"])
        except (CheckpointError, KeyError, ValueError) as error:
            say(f"rank {self._member.rank} cannot read step {step} in memory: {error}")
        if not all(self.gathered(state is not None)) or state is None:
            return None
        load_shards(self._what.model, self._what.optimizer, state)
        self._what.load_rest(state)
        self._what.load_random(state)  # of this rank, whoever has kept it
        return Position(step=step, samples=position, data=state["data"])

    def _recalled(self, step: int, *, is_own: bool) -> Any:
        assert self._job is not None
        if is_own:
            return load(self._job, self._member.local_rank, step)
        assert self.peer is not None
        try:
            if fetch(self.peer, self.key, self._job, step) is None:
                return None
            return load(self._job, self.key, step)
        finally:
            self._job.remove(self.key)

    def _from_storage(self, storage: ShardedCheckpointer, at_most: int | None) -> Position | None:
        found = storage.load_newest(self._what.model, self._what.optimizer, at_most=at_most)
        if found is None:
            return None
        for rejected in found.rejected:
            say(f"{rejected.path} is not whole, going back to an older one: {rejected.reason}")
        self._what.load_rest(found.rest)
        if found.world_size == self._member.world_size and "rng" in found.rest:
            self._what.load_random(found.rest)
        self.saved_step = found.step
        return Position(step=found.step, samples=found.position, data=found.rest["data"])

    def _own_steps(self, memory: Memory | None) -> list[int]:
        """Return the steps that this rank's memory has of it, the last saved first."""
        if self._job is None:
            return []
        if memory is not None:
            memory.finish()
        snapshots = self._job.snapshots(self._member.local_rank)
        # What another rank of this place has left is not its own.
        return [snapshot.step for snapshot in snapshots if _key_of(snapshot) == self.key]

    def _copied_steps(self, own: Sequence[int]) -> list[int]:
        """Return the steps that the node after this one has of this rank, the last saved first."""
        if self.peer is None or self._job is None:
            return []
        try:
            return held_steps(self.peer, self.key)
        except CheckpointError as error:
            if not own:
                say(str(error))
            return []

    def meet_peers(self) -> None:
        """Find the holder of the node after this one, in a ring."""
        told = self.gathered((self._places.node, self._places.holder))
        holders = dict(sorted((node, holder) for node, holder in told if holder is not None))
        after = (self._places.node + 1) % (1 + max(node for node, _ in told))
        self.peer = holders.get(after) if after != self._places.node else None

    def gathered(self, own: Any) -> list[Any]:
        return gathered(own, self._member.control)


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
        key = meta_of(snapshot, image).get("key")
    return key if isinstance(key, int) else None
