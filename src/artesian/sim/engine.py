"""The virtual engine: carries commands out by foreseeing the events that they lead to."""

import heapq
from collections.abc import Iterable, Mapping

from artesian.model.events import AttemptEnded, AttemptStarted, Event
from artesian.model.job import Outcome
from artesian.model.plan import Command, Start, Stop
from artesian.sim.jobs import SimJob


class VirtualEngine:
    """A heap of events to come, in the order of their times; events of one time in the order of pushing."""

    def __init__(self, jobs: Mapping[str, SimJob]) -> None:
        self._jobs = jobs
        self._heap: list[tuple[float, int, Event]] = []
        self._pushed = 0
        self._running: dict[str, int] = {}

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
            events.append(event)
        return events

    def carry_out(self, command: Command, at_s: float) -> None:
        """Start or stop an attempt. Doing so again, or stopping what does not run, changes nothing."""
        match command:
            case Start():
                self._start(command, at_s)
            case Stop():
                if self._running.get(command.job_id) == command.epoch:
                    self.push([self._ended(command, at_s, Outcome(cause=command.cause))])

    def _start(self, start: Start, at_s: float) -> None:
        if self._running.get(start.job_id) == start.epoch:
            return
        self._running[start.job_id] = start.epoch
        job = self._jobs[start.job_id]
        started_s = at_s + job.start_up_s
        runs_s, outcome = job.end(start.epoch)
        self.push(
            [
                AttemptStarted(at_s=started_s, job_id=start.job_id, epoch=start.epoch),
                self._ended(start, started_s + runs_s, outcome),
            ]
        )

    def _takes(self, event: AttemptStarted | AttemptEnded) -> bool:
        """Return whether the event is about an attempt that runs; an end ends it."""
        if self._running.get(event.job_id) != event.epoch:
            return False
        if isinstance(event, AttemptEnded):
            del self._running[event.job_id]
        return True

    @staticmethod
    def _ended(command: Command, at_s: float, outcome: Outcome) -> AttemptEnded:
        return AttemptEnded(at_s=at_s, job_id=command.job_id, epoch=command.epoch, outcome=outcome)
