"""Orders: classes of priority, deadlines and attained service, and that nobody starves where they age."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.job import PRIORITY_CLASSES
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.policy.base import Order
from artesian.policy.order import AgedPriority, EarliestDeadline, LeastAttained, ShortestAged
from artesian.sim import SimJob
from builders import a_job, a_waiting
from jobfiles import parse

HOUR_S = 3600.0


def waiting(id: str, submitted_s: float = 0.0, served_device_s: float = 0.0, **more: Any) -> WaitingJob:
    return replace(a_waiting(a_job(id, **more), submitted_s), served_device_s=served_device_s)


def order_of(order: Order, *entries: WaitingJob) -> list[str]:
    return [entry.job.id for entry in WaitingQueue(entries).walk(order.key)]


def test_a_higher_priority_goes_first_until_the_lower_one_has_waited_long_enough() -> None:
    order = AgedPriority(step_s=HOUR_S)
    low = waiting("low")
    assert order_of(order, low, waiting("high", 0.9 * HOUR_S, priority=1)) == ["high", "low"]
    assert order_of(order, low, waiting("high", 1.1 * HOUR_S, priority=1)) == ["low", "high"]


def test_the_earliest_deadline_goes_first_and_a_job_without_one_has_a_far_one() -> None:
    order = EarliestDeadline(patience_s=100.0)
    none, soon = waiting("none", 0.0), waiting("soon", 50.0, deadline_s=10.0)
    late = waiting("late", 95.0, deadline_s=10.0)
    assert order_of(order, none, late, soon) == ["soon", "none", "late"]


def test_who_has_been_served_less_goes_first_and_within_a_level_who_came_first() -> None:
    order = LeastAttained(levels_device_s=(100.0, 1000.0), step_s=1e6)
    entries = [
        waiting("sunk", 0.0, served_device_s=1000.0),
        waiting("middle", 1.0, served_device_s=999.0),
        waiting("fresh", 3.0, served_device_s=0.0),
        waiting("nearly", 2.0, served_device_s=99.0),
    ]
    assert order_of(order, *entries) == ["nearly", "fresh", "middle", "sunk"]
    assert [order.level(served) for served in (0, 99, 100, 999, 1000)] == [0, 0, 1, 1, 2]


def test_short_jobs_go_first_small_ones_before_large_ones_and_unknown_ones_in_between() -> None:
    order = ShortestAged(unknown_s=HOUR_S)
    entries = [
        waiting("long", estimated_duration_s=2 * HOUR_S),
        waiting("unknown"),
        waiting("gang", devices="cpu:4", estimated_duration_s=0.4 * HOUR_S),
        waiting("short", estimated_duration_s=0.5 * HOUR_S),
        waiting("urgent", estimated_duration_s=9 * HOUR_S, priority=1),
    ]
    assert order_of(order, *entries) == ["urgent", "short", "gang", "unknown", "long"]


@given(
    st.floats(1, 1e6),
    st.integers(1, 512),
    st.floats(0, 1e9),
    st.none() | st.floats(1, 1e6),
    st.integers(1, 64),
)
def test_nobody_is_overtaken_by_who_comes_after_its_patience(
    estimate_s: float, devices: int, submitted_s: float, other_s: float | None, other_devices: int
) -> None:
    order = ShortestAged()
    patience_s = order.patience * estimate_s * math.sqrt(devices)
    job = waiting("a", submitted_s, devices=f"cpu:{devices}", estimated_duration_s=estimate_s)
    late = waiting(
        "b",
        (submitted_s + patience_s) * (1 + 1e-9),
        devices=f"cpu:{other_devices}",
        estimated_duration_s=other_s,
    )
    assert order.key(job) < order.key(late)


@pytest.mark.parametrize("order", [AgedPriority(), EarliestDeadline(), LeastAttained()], ids=repr)
@given(
    priority=st.integers(-20, 20),
    others=st.lists(st.tuples(st.integers(-20, 20), st.none() | st.floats(1, 1e6)), max_size=5),
    served=st.floats(0, 1e9),
)
def test_nothing_starves_who_waits_long_enough_goes_before_all_that_are_yet_to_come(
    order: Order, priority: int, others: list[tuple[int, float | None]], served: float
) -> None:
    poor = waiting("poor", 0.0, served, priority=priority)
    later_s = 60 * 86400.0
    rivals = [
        waiting(f"r{number}", later_s, priority=priority_, deadline_s=deadline_s)
        for number, (priority_, deadline_s) in enumerate(others)
    ]
    assert order_of(order, *rivals, poor)[0] == "poor"


@pytest.mark.parametrize(("name", "value"), PRIORITY_CLASSES.items())
def test_a_job_file_names_a_class_of_priority(name: str, value: int) -> None:
    assert parse(f"{{name: x, devices: 1, command: [true], priority: {name}}}").priority == value


def test_a_job_file_has_a_deadline_and_how_often_it_saves() -> None:
    job = parse("{name: x, devices: 1, command: [true], deadline: 6h, checkpoint: {interval: 10m}}")
    assert (job.deadline_s, job.checkpoint_every_s, job.checkpoint_every_steps) == (6 * HOUR_S, 600.0, None)


@pytest.mark.parametrize(
    ("deadline_s", "every_s", "expected"),
    [(None, None, (None, None)), (50.0, 5.0, (40.0, 5.0)), (10.0, 0.0, (None, 0.0))],
)
def test_the_scheduler_is_told_the_deadline_and_the_checkpoints_of_a_trace(
    deadline_s: float | None, every_s: float | None, expected: tuple[float | None, float | None]
) -> None:
    entry = SimJob(
        job=a_job("x"), submit_s=10.0, duration_s=5.0, deadline_s=deadline_s, checkpoint_every_s=every_s
    )
    assert (entry.told.deadline_s, entry.told.checkpoint_every_s) == expected


@pytest.mark.parametrize(
    "refused", [{"deadline_s": 0.0}, {"deadline_s": math.inf}, {"checkpoint_every_s": -1.0}]
)
def test_a_job_with_a_deadline_in_the_past_is_none(refused: dict[str, Any]) -> None:
    make: Callable[[], object] = lambda: a_job("x", **refused)  # noqa: E731 - said once
    with pytest.raises(ValueError, match="job x"):
        make()
