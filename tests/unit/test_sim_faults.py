"""Nodes that fail and come back, what that costs jobs, and how fair it was to them."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.lifecycle import JobState
from artesian.model.events import NodeJoined, NodeLost
from artesian.model.ledger import Loss, Stage
from artesian.sim import NodeFaults, report, simulate
from builders import fifo
from simulations import a_fleet, a_sim_job, job, run

DAY_S = 86_400.0


@given(
    st.integers(1, 20),
    st.floats(0.01, 50),
    st.floats(1, 10 * DAY_S),
    st.integers(0, 2**32),
    st.integers(0, 200),
)
def test_a_node_is_lost_only_when_it_is_up_and_comes_back_when_it_is_repaired(
    nodes: int, rate: float, repair_s: float, seed: int, count: int
) -> None:
    fleet = a_fleet(*[1] * nodes)
    lost_s: dict[str, float] = {}
    before_s = 0.0
    for event in islice(NodeFaults(per_node_day=rate, repair_s=repair_s).events(fleet, seed), count):
        assert event.at_s >= before_s
        before_s = event.at_s
        if isinstance(event, NodeLost):
            assert event.node_id not in lost_s
            lost_s[event.node_id] = event.at_s
        else:
            assert isinstance(event, NodeJoined)
            assert event.at_s == pytest.approx(lost_s.pop(event.node.id) + repair_s)


def test_failures_come_as_often_as_the_rate_says() -> None:
    fleet = a_fleet(*[1] * 100)
    faults = NodeFaults(per_node_day=0.5, repair_s=1.0).events(fleet, seed=1)
    losses = [event for event in islice(faults, 20_000) if isinstance(event, NodeLost)]
    per_node_day = len(losses) / (losses[-1].at_s / DAY_S) / 100
    assert per_node_day == pytest.approx(0.5, rel=0.05)  # 10,000 of them: 1% is one standard deviation


def test_a_rate_of_zero_brings_nothing_and_a_wrong_one_is_refused() -> None:
    assert not list(NodeFaults(per_node_day=0, repair_s=1).events(a_fleet(1), 0))
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="per_node_day"):
            NodeFaults(per_node_day=wrong, repair_s=1)
        with pytest.raises(ValueError, match="repair_s"):
            NodeFaults(per_node_day=1, repair_s=wrong)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.floats(1, 2000), st.sampled_from([0.0, 50.0, None]))
def test_under_faults_all_jobs_end_and_the_ledger_still_adds_up(
    seed: int, rate: float, every_s: float | None
) -> None:
    fleet = a_fleet(2, 2)
    jobs = [
        a_sim_job(name, takes=100.0, at=10.0 * number, start_up_s=5.0, saves_every_s=every_s)
        for number, name in enumerate("abcdef")
    ]
    rate = min(rate, 300.0) if every_s is None else rate  # else nothing would ever get through
    faults = NodeFaults(per_node_day=rate, repair_s=30.0).events(fleet, seed)
    result = simulate(fleet, jobs, fifo(), faults=faults)
    assert all(record.state is JobState.SUCCEEDED for record in result.state.jobs.values())
    waterfall = report(result).waterfall  # its constructor adds the losses up
    productive = waterfall.left_us(Stage.PRODUCTIVE)
    assert productive == pytest.approx(6 * 100 * 10**6, abs=100)


def test_what_a_lost_node_costs_is_the_work_since_the_last_checkpoint_and_the_start_up() -> None:
    fleet = a_fleet(1)
    node = fleet.nodes[0]
    result = simulate(
        fleet,
        [a_sim_job("a", takes=100.0, start_up_s=10.0, saves_every_s=30.0)],
        fifo(),
        events=[NodeLost(at_s=80.0, node_id=node.id), NodeJoined(at_s=100.0, node=node)],
    )
    # 70 s of work until 80 s, 60 s of them saved; from 100 s on: start-up, and the other 40 s.
    assert job(result, "a").ended_s == 150.0
    stages = {stage.stage: stage for stage in report(result).waterfall.stages}
    assert stages[Stage.PRODUCTIVE].lost_us == {
        Loss.START_UP: 10 * 10**6,
        Loss.RECOVERY: 10 * 10**6,
        Loss.LOST_WORK: 10 * 10**6,
    }
    assert stages[Stage.HEALTHY].lost_us == {Loss.NODE_LOST: 20 * 10**6}


def test_a_job_that_can_never_start_ends_a_simulation_whose_faults_never_end() -> None:
    fleet = a_fleet(1)
    faults = NodeFaults(per_node_day=10, repair_s=100).events(fleet, 0)
    result = simulate(
        fleet,
        [a_sim_job("huge", "cpu:2"), a_sim_job("a", takes=DAY_S, saves_every_s=0.0)],
        fifo(),
        faults=faults,
    )
    assert job(result, "a").state is JobState.SUCCEEDED
    assert set(result.reasons) == {"huge"}


def test_finish_time_fairness_is_one_where_everybody_gets_the_same_part() -> None:
    # Alone all the time: as fast as it can be.
    assert [
        entry.finish_time_ratio for entry in report(run(a_fleet(1), a_sim_job("a", takes=10.0))).jobs
    ] == [1.0]
    # Two who ask for twice what there is: each may take twice as long. One does not, the other waits.
    figures = report(run(a_fleet(1), a_sim_job("a", takes=10.0), a_sim_job("b", takes=10.0)))
    first, second = (entry.finish_time_ratio for entry in figures.jobs)
    assert first == pytest.approx(10 / (10 * 2))
    assert second == pytest.approx(20 / (10 * 1.5))
    assert figures.finish_time_ratio is not None
    assert figures.finish_time_ratio.largest == second


def test_figures_by_team_and_by_device_are_those_of_their_jobs() -> None:
    figures = report(
        run(
            a_fleet(4),
            a_sim_job("a", takes=10.0, team="vision"),
            a_sim_job("b", "cpu:2", takes=30.0, team="speech"),
        )
    )
    vision, speech = figures.by_team["vision"], figures.by_team["speech"]
    assert vision.jct is not None
    assert (vision.jobs, vision.jct.mean_s, vision.held_milli_us) == (1, 10.0, 1000 * 10 * 10**6)
    assert speech.held_milli_us == 2000 * 30 * 10**6
    assert sum(group.held_milli_us for group in figures.by_accelerator.values()) == figures.allocated_milli_us
