"""A user changes how many devices a job asks for: what waits, what runs, and what is over."""

import pytest

from artesian.kernel.lifecycle import JobState
from artesian.kernel.state import State
from artesian.model.errors import UnitError
from artesian.model.job import Cause
from artesian.model.resources import parse_devices
from artesian.model.resources import resized as resized_to
from builders import Kernel, a_job, a_node, cancelled, ended, resized, retry, started, submitted, ticked

RUNNING, STOPPING, QUEUED = JobState.RUNNING, JobState.STOPPING, JobState.QUEUED


def test_a_count_keeps_the_kinds_and_their_order() -> None:
    devices = parse_devices("H100:8 | nvidia:A100:80GB:16")
    assert resized_to(devices, "4..6") == parse_devices("H100:4..6 | nvidia:A100:80GB:4..6")
    assert resized_to(parse_devices("0.5"), "2") == parse_devices("2")
    assert resized_to(parse_devices("cpu:8"), "0.5") == parse_devices("cpu:0.5")


@pytest.mark.parametrize("count", ["", "0", "-1", "4..2", "H100:4", "4 | 8", "1.5", "9" * 40, "host"])
def test_what_is_no_count_is_refused(count: str) -> None:
    with pytest.raises(UnitError):
        resized_to(parse_devices("cpu:1"), count)


def test_a_job_that_waits_asks_for_the_new_number_at_once() -> None:
    kernel = Kernel(a_node(devices=4))
    kernel.run(a_job("j1", devices="cpu:4"), a_job("j2", devices="cpu:4"))
    kernel.step(resized("j1", "cpu:2"), started("j1", 1))
    kernel.step(ended("j1", 1, Cause.RESIZED))
    assert kernel.job("j1").attempt.placement.devices == 2
    plan = kernel.step(resized("j2", "cpu:1..2", user="ann"))
    assert [(start.job_id, start.placement.devices) for start in plan.starts] == [("j2", 2)]


@pytest.mark.parametrize("devices", ["cpu:2", "cpu:8", "cpu:5..8"])
def test_a_running_job_stops_with_its_grace_and_goes_on_with_the_new_number(devices: str) -> None:
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job("j1", devices="cpu:4", grace_s=7.0, retry=retry(0, Cause.SIGNAL)))
    kernel.step(started("j1", 1))
    (stop,) = kernel.step(resized("j1", devices, user="ann")).stops
    assert (stop.cause, stop.grace_s, stop.reason) == (Cause.RESIZED, 7.0, f"resized to {devices} by ann")
    assert kernel.job("j1").state is STOPPING
    (start,) = kernel.step(ended("j1", 1, Cause.SIGNAL)).starts
    assert (start.epoch, start.placement.devices) == (2, int(devices[-1]))
    assert kernel.job("j1").attempts[0].outcome is not None
    assert kernel.job("j1").counted_retries == 0


@pytest.mark.parametrize("devices", ["cpu:4", "cpu:2..8", "cpu:1 | cpu:4"])
def test_an_attempt_that_holds_what_is_asked_for_now_runs_on(devices: str) -> None:
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job("j1", devices="cpu:3..4"))
    kernel.step(started("j1", 1))
    assert kernel.step(resized("j1", devices)).stops == ()
    record = kernel.job("j1")
    assert (record.state, record.job.devices) == (RUNNING, parse_devices(devices))
    kernel.step(ended("j1", 1, Cause.NODE_LOST), ticked(9.0))
    assert record.epoch == 2


def test_the_same_again_and_a_job_that_is_over_or_unknown_change_nothing() -> None:
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job("j1", devices="cpu:4"))
    kernel.step(started("j1", 1))
    kernel.step(resized("j1", "cpu:2"))
    before = kernel.state.stale_events
    assert kernel.step(resized("j1", "cpu:2"), resized("no", "cpu:2")).is_empty
    kernel.step(ended("j1", 1, Cause.SIGNAL))
    kernel.step(ended("j1", 2, Cause.COMPLETED))
    kernel.step(resized("j1", "cpu:1"))
    assert kernel.state.stale_events == before + 3
    assert kernel.job("j1").job.devices == parse_devices("cpu:2")


def test_a_cancel_wins_over_a_resize_and_two_resizes_end_at_the_last() -> None:
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job("j1", devices="cpu:4"), a_job("j2", devices="cpu:4"))
    kernel.step(started("j1", 1), started("j2", 1))
    kernel.step(resized("j1", "cpu:2"), resized("j1", "cpu:1"), resized("j2", "cpu:2"), cancelled("j2"))
    kernel.step(ended("j1", 1, Cause.SIGNAL), ended("j2", 1, Cause.SIGNAL))
    assert kernel.job("j1").attempt.placement.devices == 1
    assert kernel.job("j2").state is JobState.CANCELLED


def test_a_job_that_backs_off_does_so_until_its_time_and_then_gets_the_new_number() -> None:
    kernel = Kernel(a_node(devices=8))
    kernel.run(a_job("j1", devices="cpu:4", retry=retry(2, Cause.SIGNAL, backoff_s=5.0)))
    kernel.step(ended("j1", 1, Cause.SIGNAL, 10.0))
    hold = kernel.job("j1").hold
    assert kernel.step(resized("j1", "cpu:2", 11.0)).is_empty
    assert (kernel.job("j1").state, kernel.job("j1").hold) == (JobState.BACKING_OFF, hold)
    (start,) = kernel.step(ticked(15.0)).starts
    assert start.placement.devices == 2


def test_what_was_submitted_is_still_known_and_a_replay_gives_the_same() -> None:
    job = a_job("j1", devices="cpu:4")
    kernel = Kernel(a_node(devices=8))
    kernel.run(job)
    kernel.step(started("j1", 1))
    kernel.step(resized("j1", "cpu:2"), resized("j1", "cpu:1"))
    kernel.step(submitted(job))
    assert kernel.job("j1").submitted_job == job
    again = State()
    for record in kernel.journal:
        again.apply(record)
    again.validate()
    assert again.image() == kernel.state.image()
