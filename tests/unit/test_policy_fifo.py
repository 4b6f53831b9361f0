"""FIFO with priorities: whose turn it is, and that nobody passes who wants the same nodes."""

import re
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from hypothesis import given, settings

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import Hold, HoldCode, Plan, Start
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.snapshot import Snapshot
from artesian.policy import explain, registry
from artesian.policy.order import PriorityFifo
from artesian.policy.pipeline import InOrder
from artesian.policy.place import Pack
from artesian.policy.registry import BrokenPolicy, UnknownPolicy
from builders import a_job, a_node, a_placement, a_snapshot, a_waiting, fifo, nodes
from strategies import snapshots

H100, A100 = "H100-SXM5-80GB", "A100-SXM4-40GB"


def started(plan: Plan) -> list[str]:
    return [start.job_id for start in plan.starts]


def held(plan: Plan) -> dict[str, str]:
    return {hold.job_id: hold.code.value for hold in plan.holds}


def test_higher_priority_goes_first_then_the_earlier_submit_then_the_id() -> None:
    jobs = [a_job("low", priority=-1), a_job("b"), a_job("a"), a_job("high", priority=5)]
    snapshot = a_snapshot(waiting=jobs)
    assert [entry.job.id for entry in in_order(snapshot)] == ["high", "b", "a", "low"]
    ties = WaitingQueue(a_waiting(a_job(id)) for id in "cab")
    assert [entry.job.id for entry in ties.walk(PriorityFifo().key)] == ["a", "b", "c"]


def test_a_large_gang_is_not_passed_by_small_jobs_that_would_fit() -> None:
    snapshot = a_snapshot(
        nodes(1, devices=4),
        running=[(a_job("x"), a_placement(("n1", [0])))],
        waiting=[a_job("big", devices="cpu:4"), a_job("small")],
    )
    plan = fifo().plan(snapshot)
    assert started(plan) == []
    assert held(plan) == {"big": "devices_busy"}, "nobody behind it is looked at"
    assert behind(snapshot, "small") == "big"


def test_one_that_waits_behind_another_keeps_its_other_nodes_from_those_behind_it() -> None:
    fleet = [a_node("h", accelerator=H100, devices=4), a_node("a", accelerator=A100, devices=4)]
    running = [
        (a_job("x", devices="H100:1"), a_placement(("h", [0]))),
        (a_job("y", devices="A100:1"), a_placement(("a", [0]))),
    ]
    waiting = [
        a_job("first", devices="H100:4"),
        a_job("second", devices="H100:4 | A100:4"),
        a_job("third", devices="A100:1"),
    ]
    snapshot = a_snapshot(fleet, running=running, waiting=waiting)
    plan = fifo().plan(snapshot)
    assert started(plan) == []
    assert plan.holds == (
        Hold(job_id="first", code=HoldCode.DEVICES_BUSY),
        Hold(job_id="second", code=HoldCode.BEHIND_ANOTHER, behind="first"),
    )
    assert (behind(snapshot, "second"), behind(snapshot, "third")) == ("first", "second")


def test_one_that_waits_for_one_kind_starts_on_its_other_choice() -> None:
    fleet = [a_node("h", accelerator=H100, devices=4), a_node("a", accelerator=A100, devices=4)]
    running = [(a_job("x", devices="H100:1"), a_placement(("h", [0])))]
    waiting = [a_job("first", devices="H100:4"), a_job("second", devices="H100:2 | A100:2")]
    plan = fifo().plan(a_snapshot(fleet, running=running, waiting=waiting))
    assert [(start.job_id, str(start.placement)) for start in plan.starts] == [("second", "a[0,1]")]
    assert plan.starts[0].reason.startswith("no job ahead of it wants these devices")


@settings(deadline=None)
@given(snapshot=snapshots())
def test_nobody_starts_on_a_node_that_one_ahead_of_it_waits_for(snapshot: Snapshot) -> None:
    plan = fifo().plan(snapshot)
    capacity = snapshot.capacity
    starts = {start.job_id: start for start in plan.starts}
    kept: set[str] = set()
    for entry in in_order(snapshot):
        if (start := starts.get(entry.job.id)) is not None:
            assert not kept & {share.node_id for share in start.placement.shares}
        elif fits_the_empty_fleet(entry.job, snapshot):
            kept |= {
                node.id
                for row, node in enumerate(capacity.nodes)
                if any(bool(capacity.eligible(request)[row]) for request in entry.job.devices)
            }


@settings(deadline=None)
@given(snapshot=snapshots())
def test_who_waits_would_not_have_fitted_when_its_turn_came(snapshot: Snapshot) -> None:
    plan = fifo().plan(snapshot)
    free = snapshot.capacity.copy()
    for start in plan.starts:
        free.take(snapshot.waiting[start.job_id].job, start.placement)
    for entry in snapshot.waiting.values():
        reason = fifo().explain(snapshot, entry.job.id)
        if reason is not None and reason.code is HoldCode.DEVICES_BUSY:
            gangs = [request for request in entry.job.devices if not request.is_fraction]
            assert all(
                int(free.by_kind(free.startable(entry.job, request)).max()) < max(1, request.min_devices)
                for request in gangs
            )


def in_order(snapshot: Snapshot) -> list[WaitingJob]:
    return list(snapshot.waiting.walk(PriorityFifo().key))


def behind(snapshot: Snapshot, job_id: str) -> str:
    """The job that ``job_id`` is told to wait behind."""
    reason = fifo().explain(snapshot, job_id)
    assert reason is not None
    named = re.fullmatch(r"\S+ \((\w+)\) is ahead of it and waits for the same devices", reason.text)
    assert named is not None, reason.text
    return named[1]


def fits_the_empty_fleet(job: Job, snapshot: Snapshot) -> bool:
    capacity = snapshot.capacity
    return any(
        int(capacity.by_kind(capacity.ownable(job, request)).max()) >= max(1, request.min_devices)
        for request in job.devices
    )


# -- the same without indices, shapes and early exits ---------------------------------------------------


@dataclass
class Reference:
    """What becomes of a snapshot where everybody is looked at, one after the other, on a copy."""

    starts: list[Start] = field(default_factory=list)
    codes: dict[str, HoldCode] = field(default_factory=dict)
    may_name: dict[str, set[str]] = field(default_factory=dict)
    """For each job behind others: these others."""


def reference(snapshot: Snapshot) -> Reference:
    outcome = Reference()
    free = snapshot.capacity.copy()
    kept: dict[str, set[int]] = {}
    for entry in sorted(
        snapshot.waiting.values(), key=lambda entry: (-entry.job.priority, entry.submitted_s, entry.job.id)
    ):
        job = entry.job
        wanted = {
            row
            for row in range(len(free.nodes))
            if any(bool(free.eligible(request)[row]) for request in job.devices)
        }
        if not fits_the_empty_fleet(job, snapshot):
            outcome.codes[job.id] = HoldCode.LARGER_THAN_FLEET if wanted else HoldCode.NO_SUCH_DEVICES
            continue
        allowed = free.is_up.copy()
        for rows in kept.values():
            allowed[sorted(rows)] = False
        placement = Pack().place(job, free, allowed)
        if placement is not None:
            free.take(job, placement)
            reason = explain.start(placement, is_first=not kept)
            outcome.starts.append(
                Start(job_id=job.id, epoch=entry.next_epoch, placement=placement, reason=reason)
            )
            continue
        ahead = {id for id, rows in kept.items() if rows & wanted}
        outcome.codes[job.id] = HoldCode.BEHIND_ANOTHER if ahead else HoldCode.DEVICES_BUSY
        outcome.may_name[job.id] = ahead
        kept[job.id] = wanted
    return outcome


@settings(deadline=None, max_examples=300)
@given(snapshot=snapshots())
def test_it_starts_exactly_what_a_look_at_everybody_in_order_starts(snapshot: Snapshot) -> None:
    expected = reference(snapshot)
    policy = fifo()
    plan = policy.plan(snapshot)
    assert list(plan.starts) == expected.starts
    assert plan.stops == ()
    assert all(hold.code is expected.codes[hold.job_id] for hold in plan.holds)
    assert all(hold.behind in expected.may_name[hold.job_id] for hold in plan.holds if hold.behind)


@settings(deadline=None, max_examples=300)
@given(snapshot=snapshots())
def test_who_waits_is_told_what_a_look_at_everybody_in_order_finds(snapshot: Snapshot) -> None:
    expected = reference(snapshot)
    policy = fifo()
    found = {
        id: reason.code for id in snapshot.waiting if (reason := policy.explain(snapshot, id)) is not None
    }
    assert found == expected.codes
    for id, code in found.items():
        if code is HoldCode.BEHIND_ANOTHER:
            assert behind(snapshot, id) in expected.may_name[id]


def test_a_cycle_looks_at_one_job_in_vain_per_shape_however_many_wait() -> None:
    @dataclass(frozen=True)
    class Counting:
        """Pack, with a note of whom it looked at."""

        asked: list[str] = field(default_factory=list)

        def place(self, job: Job, capacity: Capacity, allowed: BoolArray) -> Placement | None:
            """Return where Pack puts it."""
            self.asked.append(job.id)
            return Pack().place(job, capacity, allowed)

    fleet = [a_node("c", devices=6), a_node("h", accelerator=H100, devices=8)]
    wishes = ("cpu:4", "H100:3", "H100:99", "B200:1")
    waiting = [a_job(f"j{number:04}", devices=wishes[number % 4]) for number in range(2000)]
    counting = Counting()
    plan = InOrder(order=PriorityFifo(), place=counting).plan(a_snapshot(fleet, waiting=waiting))
    assert started(plan) == ["j0000", "j0001", "j0005"]
    assert held(plan) == {
        "j0002": "larger_than_fleet",
        "j0003": "no_such_devices",
        "j0004": "devices_busy",
        "j0009": "devices_busy",
    }
    assert counting.asked == ["j0000", "j0001", "j0004", "j0005", "j0009"]


# -- the registry -------------------------------------------------------------------------------------


def plugins(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    entries = [
        EntryPoint(name=name, value=value, group="artesian.policies") for name, value in values.items()
    ]

    def entry_points(**given: Any) -> list[EntryPoint]:
        assert given == {"group": "artesian.policies"}
        return entries

    monkeypatch.setattr(registry, "entry_points", entry_points)


def test_the_default_policy_is_built_in() -> None:
    assert registry.DEFAULT in registry.BUILT_IN
    assert registry.policy(registry.DEFAULT) == registry.BUILT_IN[registry.DEFAULT]()


def test_an_unknown_policy_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins(monkeypatch, mine="a:b")
    with pytest.raises(UnknownPolicy, match="policy 'fifi' is not known") as caught:
        registry.policy("fifi")
    known = ", ".join(sorted([*registry.BUILT_IN, "mine"]))
    assert caught.value.hint == f"known policies: {known}"


def test_a_plugin_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins(monkeypatch, mine="builders:fifo")
    assert registry.policy("mine") == fifo()


@pytest.mark.parametrize("value", ["no_such_module:policy", "builders:no_such_name", "builders:a_placement"])
def test_a_plugin_that_does_not_load_is_fatal_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    plugins(monkeypatch, mine=value)
    with pytest.raises(BrokenPolicy, match=f"policy 'mine' from {value} does not load: ") as caught:
        registry.policy("mine")
    assert caught.value.__cause__ is not None
    assert caught.value.hint is not None
