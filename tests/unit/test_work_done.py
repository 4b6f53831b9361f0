"""Work done, of a job whose gang was at work with different numbers of devices: sum of speed times time, no more."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.kernel.image import StateImage
from artesian.kernel.replay import replay
from artesian.kernel.state import State
from artesian.model.job import Cause, Job, JobKind
from artesian.model.placement import Worked
from artesian.policy.throughput import Problem, Throughputs, problem
from artesian.store import snapshots
from artesian.store.chain import START
from builders import Kernel, a_job, a_node, ended, fifo, lost, progressed, retry, ticked

V100, K80 = "V100", "K80"
RATES = {4.0: 40.0, 3.0: 33.0, 2.0: 24.0, 1.0: 13.0}
TABLE = Throughputs(
    {
        **{("lm", V100, devices): rate for devices, rate in RATES.items()},
        **{("lm", K80, devices): rate / 10 for devices, rate in RATES.items()},
    }
)


def a_gang(id: str = "j1", **more: Any) -> Job:
    given: dict[str, Any] = {
        "kind": JobKind.TRAIN,
        "devices": "V100:4",
        "profile": "lm",
        "total_steps": 100_000.0,
        "retry": retry(3, Cause.SIGNAL, Cause.NODE_LOST, backoff_s=0.0),
        **more,
    }
    return a_job(id, **given)


def the_problem(kernel: Kernel, table: Throughputs = TABLE) -> Problem:
    return problem(kernel.scheduler.snapshot(), table)[0]


def a_kernel(*jobs: Job, devices: int = 4) -> Kernel:
    kernel = Kernel(a_node("v", accelerator=V100, devices=devices), policy=fifo())
    kernel.run(*jobs)
    return kernel


def test_a_gang_that_shrank_in_place_has_done_what_it_did_with_each_size() -> None:
    kernel = a_kernel(a_gang())
    kernel.step(progressed(at_s=100.0, steps=4000.0, steps_s=100.0, workers=4))
    kernel.step(progressed(at_s=160.0, steps=5440.0, steps_s=160.0, workers=2))
    kernel.step(ticked(200.0))
    found = the_problem(kernel)
    assert kernel.state.running["j1"].worked_by(200.0) == (Worked(4.0, 100.0), Worked(2.0, 100.0))
    assert found.done.tolist() == [40 * 100 + 24 * 100]
    assert found.left.tolist() == [100_000 - 6400], "and not what all four would have done in 200 s"
    assert found.held_s.tolist() == [[200]], "it holds all of its devices as before"


def test_what_an_earlier_attempt_did_with_fewer_counts_for_the_next_one() -> None:
    kernel = a_kernel(a_gang())
    kernel.step(progressed(at_s=100.0, workers=4))
    kernel.step(progressed(at_s=150.0, workers=3))
    kernel.step(ended("j1", 1, Cause.SIGNAL, 250.0))
    assert kernel.state.running["j1"].epoch == 2
    kernel.step(ticked(260.0))
    assert the_problem(kernel).left.tolist() == [100_000 - 40 * 100 - 33 * 150 - 40 * 10]
    again = Kernel(policy=fifo(), state=State.from_image(replay(kernel.journal).image()))
    assert the_problem(again).left.tolist() == the_problem(kernel).left.tolist()


@given(
    told=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 50)), max_size=8),
    rest_s=st.integers(0, 50),
    is_over=st.booleans(),
)
def test_work_done_is_the_sum_of_speed_times_time_however_often_the_size_changed(
    told: list[tuple[int, int]], rest_s: int, is_over: bool
) -> None:
    kernel = a_kernel(a_gang())
    at_s, size, done = 0.0, 4, 0.0
    for workers, more_s in told:
        at_s, size = at_s + more_s, workers
        kernel.step(progressed(at_s=at_s, workers=workers))
        done += RATES[workers] * more_s
    kernel.step(ended("j1", 1, Cause.SIGNAL, at_s + rest_s) if is_over else ticked(at_s + rest_s))
    done += RATES[size] * rest_s
    assert the_problem(kernel).done.tolist() == [pytest.approx(done)]
    row = snapshots.encode(kernel.state, START)
    restored = snapshots.decode(row, START)
    assert restored is not None
    restored.validate()
    assert (
        the_problem(Kernel(policy=fifo(), state=restored)).done.tolist() == the_problem(kernel).done.tolist()
    )


def test_an_elastic_gang_on_few_devices_has_not_done_what_it_would_have_on_all() -> None:
    kernel = a_kernel(a_gang("j1", devices="V100:2..4"), devices=2)
    kernel.step(ticked(100.0))
    assert the_problem(kernel).done.tolist() == [24 * 100]


def test_time_with_a_size_whose_speed_nobody_knows_adds_nothing() -> None:
    table = Throughputs({("lm", V100, 4.0): 40.0})
    kernel = a_kernel(a_gang())
    kernel.step(progressed(at_s=100.0, workers=4))
    kernel.step(progressed(at_s=200.0, workers=2))
    found = the_problem(kernel, table)
    assert found.is_known.all()
    assert found.done.tolist() == [40 * 100]


def test_once_the_smaller_gang_was_measured_its_time_counts() -> None:
    table = Throughputs({("lm", V100, 4.0): 40.0})
    kernel = a_kernel(a_gang())
    kernel.step(progressed(at_s=100.0, steps=4000.0, steps_s=100.0, workers=4))
    kernel.step(progressed(at_s=200.0, steps=6000.0, steps_s=200.0, workers=2))
    assert the_problem(kernel, table).done.tolist() == [40 * 100 + 20 * 100]


def test_a_job_of_unknown_speeds_that_tells_its_curve_counts_seconds_on_all_devices() -> None:
    kernel = a_kernel(a_gang(profile=None, total_steps=None, estimated_duration_s=1000.0, parallel_share=1.0))
    kernel.step(progressed(at_s=100.0, workers=4))
    kernel.step(progressed(at_s=200.0, workers=2))
    found = the_problem(kernel)
    assert (found.is_known.tolist(), found.left.tolist()) == ([False], [1000 - 100 - 50])


def test_work_done_on_a_model_that_has_left_the_fleet_stays_done() -> None:
    kernel = Kernel(
        a_node("k", accelerator=K80, devices=4), a_node("v", accelerator=V100, devices=2), policy=fifo()
    )
    kernel.run(a_gang(devices="K80:4 | V100:2"))
    kernel.step(lost("k", at_s=100.0), ended("j1", 1, Cause.NODE_LOST, at_s=100.0))
    assert str(kernel.job("j1").attempt.placement) == "v[0,1]"
    kernel.step(ticked(150.0))
    assert the_problem(kernel).done.tolist() == [4 * 100 + 24 * 50]


def test_what_a_job_has_done_and_has_left_are_what_finish_time_fairness_takes_for_its_length() -> None:
    kernel = a_kernel(a_gang())
    kernel.step(progressed(at_s=100.0, workers=4))
    kernel.step(progressed(at_s=500.0, workers=1))
    found = the_problem(kernel)
    assert (found.done + found.left).tolist() == [100_000]


def test_a_record_of_an_earlier_version_is_at_work_with_all_its_devices() -> None:

    kernel = a_kernel(a_gang())
    kernel.step(ticked(100.0))
    image = msgspec.json.decode(msgspec.json.encode(kernel.state.image()))
    for attempt in image["jobs"][0]["attempts"]:
        del attempt["worked"], attempt["told_s"]
    state = State.from_image(msgspec.convert(image, StateImage))
    assert the_problem(Kernel(policy=fifo(), state=state)).done.tolist() == [40 * 100]
