"""Short ways to say what a test is about: ``a_job(devices="cpu:2")``, ``a_node(devices=8)``.

Everything a test does not name has a plain default, so that what it names is what matters. The
events come without a time where the time does not matter; ``Kernel`` is a scheduler whose clock a
test moves by hand.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import Record, State
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
from artesian.model.job import Cause, Job, Outcome, RetryPolicy
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Plan, Reason
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.resources import MILLI, parse_devices
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy.base import Policy
from artesian.policy.registry import policy

GIB = 2**30


def a_node(id: str = "n1", *, devices: int = 8, accelerator: str = "cpu", **more: Any) -> Node:
    """A node with plenty of CPUs and memory; ``a_node(accelerator="H100-SXM5-80GB", vendor="nvidia")``."""
    host: dict[str, Any] = {"cpus": max(devices, 1) * 8, "memory_bytes": max(devices, 1) * 64 * GIB}
    return Node(id=id, devices=devices, accelerator=accelerator, **{**host, **more})


def nodes(count: int, **more: Any) -> list[Node]:
    """``count`` like nodes, ``n1`` to ``nN``."""
    return [a_node(f"n{number}", **more) for number in range(1, count + 1)]


def a_job(
    id: str = "j1", *, devices: str | float | Mapping[str, str | int | float] = "cpu:1", **more: Any
) -> Job:
    """A job that is called like its id and asks for ``devices``, a resource string."""
    given: dict[str, Any] = {"name": id, "command": ("true",), "workdir": "/"}
    return Job(id=id, devices=parse_devices(devices), **{**given, **more})


def retry(limit: int = 3, *causes: Cause, backoff_s: float = 1.0, max_backoff_s: float = 60.0) -> RetryPolicy:
    """A retry policy: ``retry(2, Cause.SIGNAL)``; without causes, those of the default."""
    on = frozenset(causes) if causes else RetryPolicy().causes
    return RetryPolicy(limit=limit, backoff_s=backoff_s, max_backoff_s=max_backoff_s, causes=on)


def a_placement(*shares: tuple[str, Iterable[int]], milli: int = MILLI) -> Placement:
    """``a_placement(("n1", [0, 1]), ("n2", [0]))``."""
    return Placement(
        shares=tuple(NodeShare(node_id=node, devices=tuple(devices), milli=milli) for node, devices in shares)
    )


def joined(node: Node | None = None, at_s: float = 0.0) -> NodeJoined:
    """A node joins."""
    return NodeJoined(at_s=at_s, node=node or a_node())


def lost(node_id: str = "n1", at_s: float = 0.0) -> NodeLost:
    """A node is lost."""
    return NodeLost(at_s=at_s, node_id=node_id)


def excluded(
    node_id: str = "n1", at_s: float = 0.0, reason: str = "slow", *, is_stopping: bool = False
) -> NodeExcluded:
    """An operator keeps a node out of use."""
    return NodeExcluded(at_s=at_s, node_id=node_id, reason=reason, user="ada", is_stopping=is_stopping)


def returned(node_id: str = "n1", at_s: float = 0.0) -> NodeReturned:
    """An operator has a node used again."""
    return NodeReturned(at_s=at_s, node_id=node_id, user="ada")


def submitted(job: Job | None = None, at_s: float = 0.0) -> JobSubmitted:
    """A job is submitted."""
    return JobSubmitted(at_s=at_s, job=job or a_job())


def resized(job_id: str = "j1", devices: str = "cpu:1", at_s: float = 0.0, user: str = "") -> ResizeRequested:
    """Somebody wants the job to have other devices."""
    return ResizeRequested(at_s=at_s, job_id=job_id, devices=parse_devices(devices), user=user)


def cancelled(job_id: str = "j1", at_s: float = 0.0, user: str = "") -> CancelRequested:
    """A user asks for the job to be stopped."""
    return CancelRequested(at_s=at_s, job_id=job_id, user=user)


def started(job_id: str = "j1", epoch: int = 1, at_s: float = 0.0) -> AttemptStarted:
    """The engine says that the attempt runs."""
    return AttemptStarted(at_s=at_s, job_id=job_id, epoch=epoch)


def ended(
    job_id: str = "j1", epoch: int = 1, cause: Cause = Cause.COMPLETED, at_s: float = 0.0
) -> AttemptEnded:
    """The engine says that the attempt ended."""
    return AttemptEnded(at_s=at_s, job_id=job_id, epoch=epoch, outcome=Outcome(cause=cause))


def progressed(job_id: str = "j1", epoch: int = 1, at_s: float = 0.0, **told: Any) -> AttemptProgressed:
    """The attempt's workers have said: ``saved_s=90.0``, ``steps=100.0, steps_s=50.0``."""
    return AttemptProgressed(at_s=at_s, job_id=job_id, epoch=epoch, **told)


def ticked(at_s: float = 0.0) -> ClockTicked:
    """Time has passed."""
    return ClockTicked(at_s=at_s)


def a_waiting(job: Job | None = None, submitted_s: float = 0.0) -> WaitingJob:
    """A job that waits for its first attempt."""
    return WaitingJob(job=job or a_job(), submitted_s=submitted_s, next_epoch=1, waits_since_s=submitted_s)


def a_snapshot(
    fleet: Iterable[Node] | None = None,
    *,
    waiting: Sequence[Job] = (),
    running: Sequence[tuple[Job, Placement]] = (),
    at_s: float = 0.0,
) -> Snapshot:
    """What a policy sees: jobs wait in the given order, one second apart, and others hold devices."""
    capacity = Capacity([a_node()] if fleet is None else fleet)
    for job, placement in running:
        capacity.take(job, placement)
        capacity.expect(job, placement, 0.0)
    return Snapshot(
        at_s=at_s,
        waiting=WaitingQueue(a_waiting(job, float(number)) for number, job in enumerate(waiting)),
        running={
            job.id: RunningJob(job=job, epoch=1, placement=placement, since_s=0.0, is_stopping=False)
            for job, placement in running
        },
        capacity=capacity,
    )


def free_of(capacity: Capacity) -> dict[str, object]:
    """All that a capacity knows of each node, by name: what nobody may change who only tries things out."""
    arrays = {name: value for name, value in vars(capacity).items() if isinstance(value, np.ndarray)}
    # The numbers of the changes only ever grow, also where a trial is put back.
    return {name: value.tolist() for name, value in arrays.items() if name != "changed"}


class Kernel:
    """A scheduler under test: ``step`` checks the state after every cycle and keeps the journal.

    ``Kernel(a_node(devices=2))`` has the node joined at time 0. Events said through ``step`` keep their
    own time; ``at_s`` of the builders counts, the kernel never lets time run back.
    """

    def __init__(self, *fleet: Node, policy: Policy | None = None, state: State | None = None) -> None:
        self.scheduler = Scheduler(policy or fifo(), state)
        self.journal: list[Record] = []
        if fleet:
            self.step(*(joined(node) for node in fleet))

    @property
    def state(self) -> State:
        """The state so far."""
        return self.scheduler.state

    def step(self, *events: Event) -> Plan:
        """One cycle."""
        plan = self.scheduler.step(events)
        self.state.validate()
        self.journal += [*events, plan] if events else []
        return plan

    def submit(self, *jobs: Job, at_s: float = 0.0) -> Plan:
        """Submit jobs in one cycle, in this order."""
        return self.step(*(submitted(job, at_s) for job in jobs))

    def run(self, *jobs: Job, at_s: float = 0.0) -> None:
        """Submit jobs, and have the engine say of all that start that they run."""
        plan = self.submit(*jobs, at_s=at_s)
        self.step(*(started(start.job_id, start.epoch, at_s) for start in plan.starts))

    def job(self, job_id: str = "j1") -> JobRecord:
        """All that is known of a job."""
        return self.state.jobs[job_id]

    def is_in(self, job_id: str = "j1") -> JobState:
        """The state that a job is in."""
        return self.job(job_id).state

    def why(self, job_id: str = "j1") -> Reason:
        """Why a job waits, in words. It must wait."""
        reason = self.scheduler.why(job_id)
        assert reason is not None, f"{job_id} does not wait"
        return reason


def fifo() -> Policy:
    """The default policy."""
    return policy("fifo")
