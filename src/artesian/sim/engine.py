"""The virtual engine: carries commands out by foreseeing the events that they lead to."""

import heapq
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from artesian.model.events import AttemptEnded, AttemptProgressed, AttemptStarted, Event, NodeJoined
from artesian.model.job import Cause, Outcome
from artesian.model.plan import Command, Start, Stop
from artesian.sim.jobs import SimJob


class _Run(Struct, frozen=True, gc=False):
    """An attempt under way: from ``begins_s`` on it does ``speed`` of its job's work in a second."""

    start: Start
    begins_s: float
    speed: float


class Ran(Struct, frozen=True, kw_only=True, gc=False):
    """What an attempt that has ended was lost to: its start-up, and work that has to be done again.

    ``milli`` is what it held, in thousandths of a device; ``epoch`` 1 is a job's first attempt.
    """

    epoch: int
    milli: int
    start_up_s: float
    lost_s: float


class _Look(Struct, frozen=True, gc=False):
    """It is time to look at what the attempts have come to."""

    at_s: float


class VirtualEngine:
    """A heap of events to come, in the order of their times; events of one time in the order of pushing.

    What an attempt leaves behind, up to its last checkpoint, the next one need not do again. Every
    ``reports_every_s`` (None: never), attempts tell of their checkpoints and their steps, as live ones do.

    With ``begins_quietly``, that an attempt has begun at once is told together with what happens next, for a
    scheduler that decides nothing on that account.
    """

    def __init__(
        self,
        jobs: Mapping[str, SimJob],
        reports_every_s: float | None = None,
        *,
        begins_quietly: bool = False,
    ) -> None:
        self._jobs = jobs
        self._begins_quietly = begins_quietly
        self._reports_every_s = reports_every_s
        self._told: dict[str, AttemptProgressed] = {}
        self._is_look_due = False
        self._heap: list[tuple[float, int, Event | _Look]] = []
        self._known: list[tuple[float, int, Event]] = []
        """What was known from the start, the last first: a heap of all of it would be deep."""
        self._pushed = 0
        self._begun: list[Event] = []
        """Those who have begun quietly, and of whom nobody was told yet."""
        self._running: dict[str, _Run] = {}
        self._done: dict[str, float] = {}
        self._accelerators: dict[str, str] = {}
        self.ran: list[Ran] = []
        """The attempts that have ended, those without any loss left out."""
        self._stream: Iterator[Event] = iter(())
        self._streamed: Event | None = None
        self.useful_attempts: dict[str, int] = {}
        """How many attempts of a job ended before its work was done, and yet brought it on."""

    @property
    def next_s(self) -> float | None:
        """When the next event happens; None when there is none."""
        heap, known = self._heap, self._known
        if known and (not heap or known[-1][0] <= heap[0][0]):
            return known[-1][0]
        return heap[0][0] if heap else None

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is to come any more but what ``follow`` brings, which may never end."""
        heap, streamed = self._heap, self._streamed
        return not self._known and (not heap or (len(heap) == 1 and heap[0][2] is streamed))

    def foresee(self, events: Iterable[Event]) -> None:
        """Have ``events`` happen at their times, before all others of these times: once, at the beginning."""
        assert not self._pushed, "what is known from the start comes first"
        self._known = [(event.at_s, number, event) for number, event in enumerate(events)]
        self._known.sort(reverse=True)
        self._pushed = len(self._known)

    def follow(self, events: Iterator[Event]) -> None:
        """Have ``events`` happen too, an ordered stream that may have no end: read one event ahead."""
        self._stream = events
        self._read_stream()

    def _read_stream(self) -> None:
        self._streamed = next(self._stream, None)
        if self._streamed is not None:
            self._push(self._streamed)

    def _push(self, event: Event) -> None:
        heapq.heappush(self._heap, (event.at_s, self._pushed, event))
        self._pushed += 1

    def pop(self, at_s: float) -> list[Event]:
        """Return what happens at exactly ``at_s``; what an ended attempt would still have done does not.

        Before that come the attempts that have begun quietly since the last time.
        """
        events, self._begun = self._begun, []
        heap, known = self._heap, self._known
        while True:
            # Whatever was known came first.
            if known and known[-1][0] == at_s:
                event: Event | _Look = known.pop()[2]
            elif heap and heap[0][0] == at_s:
                event = heapq.heappop(heap)[2]
            else:
                return events
            if isinstance(event, _Look):
                events += self._look(at_s)
                continue
            if event is self._streamed:
                self._read_stream()
            if isinstance(event, (AttemptStarted, AttemptEnded)):
                if not self._takes(event):
                    continue
            elif isinstance(event, NodeJoined):
                self._accelerators[event.node.id] = event.node.accelerator
            events.append(event)

    def carry_out(self, command: Command, at_s: float) -> None:
        """Start or stop an attempt. Doing so again, or stopping what does not run, changes nothing."""
        match command:
            case Start():
                self._start(command, at_s)
            case Stop():
                if self._epoch(command.job_id) == command.epoch:
                    self._push(self._ended(command, at_s, Outcome(cause=command.cause)))

    def _start(self, start: Start, at_s: float) -> None:
        if self._epoch(start.job_id) == start.epoch:
            return
        job = self._jobs[start.job_id]
        started_s = at_s + job.start_up_s
        # A node that no event told of has no name for its devices; a job that is as fast anywhere needs none.
        placement = start.placement
        speed = job.speed(self._accelerators.get(placement.shares[0].node_id), placement.devices)
        self._running[start.job_id] = _Run(start, started_s, speed)
        self._look_later(at_s)
        left_s = max(0.0, job.work - self._done.get(start.job_id, 0.0)) / speed
        runs_s, outcome = job.end(start.epoch, left_s)
        started = AttemptStarted(at_s=started_s, job_id=start.job_id, epoch=start.epoch)
        if self._begins_quietly and started_s == at_s and self.next_s != at_s:
            self._begun.append(started)
        else:
            self._push(started)
        self._push(self._ended(start, started_s + runs_s, outcome))

    def _takes(self, event: AttemptStarted | AttemptEnded) -> bool:
        """Return whether the event is about an attempt that runs; an end ends it."""
        if self._epoch(event.job_id) != event.epoch:
            return False
        if isinstance(event, AttemptEnded):
            run = self._running.pop(event.job_id)
            self._told.pop(event.job_id, None)
            job = self._jobs[event.job_id]
            ran_s = max(0.0, event.at_s - run.begins_s)
            kept_s = ran_s if event.outcome.cause is Cause.COMPLETED else job.kept_s(ran_s)
            self._note_losses(run, event.at_s, ran_s - kept_s)
            if event.outcome.cause is Cause.COMPLETED:
                self._done.pop(event.job_id, None)
            elif kept_s > 0:
                self._done[event.job_id] = self._done.get(event.job_id, 0.0) + kept_s * run.speed
                self.useful_attempts[event.job_id] = self.useful_attempts.get(event.job_id, 0) + 1
        return True

    def _look_later(self, at_s: float) -> None:
        """Look at the next multiple of the interval, if anybody is to be looked at."""
        every_s = self._reports_every_s
        if every_s is None or self._is_look_due or not self._running:
            return
        self._is_look_due = True
        next_s = (at_s // every_s + 1) * every_s
        heapq.heappush(self._heap, (next_s, self._pushed, _Look(next_s)))
        self._pushed += 1

    def _look(self, at_s: float) -> list[AttemptProgressed]:
        """Return what the running attempts tell that they have not told yet."""
        self._is_look_due = False
        self._look_later(at_s)
        events = []
        for job_id, run in self._running.items():
            job, ran_s = self._jobs[job_id], at_s - run.begins_s
            if ran_s <= 0:
                continue
            kept_s = job.kept_s(ran_s)
            told = AttemptProgressed(
                at_s=at_s,
                job_id=job_id,
                epoch=run.start.epoch,
                saved_s=run.begins_s + kept_s if kept_s > 0 else None,
                steps=ran_s * run.speed if job.tells_steps else 0.0,
                steps_s=ran_s if job.tells_steps else 0.0,
            )
            # The speed of an attempt is one and the same: told once, it is no news again.
            before = self._told.get(job_id)
            if before is None:
                is_news = told.saved_s is not None or told.steps_s > 0
            else:
                is_news = told.saved_s != before.saved_s
            if is_news:
                self._told[job_id] = told
                events.append(told)
        return events

    def _note_losses(self, run: _Run, at_s: float, lost_s: float) -> None:
        decided_s = run.begins_s - self._jobs[run.start.job_id].start_up_s
        start_up_s = min(at_s, run.begins_s) - decided_s
        if start_up_s > 0 or lost_s > 0:
            milli = run.start.placement.milli
            self.ran.append(Ran(epoch=run.start.epoch, milli=milli, start_up_s=start_up_s, lost_s=lost_s))

    def _epoch(self, job_id: str) -> int | None:
        run = self._running.get(job_id)
        return None if run is None else run.start.epoch

    @staticmethod
    def _ended(command: Command, at_s: float, outcome: Outcome) -> AttemptEnded:
        return AttemptEnded(at_s=at_s, job_id=command.job_id, epoch=command.epoch, outcome=outcome)
