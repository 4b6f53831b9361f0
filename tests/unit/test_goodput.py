"""Goodput of a job: by hand, and against the waterfall it is a part of."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.goodput import Goodput, Window, goodput_json, goodput_text, job_goodput
from artesian.model.job import Cause
from artesian.model.ledger import US, Loss, Stage
from artesian.wire import Message
from builders import Kernel, a_node, ended, started, ticked
from worker_messages import a_training, account, began, killed, left, losses, recovered, saved, step


def told_twice() -> tuple[Kernel, dict[int, list[Message]]]:
    """One worker on two devices: killed at 20, waiting until 24, and done at 50."""
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_training("cpu:2", workers=1), at_s=2)
    kernel.step(started(at_s=3))
    kernel.step(ended(cause=Cause.SIGNAL, at_s=20))
    kernel.step(ticked(at_s=24))
    kernel.step(started(epoch=2, at_s=25))
    kernel.step(ended(epoch=2, at_s=50))
    first: list[Message] = [
        began(0, 3, 1),
        step(0, 1, 5, 10),
        saved(1, 10),
        step(0, 2, 10, 18),
        killed(0, 19),
    ]
    second: list[Message] = [began(0, 26, 1), step(0, 2, 30, 38), step(0, 3, 38, 46)]
    return kernel, {1: first, 2: second}


def goodput(kernel: Kernel, said: dict[int, list[Message]], **more: float) -> Goodput:
    messages = {("j1", epoch): told for epoch, told in said.items()}
    return job_goodput(kernel.state, kernel.job(), messages, **{"at_s": 60.0, **more})


def seconds(window: Window | None) -> dict[str, float]:
    assert window is not None
    lost = {cause.value: amount / US for cause, amount in window.lost_us.items()}
    return {"productive": window.productive_us / US, **lost}


def test_every_device_second_from_the_first_attempt_on_has_one_cause() -> None:
    kernel, said = told_twice()
    found = goodput(kernel, said)
    assert seconds(found.cumulative) == {
        "productive": 2 * (5 + 8 + 8.0),
        "start_up": 2 * 3.0,
        "lost_work": 2 * 9.0,
        "recovery": 2 * (1 + 6.0),
        "waiting": 2 * 4.0,
        "wind_down": 2 * 4.0,
    }
    assert found.cumulative is not None
    assert found.cumulative.total_us == 2 * (50 - 2) * US
    assert found.cumulative.share == pytest.approx(42 / 96)


def test_the_sliding_one_looks_back_from_the_end_of_a_job_that_is_over() -> None:
    kernel, said = told_twice()
    found = goodput(kernel, said, sliding_s=20.0)
    assert found.sliding is not None
    assert (found.sliding.start_s, found.sliding.end_s) == (30.0, 50.0)
    assert found.sliding.share == pytest.approx(16 / 20)
    early = goodput(kernel, said, at_s=22.0, sliding_s=4.0)
    assert seconds(early.sliding) == {"productive": 0.0, "lost_work": 2.0, "recovery": 2.0, "waiting": 4.0}


def test_what_nobody_told_is_unknown_and_a_job_that_never_started_has_none() -> None:
    kernel, _ = told_twice()
    unknown = goodput(kernel, {})
    assert (unknown.cumulative, unknown.sliding) == (None, None)
    queued = Kernel()
    queued.submit(a_training("cpu:2"), at_s=0)
    assert goodput(queued, {}) == Goodput(job_id="j1", cumulative=None, sliding=None)
    with pytest.raises(ValueError, match="sliding_s must be positive"):
        goodput(kernel, {}, sliding_s=0.0)
    assert Window(start_s=1, end_s=1, productive_us=0, lost_us={}).share is None


@settings(deadline=None)
@given(cut=st.floats(3, 60), restart_s=st.floats(0, 9), detect_s=st.none() | st.floats(0, 9))
def test_the_held_part_is_that_of_the_waterfall_and_windows_add_up(
    cut: float, restart_s: float, detect_s: float | None
) -> None:
    kernel, said = told_twice()
    said[2].append(recovered(44.0, restart_s, detect_s=detect_s))
    found = goodput(kernel, said, at_s=cut, sliding_s=7.0)
    whole = account(kernel.state, said, until=min(cut, 50))
    assert found.cumulative is not None
    lost = {
        cause.value: us / US for cause, us in found.cumulative.lost_us.items() if cause is not Loss.WAITING
    }
    assert lost == pytest.approx(losses(whole, Stage.PRODUCTIVE), abs=1e-5)
    assert found.cumulative.productive_us / US == pytest.approx(left(whole, Stage.PRODUCTIVE), abs=1e-5)
    assert found.cumulative.total_us / US == pytest.approx(2 * (min(cut, 50) - 2), abs=1e-5)
    assert found.sliding is not None
    assert found.sliding.total_us / US == pytest.approx(2 * min(7.0, min(cut, 50) - 2), abs=1e-5)


def test_in_words_both_shares_and_the_largest_losses_are_named() -> None:
    kernel, said = told_twice()
    assert goodput_text(goodput(kernel, said)) == (
        "43.8% of 0.03 device-hours; lost most to lost work 18.8%, recovery 14.6%, waiting 8.3%"
    )
    assert "43.8% of 0.03 device-hours, 80.0% in the last 20.0 s; lost" in goodput_text(
        goodput(kernel, said, sliding_s=20.0)
    )
    assert goodput_text(goodput(kernel, {})) == "unknown"


def test_as_json_the_device_seconds_add_up_and_what_is_unknown_is_null() -> None:
    kernel, said = told_twice()
    told = goodput_json(goodput(kernel, said))["cumulative"]
    assert told["productive"] + sum(loss["device_s"] for loss in told["lost"]) == 96.0
    assert [loss["cause"] for loss in told["lost"]][:2] == ["lost_work", "recovery"]
    assert told["share"] == pytest.approx(42 / 96)
    assert goodput_json(goodput(kernel, {})) == {"cumulative": None, "sliding": None}
