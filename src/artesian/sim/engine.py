"""The virtual engine: carries commands out by foreseeing the events that they lead to."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from artesian.model.events import AttemptEnded, AttemptStarted, Event, NodeJoined
from artesian.model.job import Outcome
from artesian.model.plan import Command, Start, Stop
from artesian.sim.jobs import SimJob


@dataclass(frozen=True, slots=True)
class _Run:
    """An attempt under way: from ``begins_s`` on it does ``speed`` of its job's work in a second."""

    epoch: int
    begins_s: float
    speed: float


class VirtualEngine:
    """A heap of events to come, in the order of their times; events of one time in the order of pushing.

    What an attempt leaves behind, up to its last checkpoint, the next one need not do again.
    """

    def __init__(self, jobs: Mapping[str, SimJob]) -> None:
        self._jobs = jobs
        self._heap: list[tuple[float, int, Event]] = []
        self._pushed = 0
        self._running: dict[str, _Run] = {}
        self._done: dict[str, float] = {}
        self._accelerators: dict[str, str] = {}
        self.useful_attempts: dict[str, int] = {}
        """How many attempts of a job ended before its work was done, and yet brought it on."""

    @property
    def next_s(self) -> float | None:
        """When the next event happens; None when there is none."""
        return self._heap[0][0] if self._heap else None

    def push(self, events: Iterable[Event]) -> None:
        """Have ``events`` happen at their times."""
        for event in events:
            heapq.heappush(self._heap, (event.at_s, self._pushed, event))
            self._pushed += 1

    def pop(self, at_s: float) -> list[Event]:
        """Return what happens at exactly ``at_s``; what an ended attempt would still have done does not."""
        events: list[Event] = []
        while self._heap and self._heap[0][0] == at_s:
            event = heapq.heappop(self._heap)[2]
            if isinstance(event, AttemptStarted | AttemptEnded) and not self._takes(event):
                continue
            if isinstance(event, NodeJoined):
                self._accelerators[event.node.id] = event.node.accelerator
            events.append(event)
        return events

    def carry_out(self, command: Command, at_s: float) -> None:
        """Start or stop an attempt. Doing so again, or stopping what does not run, changes nothing."""
        match command:
            case Start():
                self._start(command, at_s)
            case Stop():
                if self._epoch(command.job_id) == command.epoch:
                    self.push([self._ended(command, at_s, Outcome(cause=command.cause))])

    def _start(self, start: Start, at_s: float) -> None:
        if self._epoch(start.job_id) == start.epoch:
            return
        job = self._jobs[start.job_id]
        started_s = at_s + job.start_up_s
        # A node that no event told of has no name for its devices; a job that is as fast anywhere needs none.
        placement = start.placement
        speed = job.speed(self._accelerators.get(placement.shares[0].node_id), placement.devices)
        self._running[start.job_id] = _Run(start.epoch, started_s, speed)
        left_s = max(0.0, job.work - self._done.get(start.job_id, 0.0)) / speed
        runs_s, outcome = job.end(start.epoch, left_s)
        self.push(
            [
                AttemptStarted(at_s=started_s, job_id=start.job_id, epoch=start.epoch),
                self._ended(start, started_s + runs_s, outcome),
            ]
        )

    def _takes(self, event: AttemptStarted | AttemptEnded) -> bool:
        """Return whether the event is about an attempt that runs; an end ends it."""
        if self._epoch(event.job_id) != event.epoch:
            return False
        if isinstance(event, AttemptEnded):
            run = self._running.pop(event.job_id)
            job = self._jobs[event.job_id]
            kept = job.kept_s(max(0.0, event.at_s - run.begins_s)) * run.speed
            if kept > 0:
                self._done[event.job_id] = self._done.get(event.job_id, 0.0) + kept
                self.useful_attempts[event.job_id] = self.useful_attempts.get(event.job_id, 0) + 1
        return True

    def _epoch(self, job_id: str) -> int | None:
        run = self._running.get(job_id)
        return None if run is None else run.epoch

    @staticmethod
    def _ended(command: Command, at_s: float, outcome: Outcome) -> AttemptEnded:
        return AttemptEnded(at_s=at_s, job_id=command.job_id, epoch=command.epoch, outcome=outcome)
