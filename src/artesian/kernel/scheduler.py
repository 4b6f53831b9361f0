"""The one brain: ``step(events) -> plan``. The simulator and the live driver run this same code.

It knows no clock, no process and no file: time arrives inside events, commands leave as data. Read
``step`` first; ``lifecycle`` says what becomes of a job, ``artesian.policy`` who goes where.
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.state import State
from artesian.kernel.verification import PlanRejected as PlanRejected
from artesian.kernel.verification import verify
from artesian.model.events import Event, JobSubmitted
from artesian.model.plan import Command, Hold, Plan, Reason, Start, Stop
from artesian.model.quota import Teams
from artesian.model.snapshot import Snapshot
from artesian.policy.base import Policy, Steady, Timed, Trying
from artesian.policy.explain import backing_off
from artesian.policy.outlook import Outlook, outlook
from artesian.policy.proposals import Proposal, proposals


class Scheduler:
    """Turns what happened into what is to be done.

    ``state`` is where to go on from: empty, or replayed from a journal.
    """

    def __init__(self, policy: Policy, state: State | None = None) -> None:
        self.policy = policy
        self._timed = policy if isinstance(policy, Timed) else None
        self._trying = policy if isinstance(policy, Trying) else None
        self._steady = policy if isinstance(policy, Steady) and self._timed is None else None
        self.state = state if state is not None else State()
        self.cycles = 0
        """How often the policy was asked for a plan: not every step has something that it could see."""
        self._planned: tuple[Policy, int] | None = None
        self._amended_s: float | None = None
        """When the last draft was made, if something happened after it that no policy has seen yet."""

    @property
    def heeds_starts(self) -> bool:
        """Whether it may decide something because an attempt has begun: policies that go by the clock may."""
        return self._timed is not None

    def step(self, events: Iterable[Event]) -> Plan:
        """Take in ``events``, decide, and return the plan; the state already contains it.

        The caller journals events and plan together before it carries any command out. Without
        events nothing has changed, time included, and the plan is empty.
        """
        plan, is_taken = self._decide(events, keeps_taken=True)
        self._adopt(plan, is_taken)
        return plan

    def draft(self, events: Iterable[Event]) -> Plan:
        """Take in ``events``, and return what to do: of the plan, the state contains nothing yet.

        For a driver that cannot keep everybody else from writing for as long as a policy thinks: the events
        are in its journal, others append meanwhile, it calls ``amend`` with that, and ``adopt`` at last.
        """
        plan, _ = self._decide(events, keeps_taken=False)
        return plan

    def _decide(self, events: Iterable[Event], *, keeps_taken: bool) -> tuple[Plan, bool]:
        """Take in ``events``, and return what to do, and whether what starts is taken of the capacity already.

        With ``keeps_taken`` it is, where the policy is one that tries things out on a trial of ours (``Trying``).
        """
        # 1. What happened.
        before_s = None if self.state.first_s is None else self.state.at_s
        happened = self._amended_s is not None
        settled = self.state.changes if self._is_planned else None
        if self._amended_s is not None:
            before_s, self._amended_s = self._amended_s, None
        came = []
        for event in events:
            self.state.apply(event)
            happened = True
            if isinstance(event, JobSubmitted):
                came.append(event.job)
        if not happened:
            return Plan(at_s=self.state.at_s), False
        if self._timed is None and self._is_planned:
            return Plan(at_s=self.state.at_s), False  # that an attempt runs now, say, makes nobody fit

        # 2. What must stop, whatever the policy thinks: cancelled jobs, jobs on lost nodes.
        stops = self._required_stops()

        # 3. What the policy sees: one consistent view.
        snapshot = self._snapshot(before_s)
        has_only_come = settled is not None and self.state.changes == settled + len(came)
        if self._steady is self.policy and has_only_come and self._steady.is_unmoved(snapshot, came):
            self._planned = (self.policy, self.state.changes)
            return Plan(at_s=self.state.at_s), False

        with snapshot.capacity.trial() as trial:
            # 4. What the policy wants.
            if keeps_taken and self._trying is self.policy:
                wanted = self._trying.plan_on(snapshot, trial)
            else:
                wanted = self.policy.plan(snapshot)
            self.cycles += 1

            # 5. Reject what cannot be, before anything is done.
            is_taken = verify(wanted, snapshot, trial)

            # 6. It is decided, once it is adopted.
            self._planned = (self.policy, self.state.changes)
            news = tuple([hold for hold in wanted.holds if self._is_news(hold)])
            if is_taken:
                trial.keep()
        if not stops and len(news) == len(wanted.holds):
            return wanted, is_taken
        return replace(wanted, stops=(*stops, *wanted.stops), holds=news), is_taken

    def amend(self, plan: Plan, events: Sequence[Event]) -> Plan:
        """Take in ``events``, which come before a drafted ``plan`` in the journal; return what stands of it.

        New jobs leave it as it is, and are for the next draft. After anything else, a cancel say, it is empty.
        """
        drafted_s = self.state.at_s
        for event in events:
            self.state.apply(event)
        self._amended_s, self._planned = drafted_s, None
        if all(isinstance(event, JobSubmitted) for event in events):
            return replace(plan, at_s=self.state.at_s)
        return Plan(at_s=self.state.at_s)

    def adopt(self, plan: Plan) -> None:
        """It is decided: from here on the state contains the plan, drafted and, where need be, amended."""
        self._adopt(plan, is_taken=False)

    def _adopt(self, plan: Plan, is_taken: bool) -> None:
        if plan.is_empty:
            return
        self.state.apply(plan, is_taken=is_taken)
        if self._amended_s is None:
            self._planned = (self.policy, self.state.changes)

    @property
    def _is_planned(self) -> bool:
        """Whether the policy has seen all that there is now."""
        return self._planned == (self.policy, self.state.changes)

    @property
    def next_due_s(self) -> float | None:
        """When to call ``step`` with a ClockTicked at the latest, if nothing else happens before."""
        due_s = self.state.next_due_s
        if self._timed is None or not self.state.running:
            return due_s
        wake_s = self._timed.next_wake_s(self.snapshot())
        return min((at_s for at_s in (due_s, wake_s) if at_s is not None), default=None)

    def outstanding(self) -> Sequence[Command]:
        """Return the commands that are decided and whose end nobody has reported yet.

        For a driver that restarts: it cannot know which of them it carried out, and carrying one
        out again does nothing.
        """
        commands: list[Command] = []
        for record in sorted(self.state.holding, key=lambda record: record.job.id):
            attempt = record.attempt
            # The Start goes first even where a Stop follows: the engine answers it for an attempt it
            # never saw, and adopts one that runs.
            commands.append(
                Start(
                    job_id=record.job.id,
                    epoch=attempt.epoch,
                    placement=attempt.placement,
                    reason=attempt.reason,
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
        stops: list[Stop] = []
        if not self.state.to_stop:
            return stops
        for record in sorted(self.state.to_stop, key=lambda record: record.job.id):
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

    def snapshot(self) -> Snapshot:
        """Return what a policy sees now. It is a view, good until the next record."""
        return self._snapshot(self.state.at_s)

    def _snapshot(self, before_s: float | None) -> Snapshot:
        state = self.state
        return Snapshot(
            at_s=state.at_s,
            waiting=state.waiting,
            running=state.running,
            capacity=state.capacity,
            before_s=before_s,
            speeds=state.speeds,
            history=state.history,
        )

    def why(self, job_id: str) -> Reason | None:
        """Return why the job waits, in words; None where it does not. Raises KeyError for an unknown job."""
        record = self._record(job_id)
        if record.state is JobState.QUEUED:
            return self.policy.explain(self.snapshot(), job_id)
        if record.state is JobState.BACKING_OFF:
            assert record.due_s is not None
            assert record.attempt.outcome is not None
            return backing_off(record.epoch, record.attempt.outcome, record.due_s - self.state.at_s)
        return None

    def outlook(self, job_id: str, teams: Teams | None = None) -> Outlook | None:
        """Return when the job is likely to start, and what would let it start now; None where it is not queued.

        It plans some dozens of times. Raises KeyError for an unknown job.
        """
        if self._record(job_id).state is not JobState.QUEUED:
            return None
        return outlook(self.policy, self.snapshot(), job_id, teams)

    def proposals(self, at_s: float) -> list[Proposal]:
        """Return the moves of running jobs with which waiting ones can start, as of ``at_s``: see ``policy.proposals``.

        It plans once, and does not remember it.
        """
        return proposals(self.policy, replace(self.snapshot(), at_s=max(at_s, self.state.at_s)))

    def _record(self, job_id: str) -> JobRecord:
        if (record := self.state.record(job_id)) is None:
            raise KeyError(job_id)
        return record

    def _is_news(self, hold: Hold) -> bool:
        return self.state.jobs[hold.job_id].hold != hold
