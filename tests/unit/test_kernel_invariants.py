"""The kernel under an engine that lies: late, repeated, reordered and impossible reports."""

import re
from itertools import pairwise

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from artesian.kernel.image import StateImage
from artesian.kernel.lifecycle import ALLOWED, JobRecord, JobState
from artesian.kernel.replay import replay
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import Record, State
from artesian.model.capacity import Capacity
from artesian.model.events import CancelRequested, Event, NodeJoined, ResizeRequested
from artesian.model.job import Cause, Job
from artesian.model.plan import HoldCode, Plan, Start
from artesian.model.queue import WaitingQueue
from artesian.model.resources import MILLI, DeviceRequest
from artesian.policy import explain
from artesian.policy.order import PriorityFifo
from builders import (
    cancelled,
    ended,
    excluded,
    fifo,
    joined,
    lost,
    progressed,
    returned,
    started,
    submitted,
    ticked,
)
from strategies import ENDS, device_requests, fleet_nodes, jobs

JOB_IDS = [f"j{number}" for number in range(12)]
NODE_IDS = [f"n{number}" for number in range(3)]
ORDER = PriorityFifo()


class AdversarialEngine(RuleBasedStateMachine):
    """Drives a Scheduler with anything that can be said, in any order, and keeps books of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(fifo(), State(keeps_over=2))
        self.journal: list[Record] = []
        self.batch: list[Event] = []
        self.now_s = 0.0
        self.jobs: dict[str, Job] = {}
        self.epochs: dict[str, int] = {}
        self.over: dict[str, JobState] = {}
        self.asked: dict[str, set[tuple[DeviceRequest, ...]]] = {}
        self.cancelled: set[str] = set()
        self.up: set[str] = set()
        self.shut: set[str] = set()
        self.image: tuple[int, bytes] = (0, msgspec.json.encode(State(keeps_over=2).image()))

    @property
    def state(self) -> State:
        return self.scheduler.state

    @property
    def records(self) -> dict[str, JobRecord]:
        """All jobs, those in the archive, too."""
        return {record.job.id: record for record in self.state.records()}

    # -- what may happen ----------------------------------------------------------------------------

    def say(self, event: Event, *, at_once: bool) -> None:
        self.batch.append(event)
        if at_once:
            self.step()

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        for id in NODE_IDS[:2]:
            self.join(data, id, at_once=True)

    @rule(
        data=st.data(), ids=st.lists(st.sampled_from(JOB_IDS), min_size=1, max_size=4), at_once=st.booleans()
    )
    def submit(self, data: st.DataObject, ids: list[str], at_once: bool) -> None:
        for id in ids:
            job = data.draw(jobs(id))
            self.jobs.setdefault(id, job)
            self.say(submitted(job, self.now_s), at_once=at_once)

    @rule(data=st.data(), id=st.sampled_from(NODE_IDS), at_once=st.booleans())
    def join(self, data: st.DataObject, id: str, at_once: bool) -> None:
        self.up.add(id)
        self.say(joined(data.draw(fleet_nodes(id)), self.now_s), at_once=at_once)

    @rule(data=st.data(), at_once=st.booleans())
    def lose(self, data: st.DataObject, at_once: bool) -> None:
        id = data.draw(st.sampled_from([*sorted(self.nodes_in_use()), "unknown"]))
        self.up.discard(id)
        self.say(lost(id, self.now_s), at_once=at_once)

    @rule(id=st.sampled_from([*NODE_IDS, "unknown"]), is_stopping=st.booleans(), at_once=st.booleans())
    def exclude(self, id: str, is_stopping: bool, at_once: bool) -> None:
        if id in self.state.nodes or any(isinstance(e, NodeJoined) and e.node.id == id for e in self.batch):
            self.shut.add(id)
        self.say(excluded(id, self.now_s, is_stopping=is_stopping), at_once=at_once)

    @rule(id=st.sampled_from([*NODE_IDS, "unknown"]), at_once=st.booleans())
    def take_back(self, id: str, at_once: bool) -> None:
        self.shut.discard(id)
        self.say(returned(id, self.now_s), at_once=at_once)

    @rule(data=st.data(), at_once=st.booleans())
    def cancel(self, data: st.DataObject, at_once: bool) -> None:
        unfinished = sorted(id for id, record in self.records.items() if not record.state.is_final)
        id = data.draw(st.sampled_from([*unfinished, JOB_IDS[0], "unknown"]))
        self.say(cancelled(id, self.now_s), at_once=at_once)

    @rule(data=st.data(), wanted=device_requests(), at_once=st.booleans())
    def resize(self, data: st.DataObject, wanted: DeviceRequest, at_once: bool) -> None:
        id = data.draw(st.sampled_from([*sorted(self.jobs), "unknown"]))
        self.asked.setdefault(id, set()).add((wanted,))
        event = ResizeRequested(at_s=self.now_s, job_id=id, devices=(wanted,))
        self.say(event, at_once=at_once)

    @precondition(lambda self: self.state.running)
    @rule(data=st.data(), at_once=st.booleans())
    def say_that_one_runs(self, data: st.DataObject, at_once: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.state.running)))
        self.say(started(id, self.epochs[id], self.now_s), at_once=at_once)

    @precondition(lambda self: self.state.running)
    @rule(
        data=st.data(),
        saved_s=st.none() | st.sampled_from([0.0, 1.0, 1e9]),
        steps=st.sampled_from([0.0, 2.0, 9.0]),
        at_once=st.booleans(),
    )
    def say_how_far_one_is(
        self, data: st.DataObject, saved_s: float | None, steps: float, at_once: bool
    ) -> None:
        id = data.draw(st.sampled_from(sorted(self.state.running)))
        told = progressed(id, self.epochs[id], self.now_s, saved_s=saved_s, steps=steps, steps_s=steps / 2)
        self.say(told, at_once=at_once)

    @precondition(lambda self: self.state.running)
    @rule(data=st.data(), cause=st.sampled_from(ENDS), at_once=st.booleans())
    def say_that_one_ended(self, data: st.DataObject, cause: Cause, at_once: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.state.running)))
        self.say(ended(id, self.epochs[id], cause, self.now_s), at_once=at_once)

    @precondition(lambda self: self.state.running)
    @rule(cause=st.sampled_from(ENDS), at_once=st.booleans())
    def say_that_all_ended(self, cause: Cause, at_once: bool) -> None:
        for id in sorted(self.state.running):
            self.say(ended(id, self.epochs[id], cause, self.now_s), at_once=False)
        if at_once:
            self.step()

    @rule(id=st.sampled_from([*JOB_IDS, "unknown"]), off=st.sampled_from([-2, -1, 1]), is_end=st.booleans())
    def report_of_another_epoch_changes_nothing(self, id: str, off: int, is_end: bool) -> None:
        self.say(ticked(self.now_s), at_once=True)
        epoch = self.epochs.get(id, 0) + off
        before = self.image_but_for_stale_events()
        event = ended(id, epoch, Cause.COMPLETED, self.now_s) if is_end else started(id, epoch, self.now_s)
        stale = self.state.stale_events
        self.say(event, at_once=True)
        assert self.state.stale_events == stale + 1
        assert self.image_but_for_stale_events() == before

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 60.0]), late_s=st.sampled_from([0.0, 3.0]))
    def tick(self, seconds: float, late_s: float) -> None:
        self.now_s += seconds
        self.say(ticked(max(self.now_s - late_s, 0.0)), at_once=True)

    @rule()
    def keep_an_image(self) -> None:
        self.step()
        self.image = len(self.journal), msgspec.json.encode(self.state.image())

    # -- what must hold -----------------------------------------------------------------------------

    def step(self) -> None:
        events, self.batch = self.batch, []
        if not events:
            return
        known = {id: record.state for id, record in self.records.items()}
        plan = self.scheduler.step(events)
        self.journal += [*events, plan]
        self.state.validate()
        self.note_cancels(events, known)
        for start in plan.starts:
            self.check_start(start)
        assert len({command.id for command in plan.commands}) == len(plan.commands)
        if not self.state.running:
            assert self.nobody_who_may_start_fits_the_empty_fleet()

    def note_cancels(self, events: list[Event], known: dict[str, JobState]) -> None:
        seen = set(known)
        for event in events:
            match event:
                case CancelRequested() if event.job_id in seen:
                    self.cancelled.add(event.job_id)
                case _:
                    seen |= {event.job.id} if hasattr(event, "job") else set()

    def check_start(self, start: Start) -> None:
        job = self.records[start.job_id].job
        assert start.job_id not in self.cancelled
        assert start.epoch == self.epochs.get(start.job_id, 0) + 1
        assert start.reason
        self.epochs[start.job_id] = start.epoch
        assert {share.node_id for share in start.placement.shares} <= self.up - self.shut
        for share in start.placement.shares:
            assert not set(share.devices) & set(self.state.nodes[share.node_id].node.occupied)
        free = self.state.capacity
        rows = [free.row[share.node_id] for share in start.placement.shares]
        assert any(
            request.min_devices <= start.placement.devices <= request.max_devices
            and bool(free.eligible(request)[rows].all())
            and {share.milli for share in start.placement.shares} == {min(request.max_milli, MILLI)}
            for request in job.devices
        )

    def nobody_who_may_start_fits_the_empty_fleet(self) -> bool:
        empty = Capacity(record.node for record in self.state.nodes.values())
        empty.occupy()
        for id in set(NODE_IDS) - self.up | self.shut:
            if id in empty.row:
                empty.set_up(id, False)
        waiting = list(self.state.waiting.walk(ORDER.key))
        if any(node.occupied for node in empty.nodes):
            # The first one that the fleet could hold may wait for what others occupy, and holds up the rest.
            waiting = [entry for entry in waiting if explain.is_possible(entry.job, empty)][:1]
        return not any(
            int(empty.by_kind(empty.startable(entry.job, request)).max()) >= max(1, request.min_devices)
            for entry in waiting
            for request in entry.job.devices
        )

    def image_but_for_stale_events(self) -> StateImage:
        self.state.stale_events, kept = 0, self.state.stale_events
        image = msgspec.json.decode(msgspec.json.encode(self.state.image()), type=StateImage)
        self.state.stale_events = kept
        return image

    @invariant()
    def no_job_is_lost_and_none_that_is_over_changes(self) -> None:
        if self.batch:
            return
        assert set(self.records) == set(self.jobs)
        for id, record in self.records.items():
            assert record.submitted_job == self.jobs[id]
            assert record.job.devices in {self.jobs[id].devices, *self.asked.get(id, ())}
            assert self.over.get(id, record.state) is record.state
            if record.state.is_final:
                self.over[id] = record.state
            states = [change.state for change in record.history]
            assert all(after in ALLOWED[before] for before, after in pairwise(states))
            times = [change.at_s for change in record.history]
            assert times == sorted(times)

    def nodes_in_use(self) -> set[str]:
        return {share.node_id for record in self.state.holding for share in record.attempt.placement.shares}

    @invariant()
    def what_does_not_hold_what_is_asked_for_is_told_to_stop(self) -> None:
        for record in self.state.holding:
            if record.state is not JobState.STOPPING:
                held = sum(len(share.devices) * share.milli for share in record.attempt.placement.shares)
                assert any(one.min_milli <= held <= one.max_milli for one in record.job.devices)

    @invariant()
    def what_runs_on_a_lost_node_is_told_to_stop(self) -> None:
        if self.batch:
            return
        for record in self.state.holding:
            if any(share.node_id not in self.up for share in record.attempt.placement.shares):
                assert record.state is JobState.STOPPING

    @invariant()
    def a_cancelled_job_ends(self) -> None:
        ways_out = {
            JobState.STOPPING,
            JobState.CANCELLED,
            JobState.SUCCEEDED,
            JobState.FAILED,
        }
        for id in self.cancelled:
            record = self.records[id]
            assert record.state in ways_out
            assert record.state is not JobState.STOPPING or record.attempt.stop_cause is Cause.CANCELLED

    @invariant()
    def retries_follow_the_policy(self) -> None:
        for record in self.records.values():
            policy = record.job.retry
            counted = 0
            for attempt in record.attempts:
                if attempt.outcome is None:
                    continue
                cause = attempt.outcome.cause
                is_last = attempt is record.attempt
                delay_s = None if cause is Cause.CANCELLED else policy.delay_s(cause, counted)
                if is_last and cause is not Cause.COMPLETED and attempt.stop_cause is not Cause.CANCELLED:
                    assert (record.state is JobState.FAILED) == (delay_s is None)
                if not is_last:
                    assert delay_s is not None
                if delay_s is not None and cause is not Cause.COMPLETED:
                    counted += policy.counts(cause)
            assert record.counted_retries == counted <= policy.limit

    @invariant()
    def who_waits_knows_why(self) -> None:
        if self.batch:
            return
        for id, record in self.records.items():
            is_waiting = record.state in {JobState.QUEUED, JobState.BACKING_OFF}
            reason = self.scheduler.why(id)
            assert (reason is not None) == is_waiting
            assert record.hold is None or is_waiting
            if reason is None:
                continue
            assert reason.text
            assert reason.unblock
            is_backing_off = record.state is JobState.BACKING_OFF
            assert (reason.code is HoldCode.BACKING_OFF) == is_backing_off
            needs = re.match(r"needs (?:at least )?(\d+) .* (\d+) can be had", reason.text)
            if reason.code is HoldCode.DEVICES_BUSY and needs is not None:
                missing = re.match(r"\d+", reason.unblock)
                assert missing is not None
                assert int(needs[2]) + int(missing[0]) == int(needs[1])

    @invariant()
    def who_waits_is_walked_through_in_order(self) -> None:
        kept = [entry.job.id for entry in self.state.waiting.walk(ORDER.key)]
        fresh = WaitingQueue(self.state.waiting.values())
        assert kept == [entry.job.id for entry in fresh.walk(ORDER.key)]
        assert sorted(kept) == sorted(
            id for id, record in self.records.items() if record.state is JobState.QUEUED
        )

    @invariant()
    def what_is_free_is_what_nobody_holds(self) -> None:
        fresh = State.from_image(self.image_but_for_stale_events()).capacity
        kept = self.state.capacity
        assert (fresh.free_milli == kept.free_milli).all()
        assert (fresh.free_whole == kept.free_whole).all()
        assert (fresh.free_cpu_milli == kept.free_cpu_milli).all()
        assert (fresh.free_memory_bytes == kept.free_memory_bytes).all()
        assert (fresh.is_up == kept.is_up).all()

    def teardown(self) -> None:
        self.step()
        position, image = self.image
        from_image = State.from_image(msgspec.json.decode(image, type=StateImage))
        for again in (replay(self.journal, State(keeps_over=2)), replay(self.journal[position:], from_image)):
            again.validate()
            assert again.image() == self.state.image()
            assert again.next_due_s == self.state.next_due_s
            restarted = Scheduler(fifo(), again)
            assert restarted.outstanding() == self.scheduler.outstanding()
        decided = {c.id for record in self.journal if isinstance(record, Plan) for c in record.commands}
        open_ids = {
            f"{word}/{id}/{record.epoch}"
            for id, record in self.records.items()
            if record.state.holds_devices
            for word in ("start", "stop")
        }
        assert {command.id for command in self.scheduler.outstanding()} == decided & open_ids
        # The restarted scheduler decides the same, to the word.
        for again in (replay(self.journal), from_image):
            later = ticked(self.now_s + 1000)
            assert Scheduler(fifo(), again).step([later]) == Scheduler(fifo(), replay(self.journal)).step(
                [later]
            )


AdversarialEngine.TestCase.settings = settings(
    max_examples=80, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAnAdversarialEngine = AdversarialEngine.TestCase
