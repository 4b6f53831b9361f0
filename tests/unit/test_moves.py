"""Moves: those that plans make, and those that a dry run finds, which stops nobody."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.capacity import Capacity
from artesian.model.fleet import Fleet, Node
from artesian.model.quota import Team, Teams
from artesian.model.resources import MILLI
from artesian.model.snapshot import Snapshot
from artesian.policy.accounts import Accounts
from artesian.policy.base import Policy, Timed
from artesian.policy.moves import Move, moves_of, possible_moves, without_moves
from artesian.policy.place import Pack
from artesian.policy.pools import Pools
from artesian.policy.preemptive import Preemptive
from artesian.policy.proposals import Standing, moves_by_itself, proposals
from artesian.policy.registry import BUILT_IN, fair_share, policy, pooled
from artesian.policy.room import Limits
from artesian.sim import simulate
from artesian.sim.moves import moves_dict, watched
from builders import Kernel, a_job, a_node, a_snapshot, ended, free_of, ticked
from simulations import a_fleet, a_sim_job, job, run
from strategies import snapshots

NO_LIMITS = Limits(min_runtime_s=0.0)


def moved(policy: Policy, *, is_dry: bool) -> tuple[list[Move], float | None]:
    """Return the moves, and when ``whole`` started, which wants a whole device and comes at 1010 s.

    By then half of each of the two devices is free, as one of two shares has ended on each.
    """
    jobs = [
        a_sim_job("a-1", "0.5", takes=9000.0, saves_every_s=100.0),
        a_sim_job("a-2", "0.5", takes=1000.0),
        a_sim_job("b-1", "0.5", takes=9000.0, saves_every_s=100.0),
        a_sim_job("b-2", "0.5", takes=1000.0),
        a_sim_job("whole", "1", at=1010.0, takes=50.0),
    ]
    seen = watched(policy, is_dry=is_dry)
    result = run(a_fleet(2), *jobs, policy=seen)
    return seen.moves, job(result, "whole").started_s


def priority() -> Preemptive:
    found = policy("priority")
    assert isinstance(found, Preemptive)
    return found


def test_a_plans_moves_say_who_goes_on_how_for_whom_and_at_what_cost() -> None:
    kernel = Kernel(a_node("n1", devices=8), policy=dataclasses.replace(priority(), limits=NO_LIMITS))
    kernel.run(a_job("elastic", devices="cpu:2..8", checkpoint_every_s=60.0))
    plan = kernel.submit(a_job("other", devices="cpu:3"), at_s=9.0)
    (move,) = moves_of(plan, kernel.scheduler.snapshot(), NO_LIMITS)
    assert (move.job_id, move.kind, move.to.devices, move.lets_start) == ("elastic", "shrinks", 5, "other")
    assert move.cost_device_s == 8 * (9.0 + 60.0)


def test_a_simulation_lists_the_moves_and_the_gang_that_they_let_start() -> None:
    moves, started_s = moved(policy("priority"), is_dry=False)
    assert [(move.kind, move.lets_start) for move in moves] == [("moves", "whole")]
    assert moves[0].now.shares[0].devices != moves[0].to.shares[0].devices
    assert moves[0].cost_device_s == 0.5 * (10.0 + 60.0), "10 s since the last checkpoint, and a restart"
    assert started_s == 1010.0


def test_a_dry_run_moves_nobody_and_lists_what_would_have_helped_once() -> None:
    moves, started_s = moved(policy("priority"), is_dry=True)
    assert {move.lets_start for move in moves} == {"whole"}
    assert len(moves) == 1
    assert started_s == 9000.0, "it waits for one of the shares to end"


def test_a_policy_that_never_moves_anybody_tells_what_moving_would_give() -> None:
    assert moved(policy("easy"), is_dry=False)[0] == []
    assert {move.lets_start for move in moved(policy("easy"), is_dry=True)[0]} == {"whole"}


def test_who_only_grows_lets_nobody_start() -> None:
    jobs = [
        a_sim_job("a-first", "cpu:4", takes=400.0),
        a_sim_job("elastic", "cpu:2..8", takes=50_000.0, saves_every_s=0.0),
    ]
    seen = watched(policy("priority"))
    run(a_fleet(8), *jobs, policy=seen)
    assert [(move.job_id, move.kind, move.lets_start) for move in seen.moves] == [("elastic", "grows", None)]


def test_the_json_form_sums_up() -> None:
    moves, _ = moved(policy("priority"), is_dry=False)
    found = moves_dict(moves)
    assert (found["count"], found["cost_device_s"], found["let_start"]) == (1, 35.0, ["whole"])


def halves(name: str, *, by_pool: dict[str, str] | None = None, saves_every_s: float = 60.0) -> Kernel:
    """Half of each of two devices is free since 10 s, and ``whole`` waits for a whole one."""
    fleet = [a_node("n1", devices=2, pool="west")]
    kernel = Kernel(*fleet, policy=pooled(name, by_pool or {}))
    for job_id in ("a", "a-2", "b", "b-2"):
        kernel.run(a_job(job_id, devices="0.5", checkpoint_every_s=saves_every_s))
    kernel.submit(a_job("whole", devices="1"), at_s=5.0)
    for job_id in ("a-2", "b-2"):
        kernel.step(ended(job_id, at_s=10.0))
    return kernel


@pytest.mark.parametrize("by_pool", [{}, {"west": "fifo"}, {"east": "fifo"}], ids=str)
def test_a_live_fleet_is_told_what_moving_would_give_under_a_policy_that_moves_nobody(
    by_pool: dict[str, str],
) -> None:
    kernel = halves("easy", by_pool=by_pool)
    before = free_of(kernel.scheduler.snapshot().capacity)
    (early,) = kernel.scheduler.proposals(100.0)
    assert early.standing is Standing.HELD_BACK
    assert early.held_back_by == "has not run for long: it is left alone for another 3m20s"
    (found,) = kernel.scheduler.proposals(310.0)
    move = found.move
    assert (move.kind, move.lets_start, found.standing) == ("moves", "whole", Standing.POSSIBLE)
    assert (move.job_id in {"a", "b"}, str(found.starts_on)) == (True, str(move.now))
    assert (move.lost_s, move.cost_device_s) == (10.0, 0.5 * (10.0 + 60.0))
    assert not moves_by_itself(kernel.scheduler.policy)
    assert free_of(kernel.scheduler.snapshot().capacity) == before


def test_a_live_fleet_is_told_who_would_lose_too_much_to_be_moved() -> None:
    kernel = halves("easy", saves_every_s=4000.0)
    (found,) = kernel.scheduler.proposals(1810.0)
    assert found.held_back_by == "would lose 30m10s of work: more than 15m00s"


@pytest.mark.parametrize("by_pool", [{}, {"west": "priority"}], ids=str)
def test_a_policy_that_moves_by_itself_tells_what_it_will_do_and_what_is_under_way(
    by_pool: dict[str, str],
) -> None:
    kernel = halves("priority", by_pool=by_pool)
    assert moves_by_itself(kernel.scheduler.policy)
    (planned,) = kernel.scheduler.proposals(310.0)
    assert (planned.standing, planned.move.lets_start) == (Standing.NEXT, "whole")
    plan = kernel.step(ticked(310.0))
    assert [stop.job_id for stop in plan.stops] == [planned.move.job_id]
    (under_way,) = kernel.scheduler.proposals(311.0)
    assert under_way.standing is Standing.UNDER_WAY
    assert dataclasses.replace(under_way.move, at_s=310.0, lost_s=10.0, cost_device_s=35.0) == planned.move


def test_rooms_for_several_jobs_are_there_beside_each_other() -> None:
    """Two halves of one device are what two halves of others can move to, and no more."""
    kernel = Kernel(a_node("n1", devices=4), policy=policy("easy"))
    for number in range(8):
        kernel.run(a_job(f"h{number}", devices="0.5", checkpoint_every_s=0.0))
    for number in range(3):
        kernel.submit(a_job(f"w{number}", devices="1"))
    for number in range(0, 8, 2):
        kernel.step(ended(f"h{number}", at_s=10.0))
    found = kernel.scheduler.proposals(400.0)
    starters = [proposal.move.lets_start for proposal in found]
    assert len(starters) == len(set(starters)) == 2
    assert len({proposal.move.job_id for proposal in found}) == 2


@settings(max_examples=40, deadline=None)
@given(snapshot=snapshots(), name=st.sampled_from(["easy", "priority", "fair-share"]))
def test_proposals_change_nothing_and_all_of_them_fit_beside_each_other(
    snapshot: Snapshot, name: str
) -> None:
    saving = {
        id: replace(entry, saved_s=entry.since_s + 5.0, is_stopping=False, claim=None)
        for id, entry in snapshot.running.items()
    }
    snapshot = replace(snapshot, running=saving)
    chosen = policy(name)
    plan, before = chosen.plan(snapshot), free_of(snapshot.capacity)
    found = [
        one for one in proposals(chosen, snapshot) if one.standing in (Standing.POSSIBLE, Standing.HELD_BACK)
    ]
    assert free_of(snapshot.capacity) == before
    capacity = snapshot.capacity
    with capacity.trial() as trial:
        for start in plan.starts:
            trial.take(snapshot.waiting[start.job_id].job, start.placement)
        for one in found:
            trial.give(snapshot.running[one.move.job_id].job, one.move.now)
        for job_id, placement in {one.move.lets_start: one.starts_on for one in found}.items():
            assert job_id is not None
            assert placement is not None
            job = snapshot.waiting[job_id].job
            assert capacity.fits(job, placement)
            trial.take(job, placement)
        for one in found:
            job = snapshot.running[one.move.job_id].job
            assert capacity.fits(job, one.move.to)
            trial.take(job, one.move.to)


@settings(max_examples=40, deadline=None)
@given(snapshot=snapshots())
def test_possible_moves_change_nothing_and_each_gang_would_fit(snapshot: Snapshot) -> None:
    saving = {
        id: replace(entry, saved_s=entry.since_s + 5.0, is_stopping=False)
        for id, entry in snapshot.running.items()
    }
    snapshot = replace(snapshot, running=saving)
    plan = policy("easy").plan(snapshot)
    before = free_of(snapshot.capacity)
    found = list(possible_moves(plan, snapshot, limits=NO_LIMITS))
    assert free_of(snapshot.capacity) == before
    for job_id, moves in found:
        assert job_id in snapshot.waiting
        assert moves
        assert all(move.lets_start == job_id for move in moves)
    with snapshot.capacity.trial() as trial:
        for start in plan.starts:
            trial.take(snapshot.waiting[start.job_id].job, start.placement)
        for move in [move for _, moves in found for move in moves]:
            trial.give(snapshot.running[move.job_id].job, move.now)
        for move in [move for _, moves in found for move in moves]:
            assert snapshot.capacity.fits(snapshot.running[move.job_id].job, move.to)
            trial.take(snapshot.running[move.job_id].job, move.to)


@settings(max_examples=20, deadline=None)
@given(snapshot=snapshots(), name=st.sampled_from(["easy", "priority", "fair-share"]))
def test_to_be_watched_changes_no_plan(snapshot: Snapshot, name: str) -> None:
    plain = BUILT_IN[name]()
    seen = watched(BUILT_IN[name]())
    assert seen.plan(snapshot) == plain.plan(snapshot)
    assert isinstance(seen, Timed) == isinstance(plain, Timed)
    for job_id in snapshot.waiting:
        assert seen.explain(snapshot, job_id) == plain.explain(snapshot, job_id)


def test_a_dry_run_is_as_if_nobody_could_be_moved() -> None:
    jobs = [a_sim_job(f"j{n}", "cpu:2..4", at=30.0 * n, takes=900.0, saves_every_s=0.0) for n in range(8)]
    dry = simulate(a_fleet(4, 4), jobs, watched(policy("priority"), is_dry=True))
    without = simulate(a_fleet(4, 4), jobs, dataclasses.replace(priority(), moves=False))
    assert dry.records == without.records


# -- quotas ---------------------------------------------------------------------------------------------


def two_models() -> tuple[Node, Node]:
    """Four V100s, with CPUs for two of them, and two K80s."""
    return a_node("v", accelerator="V100", devices=4, cpus=2), a_node(
        "k", accelerator="K80", devices=2, cpus=2
    )


def crowded(*teams: Team) -> Kernel:
    """Team a's job has the CPUs of the V100s, and could go on on K80s; team b's will want V100s, and nothing else."""
    chosen = fair_share(Teams(teams))
    assert isinstance(chosen, Preemptive)
    kernel = Kernel(*two_models(), policy=dataclasses.replace(chosen, limits=NO_LIMITS))
    kernel.run(a_job("a", devices="V100:2 | K80:2", cpus_per_device=1.0, team="a", checkpoint_every_s=60.0))
    assert str(kernel.job("a").attempt.placement) == "v[0,1]"
    return kernel


A = Team(name="a", guaranteed=(("V100", 2),))
NO_BORROWER = replace(A, borrow_limit=0)
KEEPER = Team(name="c", guaranteed=(("K80", 2),), lends=False)


def test_a_job_is_moved_to_another_model_where_its_team_may_have_that() -> None:
    plan = crowded(A).submit(a_job("b", devices="V100:2", cpus_per_device=1.0, team="b"), at_s=9.0)
    assert [stop.job_id for stop in plan.stops] == ["a"]
    assert {claim.job_id: str(claim.placement) for claim in plan.claims} == {"a": "k[0,1]", "b": "v[0,1]"}


@pytest.mark.parametrize("teams", [(NO_BORROWER,), (A, KEEPER), (NO_BORROWER, KEEPER)], ids=len)
def test_nobody_is_moved_to_a_model_that_its_team_may_not_have_or_that_is_kept_for_others(
    teams: tuple[Team, ...],
) -> None:
    kernel = crowded(*teams)
    plan = kernel.submit(a_job("b", devices="V100:2", cpus_per_device=1.0, team="b"), at_s=9.0)
    assert plan.stops == ()
    assert kernel.scheduler.proposals(900.0) == []
    found = kernel.scheduler.outlook("b", Teams(teams))
    assert found is not None
    assert not any("moved" in change for change in found.would_start)


def test_a_dry_run_proposes_no_move_to_what_is_kept_for_others() -> None:
    jobs = [
        a_sim_job("a", "V100:2 | K80:2", takes=5000.0, saves_every_s=0.0, cpus_per_device=1.0, team="a"),
        a_sim_job("b", "V100:2", at=1000.0, takes=10.0, cpus_per_device=1.0, team="b"),
    ]
    for teams, starters in (((A,), {"b"}), ((A, KEEPER), set())):
        seen = watched(fair_share(Teams(teams)), is_dry=True)
        run(Fleet(nodes=two_models()), *jobs, policy=seen)
        assert {move.lets_start for move in seen.moves} == starters


def in_pools(teams: Teams, *, inner: str = "fair-share") -> Pools:
    """The policy for the pool of both nodes, and another one for nodes that are not there."""
    return Pools({"default": policy(inner, teams)}, policy("fifo"))


@pytest.mark.parametrize("inner", ["fair-share", "max-min"])
def test_in_pools_a_dry_run_goes_by_the_quotas_of_the_pools_policy(inner: str) -> None:
    jobs = [
        a_sim_job("a", "V100:2 | K80:2", takes=5000.0, saves_every_s=0.0, cpus_per_device=1.0, team="a"),
        a_sim_job("b", "V100:2", at=1000.0, takes=10.0, cpus_per_device=1.0, team="b"),
    ]
    for teams, starters in (((A,), {"b"}), ((A, KEEPER), set()), ((NO_BORROWER,), set())):
        for chosen in (policy(inner, Teams(teams)), in_pools(Teams(teams), inner=inner)):
            seen = watched(chosen, is_dry=True)
            run(Fleet(nodes=two_models()), *jobs, policy=seen)
            assert {move.lets_start for move in seen.moves} == starters, (teams, chosen)


@pytest.mark.parametrize("teams", [(NO_BORROWER,), (A, KEEPER)], ids=len)
def test_in_pools_nothing_that_quotas_forbid_is_said_to_let_a_job_start(teams: tuple[Team, ...]) -> None:
    for quotas, is_possible in ((Teams((A,)), True), (Teams(teams), False)):
        kernel = Kernel(*two_models(), policy=without_moves(in_pools(quotas)))
        kernel.run(
            a_job("a", devices="V100:2 | K80:2", cpus_per_device=1.0, team="a", checkpoint_every_s=60.0)
        )
        kernel.submit(a_job("b", devices="V100:2", cpus_per_device=1.0, team="b"), at_s=9.0)
        found = kernel.scheduler.outlook("b", quotas)
        assert found is not None
        assert any("moved" in change for change in found.would_start) == is_possible
        assert bool(kernel.scheduler.proposals(900.0)) == is_possible


def test_moves_in_several_pools_are_there_beside_each_other() -> None:
    """A job for each of two pools, each with two halves in its way that could share a device."""
    nodes = [a_node(pool, pool=pool, accelerator=f"gpu-{pool}", devices=2) for pool in ("x", "y")]
    kernel = Kernel(*nodes, policy=Pools({"x": policy("easy")}, policy("easy")))
    for pool in ("x", "y"):
        for number in range(4):
            kernel.run(a_job(f"{pool}{number}", devices=f"gpu-{pool}:0.5", checkpoint_every_s=0.0))
        kernel.submit(a_job(f"w{pool}", devices=f"gpu-{pool}:1"))
    for pool in ("x", "y"):
        kernel.step(ended(f"{pool}0", at_s=10.0), ended(f"{pool}2", at_s=10.0))
    snapshot, chosen = kernel.scheduler.snapshot(), kernel.scheduler.policy
    before = free_of(snapshot.capacity)
    found = possible_moves(chosen.plan(snapshot), snapshot, limits=NO_LIMITS, policy=chosen)
    assert [job_id for job_id, _ in found] == ["wx", "wy"]
    assert free_of(snapshot.capacity) == before


def test_who_is_stopped_by_right_goes_on_at_once_only_where_its_team_may() -> None:
    """Team b gets its V100s back whatever becomes of a; a waits where it would take what is kept for c."""
    for teams, to in (((), "k[0,1]"), ((KEEPER,), None)):
        owner = Team(name="b", guaranteed=(("V100", 2),))
        kernel = crowded(owner, *teams)
        plan = kernel.submit(a_job("b", devices="V100:2", cpus_per_device=1.0, team="b"), at_s=9.0)
        assert [stop.job_id for stop in plan.stops] == ["a"]
        claims = {claim.job_id: str(claim.placement) for claim in plan.claims}
        assert (claims["b"], claims.get("a")) == ("v[0,1]", to)


GUARANTEES = st.sampled_from([(), (("V100", 2),), (("K80", 1),), (("V100", 1), ("K80", 1))])


@st.composite
def teams_of_two_models(draw: st.DrawFn) -> Teams:
    limits = st.sampled_from([None, 0, 1, 2])
    return Teams(
        tuple(
            Team(name=name, guaranteed=draw(GUARANTEES), borrow_limit=draw(limits), lends=draw(st.booleans()))
            for name in "abc"
        )
    )


@settings(max_examples=100, deadline=None)
@given(teams=teams_of_two_models(), data=st.data())
def test_no_plan_gives_a_team_more_than_its_limit_to_borrow(teams: Teams, data: st.DataObject) -> None:
    sizes, owners = st.sampled_from([1, 1, 2]), st.sampled_from("abc")
    fleet = [*two_models(), a_node("w", accelerator="V100", devices=4, cpus=2)]
    capacity, running = Capacity(fleet), []
    for number in range(data.draw(st.integers(1, 4))):
        size = data.draw(sizes)
        job = a_job(
            f"r{number}",
            devices=f"V100:{size} | K80:{size}",
            cpus_per_device=1.0,
            team=data.draw(owners),
            checkpoint_every_s=60.0,
        )
        if (placement := Pack().place(job, capacity, capacity.is_up)) is not None:
            capacity.take(job, placement)
            running.append((job, placement))
    waiting = [
        a_job(f"w{number}", devices=f"V100:{data.draw(sizes)}", cpus_per_device=1.0, team=data.draw(owners))
        for number in range(3)
    ]
    seen = a_snapshot(fleet, running=running, waiting=waiting, at_s=10.0)
    chosen = fair_share(teams)
    assert isinstance(chosen, Preemptive)
    plan = dataclasses.replace(chosen, limits=NO_LIMITS).plan(seen)
    jobs = {job.id: job for job in (*waiting, *(job for job, _ in running))}
    before = Accounts(teams, seen.capacity)
    most = {team.name: max(before.borrowed(team), (team.borrow_limit or 0) * MILLI) for team in teams.teams}
    with seen.capacity.trial() as trial:
        for stop in plan.stops:
            trial.give(jobs[stop.job_id], seen.running[stop.job_id].placement)
        for start in plan.starts:
            trial.take(jobs[start.job_id], start.placement)
        for claim in plan.claims:
            trial.take(jobs[claim.job_id], claim.placement)
        after = Accounts(teams, seen.capacity)
        for team in teams.teams:
            assert team.borrow_limit is None or after.borrowed(team) <= most[team.name]
