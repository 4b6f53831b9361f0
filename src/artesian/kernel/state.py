"""The kernel's state: every node and every job, changed by records and by nothing else.

State = replay(journal): ``apply`` is the only way in, for events and plans alike, and it takes no
decision. So a journal can be replayed by a version whose policies decide differently.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator
from itertools import chain

from artesian.kernel import lifecycle
from artesian.kernel.archive import Archive
from artesian.kernel.consistency import check
from artesian.kernel.image import StateImage, image_of
from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.nodes import NodeRecord
from artesian.kernel.seen import as_running, as_waiting, capacity_of
from artesian.kernel.served import NOTHING, Served, served_by
from artesian.kernel.sharing import Sharing
from artesian.model.capacity import Capacity
from artesian.model.events import (
    AttemptEnded,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    ClockTicked,
    Event,
    JobSubmitted,
    NodeExcluded,
    NodeJoined,
    NodeLost,
    NodeReturned,
    ResizeRequested,
)
from artesian.model.fleet import Node
from artesian.model.history import History
from artesian.model.job import Cause
from artesian.model.plan import Plan
from artesian.model.queue import WaitingQueue
from artesian.model.running import RunningJobs
from artesian.model.speeds import Speeds

Record = Event | Plan
"""What a journal holds: what happened, and what was decided."""


class State:
    """Nodes and jobs by id, with the indices that make a cycle quick.

    Of the jobs that are over, ``jobs`` has the latest ``keeps_over``, and ``archive`` the others; None: ``jobs`` has
    all. ``record`` and ``records`` know both.
    """

    def __init__(self, *, keeps_over: int | None = None) -> None:
        self.at_s = 0.0
        self.first_s: float | None = None
        """When the first record happened: from here on compute counts as owned."""
        self.nodes: dict[str, NodeRecord] = {}
        self.jobs: dict[str, JobRecord] = {}
        self.archive = Archive(keeps_over)
        self.submitted = 0
        """How many jobs were ever submitted."""
        self.waiting = WaitingQueue()
        """Jobs in QUEUED, as a policy sees them."""
        self.running = RunningJobs()
        """Jobs that hold devices, as a policy sees them."""
        self.changes = 0
        """Grows with all that a plan may depend on: who waits, who holds what, which nodes there are."""
        self.history = History(lambda: (change for job in self.records() for change in job.holdings()))
        """What teams have had of the fleet."""
        self.speeds = Speeds()
        """How fast jobs were measured to run."""
        self.stale_events = 0
        """Events about an attempt that is over, or a job that is not known: ignored, and counted."""
        self.served: dict[str, Served] = {}
        """What earlier attempts of jobs that are not over have had."""
        self._due: list[tuple[float, str]] = []
        self._to_stop: dict[str, JobRecord] = {}
        self._excluded: dict[str, None] = {}
        self._capacity: Capacity | None = None
        self._sharing = Sharing()

    # -- what it is made of -------------------------------------------------------------------------

    @classmethod
    def from_image(cls, image: StateImage) -> "State":
        """Return the state that ``image`` was taken of. It takes the image's records over."""
        state = cls(keeps_over=image.archive.keeps)
        state.at_s, state.first_s, state.stale_events = image.at_s, image.first_s, image.stale_events
        state.speeds = Speeds(image.speeds)
        state.submitted = image.submitted
        state.archive.restore(image.archive, image.blocks)
        for node in image.nodes:
            state._sharing.node(node.node)
            state.nodes[node.node.id] = node
            if node.exclusion is not None:
                state._excluded[node.node.id] = None
        state.restore(image.jobs)
        return state

    def restore(self, jobs: Iterable[JobRecord]) -> None:
        """Take over jobs of an image, of which the state was made without them."""
        for record in jobs:
            if not record.state.is_final and (served := served_by(record)):
                self.served[record.job.id] = served
            self._file(record)

    def image(self, *, has_jobs: bool = True) -> StateImage:
        """Return everything as plain data: see ``image_of``."""
        return image_of(self, has_jobs=has_jobs)

    def __contains__(self, job_id: object) -> bool:
        """Whether a job with this id was ever submitted."""
        return job_id in self.jobs or job_id in self.archive

    def record(self, job_id: str) -> JobRecord | None:
        """Return the job with this id, however long ago it was over. Not to be changed."""
        return self.jobs.get(job_id) or self.archive.get(job_id)

    def records(self, *, ended_after_s: float | None = None) -> Iterator[JobRecord]:
        """Return all jobs, in no order; of those over, at least those that ended after a time."""
        return chain(self.archive.records(ended_after_s=ended_after_s), self.jobs.values())

    @property
    def capacity(self) -> Capacity:
        """What is free now; kept up to date from its first use on."""
        if self._capacity is None:
            self._capacity = capacity_of(self.nodes.values(), self.running.values())
        return self._capacity

    @property
    def holding(self) -> list[JobRecord]:
        """Jobs that hold devices."""
        return [self.jobs[job_id] for job_id in self.running]

    @property
    def excluded(self) -> list[NodeRecord]:
        """Nodes that are there, and kept out of use."""
        return [self.nodes[id_] for id_ in self._excluded if self.nodes[id_].is_up]

    @property
    def to_stop(self) -> Collection[JobRecord]:
        """Jobs that must stop and for which no Stop is decided yet."""
        return self._to_stop.values()

    @property
    def next_due_s(self) -> float | None:
        """When the next delay is over; None when nobody waits one out."""
        while self._due and ((job := self.jobs.get(self._due[0][1])) is None or job.due_s != self._due[0][0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    # -- what changes it ----------------------------------------------------------------------------

    def apply(self, record: Record, *, is_taken: bool = False) -> None:
        """Take in one record. Late, repeated and unknown ones change nothing; time never runs back.
        ``is_taken``: what a plan starts is taken of ``capacity`` already."""
        self.at_s = max(self.at_s, record.at_s)
        if self.first_s is None:
            self.first_s = record.at_s
        if self._due:
            self._release_due()
        match record:
            case AttemptStarted():
                if (job := self._current(record.job_id, record.epoch)) is not None:
                    lifecycle.started(job, self.at_s)
                    if job.job.checkpoint_every_s:  # from here on it saves: what it would lose depends on it
                        self.running.put(as_running(job, self._served_of(job)))
                return
            case AttemptProgressed():
                self._apply_progressed(record)
                return
            case ClockTicked():
                return
            case Plan():
                self._apply_plan(record, is_taken)
            case JobSubmitted():
                if record.job.id not in self:
                    self._file(lifecycle.submit(record.job, self.at_s, self.submitted))
                    self.submitted += 1
            case CancelRequested():
                self._apply_cancel(record)
            case ResizeRequested():
                self._apply_resize(record)
            case AttemptEnded():
                self._apply_ended(record)
            case NodeJoined():
                self._apply_joined(record)
            case NodeLost():
                self._apply_lost(record)
            case NodeExcluded():
                self._apply_excluded(record)
            case NodeReturned():
                self._apply_returned(record)
        self.changes += 1

    def _apply_plan(self, plan: Plan, is_taken: bool) -> None:
        for stop in plan.stops:
            job = self.jobs[stop.job_id]
            self._must_stop(job, stop.cause, stop.reason)
            job.attempt.is_stop_decided = True
            self._to_stop.pop(stop.job_id, None)
        for start in plan.starts:
            job = self.jobs[start.job_id]
            self.waiting.discard(start.job_id)
            lifecycle.start(job, start.epoch, start.placement, self.at_s, start.reason)
            job.attempt.accelerator = self.nodes[start.placement.shares[0].node_id].node.accelerator
            self._index(job)
            if self.history.is_kept:
                self.history.note(job.holding(self.at_s, 1))
            if self._capacity is not None and not is_taken:
                self._capacity.take(job.job, start.placement)
                self._capacity.expect(job.job, start.placement, self.at_s)
        for claim in plan.claims:
            job = self.jobs[claim.job_id]
            self.waiting.discard(claim.job_id)
            job.claim = claim.placement
            self._index(job)
        for hold in plan.holds:
            self.jobs[hold.job_id].hold = hold

    def _apply_cancel(self, event: CancelRequested) -> None:
        job = self.jobs.get(event.job_id)
        if job is None or job.state.is_final:
            self.stale_events += 1
        elif job.state.holds_devices:
            self._must_stop(job, Cause.CANCELLED, f"cancelled by {event.user or 'a user'}")
        else:
            self.waiting.discard(event.job_id)
            self.served.pop(event.job_id, None)
            job.due_s = None
            lifecycle.cancel_waiting(job, self.at_s)
            self._over(job)

    def _apply_resize(self, event: ResizeRequested) -> None:
        job = self.jobs.get(event.job_id)
        if job is None or job.state.is_final or job.job.devices == event.devices:
            self.stale_events += 1
            return
        self.waiting.discard(event.job_id)
        lifecycle.resize(job, event.devices, event.user, self.nodes, self.at_s)
        self._sharing.job(job.job)
        self._index(job)

    def _apply_ended(self, event: AttemptEnded) -> None:
        job = self._current(event.job_id, event.epoch)
        if job is None:
            return
        if self._capacity is not None:
            self._capacity.give(job.job, job.attempt.placement)
        if self.history.is_kept:
            self.history.note(job.holding(self.at_s, -1))
        self.running.remove(event.job_id)
        for share in job.attempt.placement.shares:
            known = self.nodes[share.node_id]
            if known.next_node is not None:
                self._shrink_if_free(known)
            if known.node.occupied and set(known.node.occupied) & set(share.devices):
                self._capacity = None  # what was ours is the others' now
        self._to_stop.pop(event.job_id, None)
        lifecycle.ended(job, event.outcome, self.at_s)
        if job.state.is_final:
            self.served.pop(event.job_id, None)
            self._over(job)
        else:
            self.served[event.job_id] = self._served_of(job).and_by(job.attempt)
            self._index(job)

    def _apply_progressed(self, event: AttemptProgressed) -> None:
        job = self._current(event.job_id, event.epoch)
        if job is None:
            return
        if (measured := lifecycle.progressed(job, event, self.at_s)) is not None:
            self.speeds.add(measured)
        self.running.put(as_running(job, self._served_of(job)))

    def _over(self, job: JobRecord) -> None:
        if (old := self.archive.over(job.job.id)) is not None:
            self.archive.put(self.jobs.pop(old))

    def _apply_joined(self, event: NodeJoined) -> None:
        self._sharing.node(event.node)
        known = self.nodes.get(event.node.id)
        if known is None:
            self.nodes[event.node.id] = NodeRecord(node=event.node, joined_s=self.at_s)
        else:
            if not known.is_up:
                known.come_back(self.at_s)
                if known.node == event.node and known.next_node is None:  # as it was: the usual way back
                    self._open_or_shut(known)
                    return
            known.next_node = event.node
            for job in self.holders_beyond(event.node):
                self._must_stop(job, Cause.NODE_LOST, f"node {event.node.id} came back with fewer devices")
            self._shrink_if_free(known)
        self._capacity = None

    def _shrink_if_free(self, known: NodeRecord) -> None:
        """Put a new description of the node in force, unless a device that it lost is still held."""
        if known.next_node is not None and not self.holders_beyond(known.next_node):
            known.node, known.next_node = known.next_node, None
            self._capacity = None

    def holders_beyond(self, node: Node) -> list[JobRecord]:
        """Return the jobs that hold a device which the node, as described, does not have."""
        return [
            job
            for job in self.holding
            if (share := job.attempt.placement.share_on(node.id)) is not None
            and max(share.devices, default=-1) >= node.devices
        ]

    def _apply_lost(self, event: NodeLost) -> None:
        known = self.nodes.get(event.node_id)
        if known is None or not known.is_up:
            self.stale_events += 1
            return
        known.lose(self.at_s)
        self._open_or_shut(known)
        for job in self._holders(event.node_id):
            self._must_stop(job, Cause.NODE_LOST, f"node {event.node_id} is lost")

    def _apply_excluded(self, event: NodeExcluded) -> None:
        known = self.nodes.get(event.node_id)
        if known is None:
            self.stale_events += 1
            return
        known.exclude(self.at_s, event.reason, event.user)
        self._excluded[event.node_id] = None
        self._open_or_shut(known)
        if event.is_stopping:
            for job in self._holders(event.node_id):
                reason = f"node {event.node_id} is excluded: {event.reason}"
                self._must_stop(job, Cause.PREEMPTED, reason)

    def _apply_returned(self, event: NodeReturned) -> None:
        known = self.nodes.get(event.node_id)
        if known is None or known.exclusion is None:
            self.stale_events += 1
            return
        known.exclusion.end_s = self.at_s
        del self._excluded[event.node_id]
        self._open_or_shut(known)

    def _open_or_shut(self, known: NodeRecord) -> None:
        """Have the capacity know whether attempts may start on the node."""
        if self._capacity is not None:
            self._capacity.set_up(known.node.id, known.is_open)

    def _holders(self, node_id: str) -> list[JobRecord]:
        """Return the jobs that hold something of the node."""
        return [job for job in self.holding if job.attempt.placement.share_on(node_id) is not None]

    def _must_stop(self, job: JobRecord, cause: Cause, reason: str) -> None:
        lifecycle.must_stop(job, cause, reason, self.at_s)
        self.running.put(as_running(job, self._served_of(job)))
        if not job.attempt.is_stop_decided:
            self._to_stop[job.job.id] = job

    def _release_due(self) -> None:
        while (due_s := self.next_due_s) is not None and due_s <= self.at_s:
            job = self.jobs[heapq.heappop(self._due)[1]]
            lifecycle.due(job, self.at_s)
            self._index(job)
            self.changes += 1

    def _current(self, job_id: str, epoch: int) -> JobRecord | None:
        """Return the job if ``epoch`` is its attempt under way; count the event as stale if not."""
        entry = self.running.get(job_id)
        if entry is None or entry.epoch != epoch:
            self.stale_events += 1
            return None
        return self.jobs[job_id]

    def _file(self, job: JobRecord) -> None:
        self._sharing.record(job)
        self.jobs[job.job.id] = job
        self._index(job)

    def _index(self, job: JobRecord) -> None:
        if job.state is JobState.QUEUED:
            self.waiting.add(as_waiting(job, self._served_of(job)))
        elif job.state is JobState.BACKING_OFF:
            assert job.due_s is not None
            heapq.heappush(self._due, (job.due_s, job.job.id))
        elif job.state.holds_devices:
            self.running.put(as_running(job, self._served_of(job)))
            if job.attempt.stop_cause is not None and not job.attempt.is_stop_decided:
                self._to_stop[job.job.id] = job

    def _served_of(self, job: JobRecord) -> Served:
        return self.served.get(job.job.id, NOTHING)

    def validate(self) -> None:
        """Raise AssertionError when the state contradicts itself. For tests and for after a replay."""
        check(self)
