"""What a team that does not lend keeps: others wait for the rest, and in turn; nobody waits for ever."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Plan
from artesian.model.quota import Team, Teams
from artesian.model.snapshot import Snapshot
from artesian.policy.backfill import EasyBackfill
from artesian.policy.foresight import nearest_start_s
from artesian.policy.preemptive import Preemptive
from artesian.policy.registry import fair_share
from builders import a_job, a_node, a_placement, a_snapshot

KEEPS = Team(name="keeper", guaranteed=(("any", 6),), lends=False)
TEAMS = Teams((KEEPS, Team(name="gang"), Team(name="small")))
Holder = tuple[Job, Placement]


def of(team: str, devices: int, lasts_s: float | None, id: str = "") -> Job:
    return a_job(id or team, devices=f"cpu:{devices}", team=team, estimated_duration_s=lasts_s)


def holds(job: Job, *devices: int) -> Holder:
    return job, a_placement(("n", list(devices)))


def a_fleet(*running: Holder, waiting: list[Job], devices: int = 8) -> Snapshot:
    return a_snapshot([a_node("n", devices=devices)], running=running, waiting=waiting)


def found(plan: Plan) -> tuple[set[str], dict[str, HoldCode]]:
    return {start.job_id for start in plan.starts}, {hold.job_id: hold.code for hold in plan.holds}


def backfill(teams: Teams) -> EasyBackfill:
    policy = fair_share(teams)
    assert isinstance(policy, Preemptive)
    assert isinstance(policy.inner, EasyBackfill)
    return policy.inner


RUNS = holds(of("small", 1, 100.0, "runs"), 7)


def test_a_gang_that_waits_for_what_is_not_kept_is_not_overtaken() -> None:
    waiting = [of("gang", 2, 50.0), of("small", 1, 1000.0, "long"), of("small", 1, 60.0, "short")]
    snapshot = a_fleet(RUNS, waiting=waiting)
    starts, held = found(fair_share(TEAMS).plan(snapshot))
    assert starts == {"short"}  # over before the other ends: it puts off nothing
    assert held["gang"] is HoldCode.KEPT_FOR_TEAMS
    assert held["long"] is HoldCode.BEHIND_ANOTHER
    why = fair_share(TEAMS).explain(snapshot, "gang")
    assert why is not None
    assert why.code is HoldCode.KEPT_FOR_TEAMS
    assert why.text.endswith("keep that do not lend: keeper")
    assert why.unblock.endswith("in 1m40s by the estimates of what runs")


def test_what_the_keeper_gives_back_is_kept_again_and_nobody_counts_on_it() -> None:
    uses = holds(of("keeper", 4, 10.0, "uses"), 0, 1, 2, 3)
    snapshot = a_fleet(RUNS, uses, waiting=[of("gang", 2, 50.0), of("small", 1, 1000.0)])
    assert found(fair_share(TEAMS).plan(snapshot))[0] == set()
    (promise, *_) = backfill(TEAMS).promises(snapshot)
    assert (promise.job.id, promise.at_s, promise.spare) == ("gang", 100.0, 0)


def test_a_gang_larger_than_what_is_ever_left_keeps_nothing_from_others() -> None:
    snapshot = a_fleet(RUNS, waiting=[of("gang", 3, 50.0), of("small", 1, 1000.0)])
    starts, held = found(fair_share(TEAMS).plan(snapshot))
    assert starts == {"small"}
    assert held == {"gang": HoldCode.KEPT_FOR_TEAMS}
    assert backfill(TEAMS).promises(snapshot) == ()


def test_the_keeper_finds_its_devices_free_behind_a_gang_that_waits() -> None:
    """Its parent holds more than it is guaranteed, so that the gang goes first."""
    teams = Teams(
        (
            Team(name="lab"),
            Team(name="keeper", parent="lab", guaranteed=(("any", 6),), lends=False),
            Team(name="sister", parent="lab"),
            Team(name="gang"),
            Team(name="small"),
        )
    )
    sister = holds(of("sister", 7, 900.0), *range(7))
    other = holds(of("small", 2, None, "other"), 7, 8)
    owns = [of("keeper", 2, None, f"own{number}") for number in range(4)]
    for devices in (2, 9):  # also where nobody knows when the gang could start
        waiting = [of("gang", devices, 50.0), *owns]
        snapshot = a_fleet(sister, other, waiting=waiting, devices=16)
        assert [promise.job.id for promise in backfill(teams).promises(snapshot)][:1] == ["gang"]
        starts, _ = found(fair_share(teams).plan(snapshot))
        assert starts == {"own0", "own1", "own2"}


def test_a_job_of_high_priority_gets_nobody_stopped_to_take_what_is_kept() -> None:
    runs = holds(of("gang", 1, 900.0, "runs"), 7)
    for devices in ("cpu:8", "cpu:2"):
        snapshot = a_fleet(runs, waiting=[a_job("high", devices=devices, team="gang", priority=20)])
        plan = fair_share(TEAMS).plan(snapshot)
        assert (plan.stops, plan.claims, plan.starts) == ((), (), ())


estimates = st.sampled_from([5.0, 20.0, 60.0, 300.0])


@st.composite
def fleets_in_use(draw: st.DrawFn) -> Snapshot:
    """Twelve devices of which the keeper keeps six: it and others hold some, a gang and small jobs wait."""
    free = list(range(12))
    running: list[Holder] = []
    for team, most in (("keeper", 6), ("small", 6)):
        for number in range(draw(st.integers(0, most))):
            job = of(team, 1, draw(estimates), f"r-{team}-{number}")
            running.append(holds(job, free.pop(draw(st.integers(0, len(free) - 1)))))
    gang = of("gang", draw(st.integers(2, 6)), draw(estimates))
    small = [
        of("small", draw(st.integers(1, 3)), draw(estimates), f"s{n}") for n in range(draw(st.integers(0, 8)))
    ]
    return a_fleet(*running, waiting=[gang, *small], devices=12)


@given(snapshot=fleets_in_use())
def test_with_true_estimates_no_gang_starts_later_than_it_is_promised(snapshot: Snapshot) -> None:
    promises = {promise.job.id: promise.at_s for promise in backfill(TEAMS).promises(snapshot)}
    start_s = nearest_start_s(backfill(TEAMS), snapshot, "gang")
    assert start_s is not None
    assert start_s <= promises.get("gang", 0.0)


@given(snapshot=fleets_in_use(), comes=st.integers(1, 6), data=st.data())
def test_whoever_waits_the_keeper_has_its_devices_at_once(snapshot: Snapshot, comes: int, data: Any) -> None:
    used = sum(entry.placement.devices for entry in snapshot.running.values() if entry.job.team == "keeper")
    before = [(entry.job, entry.placement) for entry in snapshot.running.values()]
    waiting = [entry.job for entry in snapshot.waiting.values()]
    own = [of("keeper", 1, data.draw(st.none() | estimates), f"own{number}") for number in range(comes)]
    plan = fair_share(TEAMS).plan(a_fleet(*before, waiting=[*waiting, *own], devices=12))
    starts, _ = found(plan)
    assert len([id for id in starts if id.startswith("own")]) >= min(comes, 6 - used)
