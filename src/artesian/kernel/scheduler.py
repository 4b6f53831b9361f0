"""The one brain: ``step(events) -> plan``. The simulator and the live driver run this same code.

It knows no clock, no process and no file: time arrives inside events, commands leave as data. Read
``step`` first; ``lifecycle`` says what becomes of a job, ``artesian.policy`` who goes where.
"""

from collections.abc import Iterable, Sequence

from artesian.kernel.state import State
from artesian.model.events import Event
from artesian.model.plan import Command, Hold, Plan, Start, Stop
from artesian.model.snapshot import RunningJob, Snapshot, WaitingJob
from artesian.policy.base import Policy


class PlanRejected(Exception):  # noqa: N818 - the event, in Nomad's word for it
    """A policy planned what cannot be: a device twice, half a gang, a job that does not wait."""


class Scheduler:
    """Turns what happened into what is to be done.

    ``state`` is where to go on from: empty, or replayed from a journal.
    """

    def __init__(self, policy: Policy, state: State | None = None) -> None:
        self.policy = policy
        self.state = state if state is not None else State()

    def step(self, events: Iterable[Event]) -> Plan:
        """Take in ``events``, decide, and return the plan; the state already contains it.

        The caller journals events and plan together before it carries any command out. Without
        events nothing has changed, time included, and the plan is empty.
        """
        # 1. What happened.
        happened = False
        for event in events:
            self.state.apply(event)
            happened = True
        if not happened:
            return Plan(at_s=self.state.at_s)

        # 2. What must stop, whatever the policy thinks: cancelled jobs, jobs on lost nodes.
        stops = self._required_stops()

        # 3. What the policy sees: one consistent view.
        snapshot = self._snapshot()

        # 4. What the policy wants.
        wanted = self.policy.plan(snapshot)

        # 5. Reject what cannot be, before anything is done.
        _verify(wanted, snapshot)

        # 6. It is decided.
        plan = Plan(
            at_s=self.state.at_s,
            stops=(*stops, *wanted.stops),
            starts=wanted.starts,
            holds=tuple(hold for hold in wanted.holds if self._is_news(hold)),
        )
        self.state.apply(plan)
        return plan

    @property
    def next_due_s(self) -> float | None:
        """When to call ``step`` with a ClockTicked at the latest, if nothing else happens before."""
        return self.state.next_due_s

    def outstanding(self) -> Sequence[Command]:
        """Return the commands that are decided and whose end nobody has reported yet.

        For a driver that restarts: it cannot know which of them it carried out, and carrying one
        out again does nothing.
        """
        commands: list[Command] = []
        for record in self.state.holding.values():
            attempt = record.attempt
            # The Start goes first even where a Stop follows: the engine answers it for an attempt it
            # never saw, and adopts one that runs.
            commands.append(
                Start(
                    job_id=record.job.id,
                    epoch=attempt.epoch,
                    placement=attempt.placement,
                    reason="decided before the restart",
                )
            )
            if attempt.stop_cause is not None and attempt.is_stop_decided:
                commands.append(
                    Stop(
                        job_id=record.job.id,
                        epoch=attempt.epoch,
                        grace_s=record.job.grace_s,
                        cause=attempt.stop_cause,
                        reason=attempt.stop_reason,
                    )
                )
        return commands

    def _required_stops(self) -> list[Stop]:
        stops = []
        for record in self.state.to_stop:
            cause = record.attempt.stop_cause
            assert cause is not None
            stops.append(
                Stop(
                    job_id=record.job.id,
                    epoch=record.epoch,
                    grace_s=record.job.grace_s,
                    cause=cause,
                    reason=record.attempt.stop_reason,
                )
            )
        return stops

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            at_s=self.state.at_s,
            waiting=[
                WaitingJob(job=record.job, submitted_s=record.submitted_s, next_epoch=record.epoch + 1)
                for record in self.state.waiting.values()
            ],
            running=[
                RunningJob(
                    job=record.job,
                    epoch=record.epoch,
                    placement=record.attempt.placement,
                    since_s=record.attempt.decided_s,
                    is_stopping=record.attempt.stop_cause is not None,
                )
                for record in self.state.holding.values()
            ],
            capacity=self.state.capacity,
        )

    def _is_news(self, hold: Hold) -> bool:
        return self.state.jobs[hold.job_id].hold != hold.reason


def _verify(plan: Plan, snapshot: Snapshot) -> None:
    """Raise PlanRejected unless every command of the plan can be carried out as it stands."""
    waiting = {entry.job.id: entry for entry in snapshot.waiting}
    running = {entry.job.id: entry for entry in snapshot.running}
    for stop in plan.stops:
        entry = running.get(stop.job_id)
        if entry is None or entry.epoch != stop.epoch:
            raise PlanRejected(f"{stop.id}: no such attempt is running")
    if not plan.starts:
        return
    free = snapshot.capacity.copy()
    for start in plan.starts:
        wanting = waiting.pop(start.job_id, None)
        if wanting is None or wanting.next_epoch != start.epoch:
            raise PlanRejected(f"{start.id}: the job does not wait for this attempt")
        count = start.placement.devices
        if not any(request.min_devices <= count <= request.max_devices for request in wanting.job.devices):
            raise PlanRejected(f"{start.id}: {count} devices are not a gang that the job asked for")
        if not all(free.is_up[free.row[share.node_id]] for share in start.placement.shares):
            raise PlanRejected(f"{start.id}: a node of its placement is down")
        try:
            free.take(wanting.job, start.placement)
        except (AssertionError, IndexError) as error:
            raise PlanRejected(f"{start.id}: {error}") from error
