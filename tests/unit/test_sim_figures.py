"""What a report tells of deadlines and of teams."""

from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.model.quota import Team, Teams
from artesian.policy.registry import fair_share
from artesian.sim import SimJob, report, simulate
from artesian.sim.run import SimResult
from builders import cancelled
from simulations import a_fleet, a_sim_job, run

VISION = Team(name="vision", guaranteed=(("cpu", 2),))
SPEECH = Team(name="speech", guaranteed=(("any", 1),))
TEAMS = Teams((VISION, SPEECH))


def with_deadline(job: SimJob, at: float) -> SimJob:
    return SimJob(job=job.job, submit_s=job.submit_s, duration_s=job.duration_s, deadline_s=at)


# -- deadlines ----------------------------------------------------------------------------------------


def test_a_deadline_is_met_by_who_succeeds_in_time_and_missed_by_who_does_so_later() -> None:
    jobs = [with_deadline(a_sim_job(f"j{n}", takes=10.0), 15.0) for n in range(3)]
    figures = report(run(a_fleet(1), *jobs)).deadlines
    assert figures is not None
    assert (figures.jobs, figures.met, figures.missed) == (3, 1, 2)
    assert figures.late is not None
    assert (figures.late.count, figures.late.mean_s) == (2, 10.0)


def test_who_has_no_deadline_does_not_count_and_without_any_there_are_no_figures() -> None:
    assert report(run(a_fleet(1), a_sim_job("a"))).deadlines is None
    found = report(run(a_fleet(1), a_sim_job("a"), with_deadline(a_sim_job("b"), 100.0)))
    assert found.deadlines is not None
    assert found.deadlines.jobs == 1
    assert {job.job_id: job.met_deadline for job in found.jobs} == {"a": None, "b": True}


def test_who_fails_or_is_cancelled_has_missed_it() -> None:
    job = with_deadline(a_sim_job("a", takes=50.0), 100.0)
    found = report(run(a_fleet(1), job, events=[cancelled("a", at_s=5.0)])).deadlines
    assert found is not None
    assert (found.met, found.missed, found.late) == (0, 1, None)


def test_a_deadline_that_passed_before_the_submission_cannot_be_met() -> None:
    found = report(run(a_fleet(1), with_deadline(a_sim_job("a", at=50.0), 40.0))).deadlines
    assert found is not None
    assert found.missed == 1


def test_a_job_that_never_starts_has_missed_a_deadline_that_is_over_and_no_other() -> None:
    huge = [with_deadline(a_sim_job(f"huge-{at}", "cpu:9"), at) for at in (5.0, 500.0)]
    found = report(run(a_fleet(1), *huge, a_sim_job("a", takes=50.0)))
    assert {job.job_id: job.met_deadline for job in found.jobs if job.job_id != "a"} == {
        "huge-5.0": False,
        "huge-500.0": None,
    }


# -- teams --------------------------------------------------------------------------------------------


def shared(*jobs: SimJob, devices: int = 4) -> SimResult:
    return simulate(a_fleet(devices), jobs, fair_share(TEAMS))


def test_what_is_held_beyond_the_guarantee_is_borrowed() -> None:
    teams = report(shared(a_sim_job("a", "cpu:4", takes=100.0, team="vision")), TEAMS).teams
    assert teams is not None
    assert (teams["vision"].used_device_s, teams["vision"].borrowed_device_s) == (400.0, 200.0)
    assert teams["vision"].satisfaction == 1.0
    assert (teams["speech"].used_device_s, teams["speech"].satisfaction) == (0.0, None)


def test_who_waits_for_what_it_is_guaranteed_did_not_have_it() -> None:
    borrower = a_sim_job("b", "cpu:4", takes=100.0, team="vision")
    owner = a_sim_job("o", "cpu:1", at=50.0, takes=50.0, team="speech")
    teams = report(shared(borrower, owner), TEAMS).teams  # nobody is stopped in its first five minutes
    assert teams is not None
    assert (teams["speech"].wanted_device_s, teams["speech"].satisfaction) == (100.0, 0.5)


def test_parents_have_what_their_children_have() -> None:
    teams = Teams((Team(name="all"), Team(name="one", parent="all", guaranteed=(("cpu", 1),))))
    found = report(run(a_fleet(2), a_sim_job("a", "cpu:2", takes=10.0, team="one")), teams).teams
    assert found is not None
    assert found["all"] == found["one"]


def test_without_teams_there_are_no_figures_of_them() -> None:
    assert report(run(a_fleet(1), a_sim_job("a"))).teams is None


@settings(max_examples=40, deadline=None)
@given(
    told=st.lists(
        st.tuples(
            st.sampled_from(["vision", "speech", "other"]),
            st.integers(1, 4),
            st.sampled_from([0.0, 10.0, 70.0]),
            st.sampled_from([5.0, 30.0, 400.0]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_teams_used_adds_up_and_nobody_had_more_of_a_guarantee_than_it_wanted(
    told: list[tuple[str, int, float, float]],
) -> None:
    jobs = [
        a_sim_job(f"j{n}", f"cpu:{devices}", at=at, takes=takes, team=team)
        for n, (team, devices, at, takes) in enumerate(told)
    ]
    found = report(shared(*jobs), TEAMS)
    assert found.teams is not None
    used = sum(team.used_device_s for team in found.teams.values())
    assert abs(used - found.allocated_milli_us / 1e9) < 1e-3
    for team in found.teams.values():
        assert 0 <= team.borrowed_device_s <= team.used_device_s
        assert team.satisfaction is None or 0 <= team.satisfaction <= 1
    assert found.teams.get("other") is None or (
        found.teams["other"].borrowed_device_s == found.teams["other"].used_device_s
    )
