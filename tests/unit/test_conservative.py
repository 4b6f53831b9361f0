"""Conservative backfill: everybody has a reservation, and none is put off by who comes later."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.lifecycle import JobState
from artesian.kernel.scheduler import Scheduler
from artesian.model.events import Event
from artesian.model.job import Job
from artesian.policy.conservative import Conservative
from artesian.policy.order import PriorityFifo
from artesian.policy.place import Pack
from artesian.policy.profile import Profile
from builders import a_job, a_node, a_placement, a_snapshot, ended, joined, nodes, submitted

CONSERVATIVE = Conservative(order=PriorityFifo(), place=Pack())


def lasting(id: str, devices: int, seconds: float | None) -> Job:
    return a_job(id, devices=f"cpu:{devices}", estimated_duration_s=seconds)


def of(*waiting: Job, busy: int = 2, until_s: float | None = 100.0) -> dict[str, float]:
    """Return when each job is to start, on four devices of which some are busy."""
    running = [(lasting("runs", busy, until_s), a_placement(("n", range(busy))))]
    snapshot = a_snapshot([a_node("n", devices=4)], waiting=waiting, running=running)
    starts = {start.job_id: 0.0 for start in CONSERVATIVE.plan(snapshot).starts}
    return starts | {entry.job.id: entry.at_s for entry in CONSERVATIVE.reservations(snapshot)}


def test_everybody_who_waits_has_a_reservation_in_order() -> None:
    assert of(lasting("a", 4, 50), lasting("b", 4, 50), lasting("c", 4, 50)) == {"a": 100, "b": 150, "c": 200}


def test_a_job_fills_the_gap_that_puts_nobody_off() -> None:
    assert of(lasting("a", 4, 50), lasting("short", 2, 100)) == {"short": 0, "a": 100}
    assert of(lasting("a", 4, 50), lasting("long", 2, 101)) == {"a": 100, "long": 150}


def test_the_second_that_waits_is_not_put_off_either_which_easy_would_do() -> None:
    """At 100 s ``a`` takes three of four; ``b`` needs two from 150 s on; ``c`` would hold one until 300 s."""
    waiting = (lasting("a", 3, 50), lasting("b", 4, 10), lasting("c", 1, 300))
    assert of(*waiting) == {"a": 100, "b": 150, "c": 160}


def test_without_an_estimate_nobody_knows_when() -> None:
    assert of(lasting("a", 4, 50), lasting("b", 1, 5), until_s=None) == {"a": math.inf, "b": 0}
    assert of(lasting("a", 4, None), lasting("b", 1, 100), lasting("c", 1, 101)) == {
        "a": 100,
        "b": 0,
        "c": math.inf,
    }


def test_an_elastic_gang_takes_what_is_nobodys() -> None:
    """Two are free for good but for the 10 s from 100 s on, in which ``a`` needs three of the four."""
    running = [(lasting("runs", 2, 100), a_placement(("n", range(2))))]
    elastic = a_job("e", devices="cpu:1..4", estimated_duration_s=500.0)
    snapshot = a_snapshot([a_node("n", devices=4)], waiting=[lasting("a", 3, 10), elastic], running=running)
    assert [(s.job_id, s.placement.devices) for s in CONSERVATIVE.plan(snapshot).starts] == [("e", 1)]


def test_why_tells_the_reserved_start() -> None:
    running = [(lasting("runs", 2, 100), a_placement(("n", range(2))))]
    waiting = [lasting("a", 4, 50), lasting("b", 4, 50)]
    snapshot = a_snapshot([a_node("n", devices=4)], waiting=waiting, running=running)
    first, second = (CONSERVATIVE.explain(snapshot, id) for id in "ab")
    assert first is not None
    assert second is not None
    assert first.unblock.endswith("its start is reserved in 1m40s")
    assert second.text.startswith("a (a) is ahead of it")
    assert second.unblock.endswith("its start is reserved in 2m30s")


@pytest.mark.parametrize(
    ("devices", "lasts_s", "start_s"),
    [(1, 5.0, 0.0), (2, 5.0, 10.0), (3, math.inf, 20.0), (2, 10.0, 10.0), (4, 1.0, math.inf), (0, 1.0, 0.0)],
)
def test_a_profile_finds_the_first_gap_that_is_long_enough(
    devices: int, lasts_s: float, start_s: float
) -> None:
    profile = Profile(np.array([-math.inf, 10.0, 20.0, math.inf]), 0.0)
    assert profile.earliest_s(devices, lasts_s) == start_s


@settings(deadline=None)
@given(
    ends=st.lists(st.integers(-1, 20), min_size=1, max_size=8),
    takes=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 15)), max_size=8),
    asked=st.tuples(st.integers(1, 5), st.integers(1, 15)),
)
def test_a_profile_answers_as_counting_second_by_second_does(
    ends: list[int], takes: list[tuple[int, int]], asked: tuple[int, int]
) -> None:
    profile = Profile(np.array([float(end) for end in ends]), 0.0)
    seconds = [sum(end <= second for end in ends) for second in range(400)]
    for devices, lasts in [*takes, asked]:
        expected = next(
            (
                second
                for second in range(300)
                if all(free >= devices for free in seconds[second : second + lasts])
            ),
            math.inf,
        )
        assert profile.earliest_s(devices, float(lasts)) == expected
        if expected < math.inf:
            profile.take(expected, float(lasts), devices)
            for second in range(int(expected), int(expected) + lasts):
                seconds[second] -= devices
            assert profile.least(expected, float(lasts)) >= 0


@settings(deadline=None, max_examples=60)
@given(
    jobs=st.lists(
        st.tuples(st.integers(1, 8), st.integers(1, 30), st.integers(0, 40)), min_size=1, max_size=20
    )
)
def test_with_true_estimates_no_reservation_is_ever_put_off(jobs: list[tuple[int, int, int]]) -> None:
    """``jobs`` are (devices, duration, submitted); each ends exactly when its estimate says."""
    scheduler = Scheduler(CONSERVATIVE)
    scheduler.step([joined(node) for node in nodes(2, devices=4)])
    arrivals = sorted(
        (float(at_s), f"j{number:02}", lasting(f"j{number:02}", devices, float(seconds)))
        for number, (devices, seconds, at_s) in enumerate(jobs)
    )
    ends: list[tuple[float, str]] = []
    reserved: dict[str, float] = {}
    while arrivals or ends:
        now_s = min([entry[0] for entry in arrivals[:1]] + [end[0] for end in ends])
        events: list[Event] = [ended(id, at_s=now_s) for at_s, id in ends if at_s == now_s]
        ends = [end for end in ends if end[0] > now_s]
        while arrivals and arrivals[0][0] == now_s:
            events.append(submitted(arrivals.pop(0)[2], now_s))
        for start in scheduler.step(events).starts:
            assert now_s <= reserved.get(start.job_id, math.inf)
            estimate_s = scheduler.state.jobs[start.job_id].job.estimated_duration_s
            assert estimate_s is not None
            ends.append((now_s + estimate_s, start.job_id))
        found = {r.job.id: r.at_s for r in CONSERVATIVE.reservations(scheduler.snapshot())}
        assert found.keys() == scheduler.state.waiting.keys()
        for job_id, at_s in found.items():
            assert at_s <= reserved.get(job_id, math.inf), "put off"
            reserved[job_id] = at_s
    assert all(record.state is JobState.SUCCEEDED for record in scheduler.state.jobs.values())
