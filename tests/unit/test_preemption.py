"""Preemption: whom it stops, that the beneficiary then really starts, and that nobody takes its devices meanwhile."""

import dataclasses
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.kernel.lifecycle import JobState
from artesian.kernel.scheduler import PlanRejected
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.plan import Claim, Plan
from artesian.model.quota import Team, Teams
from artesian.model.snapshot import Snapshot
from artesian.policy.backfill import EasyBackfill
from artesian.policy.base import Policy
from artesian.policy.fairshare import FairShare
from artesian.policy.order import AgedPriority, EarliestDeadline, LeastAttained
from artesian.policy.place import Pack
from artesian.policy.preemptive import Preemptive
from artesian.policy.rights import ByDeadline, ByPriority, ByService, Reclaim, Right
from artesian.policy.room import Limits
from builders import Kernel, a_job, a_node, a_placement, cancelled, ended, retry, ticked
from simulations import a_fleet, a_sim_job, run, times

NO_LIMITS = Limits(min_runtime_s=0.0)
HIGH = 10


def preemptive(order: Any, *rights: Right, limits: Limits = NO_LIMITS) -> Policy:
    return Preemptive(EasyBackfill(order=order, place=Pack()), Pack(), rights, limits)


def by_priority(limits: Limits = NO_LIMITS) -> Policy:
    return preemptive(AgedPriority(), ByPriority(), limits=limits)


def stopped(plan: Plan) -> set[str]:
    return {stop.job_id for stop in plan.stops}


def starts(plan: Plan) -> set[str]:
    return {start.job_id for start in plan.starts}


def claimed(plan: Plan) -> set[str]:
    return {claim.job_id for claim in plan.claims}


def left(kernel: Kernel, *job_ids: str, at_s: float) -> Plan:
    """The engine says that these have saved their state and gone."""
    return kernel.step(
        *(ended(id, kernel.job(id).epoch, Cause.SIGNAL, at_s) for id in job_ids),
    )


# -- whom ---------------------------------------------------------------------------------------------


def test_a_higher_class_has_a_lower_one_stopped_and_starts_when_it_has_left() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:4"))
    plan = kernel.submit(a_job("high", devices="cpu:4", priority=HIGH), at_s=5.0)
    (stop,) = plan.stops
    assert (stop.job_id, stop.cause) == ("low", Cause.PREEMPTED)
    assert claimed(plan) == {"high"}
    assert stop.grace_s == kernel.job("low").job.grace_s
    assert not plan.starts
    assert "low is being stopped" in kernel.why("high").text
    assert starts(left(kernel, "low", at_s=9.0)) == {"high"}
    assert kernel.is_in("low") is JobState.QUEUED


def test_less_than_a_class_decides_only_who_goes_first() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:4"))
    assert kernel.submit(a_job("higher", devices="cpu:4", priority=HIGH - 1), at_s=5.0).stops == ()


def test_the_cheapest_by_lost_work_goes_and_the_others_stay() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("old", devices="cpu:2"))
    kernel.run(a_job("young", devices="cpu:2"), at_s=50.0)
    assert stopped(kernel.submit(a_job("high", devices="cpu:2", priority=HIGH), at_s=100.0)) == {"young"}


def test_a_job_that_saves_often_loses_little_however_long_it_has_run() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("saves", devices="cpu:2", checkpoint_every_s=10.0))
    kernel.run(a_job("young", devices="cpu:2"), at_s=50.0)
    assert stopped(kernel.submit(a_job("high", devices="cpu:2", priority=HIGH), at_s=95.0)) == {"saves"}


def test_nobody_is_stopped_who_would_not_let_the_job_start() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:2"), a_job("same", devices="cpu:2", priority=HIGH))
    assert kernel.submit(a_job("high", devices="cpu:3", priority=HIGH), at_s=9.0).stops == ()


def test_one_whole_gang_goes_rather_than_two_parts_of_gangs() -> None:
    kernel = Kernel(a_node("n1", devices=4), a_node("n2", devices=4), policy=by_priority())
    kernel.run(*(a_job(f"g{n}", devices="cpu:4") for n in range(2)))
    plan = kernel.submit(a_job("high", devices="cpu:4", priority=HIGH), at_s=9.0)
    assert len(plan.stops) == 1


def test_who_may_not_be_preempted_never_is() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:4", retry=retry(0, Cause.SIGNAL)))
    assert kernel.submit(a_job("high", devices="cpu:4", priority=HIGH), at_s=9.0).stops == ()


# -- limits -------------------------------------------------------------------------------------------


def test_no_attempt_is_stopped_before_it_has_run_its_time_which_doubles() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority(Limits(min_runtime_s=100.0)))
    kernel.run(a_job("low", devices="cpu:4"))
    high = [a_job(f"high{n}", devices="cpu:4", priority=HIGH) for n in range(2)]
    assert kernel.submit(high[0], at_s=99.0).stops == ()
    assert kernel.scheduler.next_due_s == 100.0, "time alone will let it"
    assert stopped(kernel.step(ticked(120.0))) == {"low"}
    left(kernel, "low", at_s=130.0)
    kernel.step(ended("high0", 1, Cause.COMPLETED, 200.0))
    assert kernel.is_in("low") is JobState.STARTING
    assert kernel.submit(high[1], at_s=399.0).stops == ()
    assert stopped(kernel.step(ticked(400.0))) == {"low"}


def test_only_so_many_are_being_stopped_at_a_time() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority(dataclasses.replace(NO_LIMITS, most_stopping=2)))
    kernel.run(*(a_job(f"low{n}") for n in range(4)))
    high = [a_job(f"high{n}", priority=HIGH) for n in range(4)]
    first = kernel.submit(*high, at_s=9.0)
    assert len(first.stops) == 2
    assert len(left(kernel, *stopped(first), at_s=10.0).stops) == 2


# -- what is kept -------------------------------------------------------------------------------------


def test_what_is_free_beside_those_who_leave_is_kept_too() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:2"))
    kernel.submit(a_job("high", devices="cpu:4", priority=HIGH), at_s=5.0)
    quick = a_job("quick", devices="cpu:2", priority=2 * HIGH)
    assert not kernel.submit(quick, at_s=6.0).starts
    assert starts(left(kernel, "low", at_s=7.0)) == {"high"}


def test_the_rest_of_a_device_that_is_shared_with_one_who_leaves_is_kept_too() -> None:
    kernel = Kernel(a_node(devices=2), policy=by_priority())
    kernel.run(a_job("low", devices="0.5"), a_job("full", devices="cpu:1"))
    kernel.submit(a_job("high", devices="cpu:2", priority=HIGH), a_job("half", devices="0.5"), at_s=5.0)
    assert not kernel.submit(a_job("quarter", devices="0.25", priority=2 * HIGH), at_s=6.0).starts
    assert starts(left(kernel, "low", "full", at_s=7.0)) == {"high"}


def test_a_cancelled_beneficiary_leaves_its_devices_to_the_next() -> None:
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:4"))
    kernel.submit(a_job("high", devices="cpu:4", priority=HIGH), at_s=5.0)
    kernel.step(cancelled("high", 6.0))
    assert starts(left(kernel, "low", at_s=7.0)) == {"low"}


@pytest.mark.parametrize(
    ("job_id", "devices", "said"),
    [
        ("other", [0], "is taken"),
        ("ghost", [1], "neither waits nor stops"),
        ("low", [1], "neither waits nor stops"),
    ],
)
def test_a_plan_that_keeps_what_it_cannot_is_rejected(job_id: str, devices: list[int], said: str) -> None:
    class Wrong:
        def plan(self, snapshot: Snapshot) -> Plan:
            return Plan(
                at_s=snapshot.at_s, claims=(Claim(job_id=job_id, placement=a_placement(("n1", devices))),)
            )

        def explain(self, snapshot: Snapshot, job_id: str) -> None:
            del snapshot, job_id

    kernel = Kernel(a_node(devices=4))
    kernel.run(a_job("low"))
    kernel.scheduler.policy = Wrong()
    with pytest.raises(PlanRejected, match=said):
        kernel.submit(a_job("other"), at_s=3.0)


Gang = tuple[int, int, int, float]
"""Devices, priority, team, time of submission."""
GANGS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([-HIGH, 0, HIGH]), st.integers(0, 2), st.floats(0, 50)),
    min_size=1,
    max_size=12,
)
TEAMS = Teams((Team(name="t0", guaranteed=(("cpu", 4),)), Team(name="t1", guaranteed=(("cpu", 2),))))


def jobs_of(gangs: Iterable[Gang]) -> list[tuple[float, Job]]:
    return sorted(
        (
            (at_s, a_job(f"j{n:02}", devices=f"cpu:{size}", priority=priority, team=f"t{team}"))
            for n, (size, priority, team, at_s) in enumerate(gangs)
        ),
        key=lambda pair: (pair[0], pair[1].id),
    )


def someone_leaves(kernel: Kernel, claim: Placement) -> bool:
    nodes = {share.node_id for share in claim.shares}
    return any(
        share.node_id in nodes
        for entry in kernel.state.running.values()
        if entry.is_stopping
        for share in entry.placement.shares
    )


@settings(deadline=None, max_examples=60)
@given(gangs=GANGS, which=st.sampled_from(["priority", "teams", "service"]), data=st.data())
def test_who_others_were_stopped_for_starts_as_soon_as_they_have_left(
    gangs: list[Gang], which: str, data: st.DataObject
) -> None:
    """Whatever comes in between: attempts leave in any order, and jobs arrive meanwhile."""
    policies = {
        "priority": by_priority(),
        "teams": preemptive(FairShare(TEAMS), Reclaim(TEAMS), ByPriority(within_team=True)),
        "service": preemptive(LeastAttained((10.0,)), ByService(LeastAttained((10.0,)))),
    }
    kernel = Kernel(a_node("n1", devices=4), a_node("n2", devices=4), policy=policies[which])
    arrivals = jobs_of(gangs)
    now_s = 0.0
    for _ in range(150):
        now_s += 1.0
        leaving = sorted(id for id, entry in kernel.state.running.items() if entry.is_stopping)
        running = sorted(kernel.state.running.keys() - set(leaving))
        if data.draw(st.booleans()) and leaving:
            gone = data.draw(st.sampled_from(leaving))
            plan = left(kernel, gone, at_s=now_s)
            for id, entry in kernel.state.waiting.items():
                # Whoever has a claim starts, unless somebody else has still to leave for it.
                assert entry.claim is None or id in claimed(plan) or someone_leaves(kernel, entry.claim)
        elif arrivals:
            kernel.submit(arrivals.pop(0)[1], at_s=now_s)
        elif running:
            id = data.draw(st.sampled_from(running))
            kernel.step(ended(id, kernel.job(id).epoch, Cause.COMPLETED, now_s))
        elif not leaving:
            break
    assert not arrivals


@settings(deadline=None, max_examples=60)
@given(gangs=GANGS)
def test_what_a_team_is_guaranteed_it_gets(gangs: list[Gang]) -> None:
    """However others have filled the fleet: jobs of t0 for its 4 devices run once who must leave has left."""
    policy = preemptive(FairShare(TEAMS), Reclaim(TEAMS))
    kernel = Kernel(a_node("n1", devices=4), a_node("n2", devices=4), policy=policy)
    kernel.run(*(replace(job, team=f"t{1 + n % 2}", priority=0) for n, (_, job) in enumerate(jobs_of(gangs))))
    kernel.submit(a_job("mine", devices="cpu:3", team="t0"), a_job("more", team="t0"), at_s=100.0)
    for round_ in range(20):
        leaving = [id for id, entry in kernel.state.running.items() if entry.is_stopping]
        left(kernel, *leaving, at_s=101.0 + round_)
        kernel.step(ticked(101.5 + round_))
    assert {"mine", "more"} <= kernel.state.running.keys()
    held: Counter[str] = Counter()
    for entry in kernel.state.running.values():
        held[entry.job.team] += entry.placement.devices
    assert held["t0"] == 4


def test_reclaim_takes_what_is_borrowed_and_leaves_what_is_guaranteed() -> None:
    policy = preemptive(FairShare(TEAMS), Reclaim(TEAMS))
    kernel = Kernel(a_node(devices=8), policy=policy)
    kernel.run(
        *(a_job(f"t1-{n}", team="t1") for n in range(4)), *(a_job(f"t2-{n}", team="t2") for n in range(4))
    )
    plan = kernel.submit(*(a_job(f"mine{n}", team="t0") for n in range(6)), at_s=9.0)
    assert Counter(id.partition("-")[0] for id in stopped(plan)) in (
        Counter(t1=2, t2=2),
        Counter(t1=1, t2=3),
        Counter(t2=4),
    )
    plan = left(kernel, *stopped(plan), at_s=10.0)
    assert starts(plan) == {"mine0", "mine1", "mine2", "mine3"}
    assert not plan.stops, "the other two are beyond the guarantee"


# -- other rights -------------------------------------------------------------------------------------


def test_who_would_miss_its_deadline_goes_before_one_that_can_wait() -> None:
    kernel = Kernel(a_node(devices=2), policy=preemptive(EarliestDeadline(), ByDeadline(soon_s=10.0)))
    kernel.run(a_job("idle"), a_job("due", deadline_s=60.0, estimated_duration_s=55.0))
    urgent = a_job("urgent", devices="cpu:1", deadline_s=100.0, estimated_duration_s=40.0)
    assert kernel.submit(urgent, at_s=10.0).stops == (), "there is time"
    assert stopped(kernel.step(ticked(65.0))) == {"idle"}


def test_it_is_too_late_to_stop_anybody_for_a_deadline_that_is_lost() -> None:
    kernel = Kernel(a_node(devices=1), policy=preemptive(EarliestDeadline(), ByDeadline(soon_s=10.0)))
    kernel.run(a_job("idle"))
    late = a_job("late", deadline_s=30.0, estimated_duration_s=40.0)
    assert kernel.submit(late, at_s=10.0).stops == ()


def test_a_fresh_job_goes_before_one_that_has_sunk() -> None:
    order = LeastAttained(levels_device_s=(100.0,))
    kernel = Kernel(a_node(devices=2), policy=preemptive(order, ByService(order)))
    kernel.run(a_job("long", devices="cpu:2"))
    assert kernel.submit(a_job("a", devices="cpu:2"), at_s=49.0).stops == ()
    assert stopped(kernel.step(ticked(60.0))) == {"long"}


# -- moving and shrinking -----------------------------------------------------------------------------


def shared_fleet() -> list[Node]:
    return [a_node("n1", devices=1), a_node("n2", devices=1)]


def test_a_share_moves_when_that_lets_a_waiting_job_have_a_whole_device() -> None:
    kernel = Kernel(*shared_fleet(), policy=by_priority())
    kernel.run(
        a_job("a", devices=0.6), a_job("stays", devices=0.5), a_job("b", devices=0.4, checkpoint_every_s=1.0)
    )
    kernel.step(ended("a", 1, Cause.COMPLETED, 2.0))
    where = {id: entry.placement.shares[0].node_id for id, entry in kernel.state.running.items()}
    assert where["b"] != where["stays"]
    plan = kernel.submit(a_job("whole", devices="cpu:1"), at_s=9.0)
    (stop,) = plan.stops
    assert stop.job_id == "b"
    assert claimed(plan) == {"whole", "b"}
    assert starts(left(kernel, "b", at_s=10.0)) == {"whole", "b"}


def test_an_elastic_gang_shrinks_before_anybody_is_stopped_for_good() -> None:
    kernel = Kernel(a_node(devices=8), policy=by_priority())
    kernel.run(a_job("elastic", devices="cpu:2..6", checkpoint_every_s=60.0), a_job("low", devices="cpu:2"))
    plan = kernel.submit(a_job("high", devices="cpu:3", priority=HIGH), at_s=9.0)
    assert stopped(plan) == {"elastic"}
    plan = left(kernel, "elastic", at_s=10.0)
    assert {start.job_id: start.placement.devices for start in plan.starts} == {"high": 3, "elastic": 3}


def test_who_does_not_say_that_it_saves_is_not_moved() -> None:
    kernel = Kernel(a_node(devices=8), policy=by_priority())
    kernel.run(a_job("elastic", devices="cpu:2..8"))
    assert kernel.submit(a_job("other", devices="cpu:3"), at_s=9.0).stops == ()


# -- simulated ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every_s", "ended_s"),
    [
        (None, 50.0 + 10.0 + 100.0),  # all of the first 50 s is lost
        (20.0, 50.0 + 10.0 + 60.0),  # the 10 s since the checkpoint at 40 s
        (0.0, 50.0 + 10.0 + 50.0),  # nothing
    ],
)
def test_a_preempted_job_does_again_what_it_did_since_its_last_checkpoint(
    every_s: float | None, ended_s: float
) -> None:
    low = replace(a_sim_job("low", "cpu:4", takes=100.0), checkpoint_every_s=every_s)
    high = a_sim_job("high", "cpu:4", at=50.0, takes=10.0, priority=HIGH)
    result = run(a_fleet(4), low, high, policy=by_priority())
    assert times(result) == {"low": (0.0, ended_s), "high": (50.0, 60.0)}


def test_a_simulation_with_claims_to_the_end_tells_why_jobs_wait() -> None:
    """A reason for everybody who waits, asked while devices are kept for some."""
    kernel = Kernel(a_node(devices=4), policy=by_priority())
    kernel.run(a_job("low", devices="cpu:4"))
    kernel.submit(*(a_job(f"h{n}", devices="cpu:4", priority=HIGH) for n in range(3)), at_s=9.0)
    reasons = {job_id: kernel.scheduler.why(job_id) for job_id in kernel.state.waiting}
    assert all(reason is not None for reason in reasons.values())
