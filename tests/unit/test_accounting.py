"""The ledger behind the waterfall: computed by hand."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest

from artesian.kernel.gang import Gang
from artesian.kernel.progress import AttemptLog
from artesian.kernel.state import State
from artesian.model.job import Cause
from artesian.model.ledger import US, Ceiling, Stage
from artesian.model.placement import Placement
from artesian.wire import (
    Message,
    Phase,
    Restored,
    StepCommitted,
)
from builders import (
    Kernel,
    a_job,
    a_node,
    cancelled,
    ended,
    excluded,
    joined,
    lost,
    retry,
    returned,
    started,
    ticked,
)
from worker_messages import (
    CEILINGS,
    a_training,
    account,
    began,
    killed,
    left,
    losses,
    phase,
    recovered,
    restored,
    saved,
    slow,
    step,
)


def killed_and_resumed() -> tuple[State, dict[int, list[Message]]]:
    """Two workers on two devices; worker 1 is killed in step 4, and the job goes on from step 2."""
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_training(), at_s=5)
    kernel.step(started(epoch=1, at_s=6))
    kernel.step(ended(epoch=1, cause=Cause.SIGNAL, at_s=27))
    kernel.step(ticked(at_s=28))
    kernel.step(started(epoch=2, at_s=29))
    kernel.step(ended(epoch=2, at_s=51))
    first: list[Message] = [killed(1, 25), saved(2, 19)]
    second: list[Message] = []
    for rank in (0, 1):
        first += [began(rank, 7), phase(rank, Phase.START_UP, 7, 10)]
        first += [step(rank, 1, 10, 14), step(rank, 2, 14, 18)]
        first += [phase(rank, Phase.CHECKPOINT_STALL, 18, 19), step(rank, 3, 19, 23)]
        second += [began(rank, 30), phase(rank, Phase.RESTORE, 32, 33), restored(rank, 2, 33)]
        second += [step(rank, 3, 34, 38), phase(rank, Phase.DATA_WAIT, 38, 39), step(rank, 4, 39, 43)]
        second += [phase(rank, Phase.EVALUATION, 43, 44), step(rank, 5, 45, 49)]
    return kernel.state, {1: first, 2: second}


def test_a_kill_and_a_resume_are_accounted_for_to_the_second() -> None:
    state, progress = killed_and_resumed()
    result = account(state, progress, until=60)
    assert result.nameplate_us == 120 * US
    assert losses(result, Stage.HEALTHY) == {}
    assert losses(result, Stage.ALLOCATED) == {"idle": 28.0, "waiting": 2.0}
    assert losses(result, Stage.PRODUCTIVE) == {
        "start_up": 10.0,
        "checkpoint_stall": 2.0,
        "lost_work": 12.0,
        "recovery": 16.0,
        "data_wait": 2.0,
        "evaluation": 2.0,
        "between_steps": 2.0,
        "wind_down": 4.0,
    }
    assert left(result, Stage.PRODUCTIVE) == 40.0
    assert losses(result, Stage.MODEL_FLOPS) == {"below_ceiling": 20.0}
    assert left(result, Stage.MODEL_FLOPS) == 20.0
    assert result.notes == (
        "MFU against measured fp32, 1 GFLOP/s per device (nameplate unknown)",
        "model FLOPs: by the formula, causal attention counted half",
    )


@pytest.mark.parametrize("cut", [0, 5, 12.25, 18.5, 24, 26, 27.5, 31, 36.125, 43.5, 50, 60])
def test_two_adjacent_windows_add_up_to_the_whole(cut: float) -> None:
    state, progress = killed_and_resumed()
    whole = account(state, progress, until=60)
    parts = [account(state, progress, until=cut), account(state, progress, since=cut, until=60)]
    assert sum(part.nameplate_us for part in parts) == whole.nameplate_us
    for stage in Stage:
        together: dict[str, float] = {}
        for part in parts:
            for cause, amount in losses(part, stage).items():
                together[cause] = together.get(cause, 0) + amount
        assert together == losses(whole, stage)


@pytest.mark.parametrize("seed", range(5))
def test_messages_may_come_in_any_order(seed: int) -> None:
    state, progress = killed_and_resumed()
    shuffled = {epoch: Random(seed).sample(said, len(said)) for epoch, said in progress.items()}
    assert account(state, shuffled, until=60) == account(state, progress, until=60)


def test_a_window_that_ends_before_it_starts_is_refused_and_an_empty_one_is_empty() -> None:
    state, progress = killed_and_resumed()
    with pytest.raises(ValueError, match="must not end before it starts"):
        account(state, progress, since=2, until=1)
    assert account(state, progress, since=20, until=20).nameplate_us == 0


def test_a_node_counts_from_when_it_joined() -> None:
    kernel = Kernel()
    kernel.step(joined(a_node("n1", devices=2), at_s=10))
    kernel.step(joined(a_node("n2", devices=4), at_s=30))
    result = account(kernel.state, until=40)
    assert result.nameplate_us == (2 * 30 + 4 * 10) * US
    assert losses(result, Stage.ALLOCATED) == {"idle": 100.0}
    assert [left(result, stage) for stage in Stage] == [100.0, 0.0, 0.0, 0.0]


def test_a_lost_node_is_unhealthy_whoever_holds_its_devices_and_survivors_recover_from_then_on() -> None:
    kernel = Kernel(a_node("n1", devices=1), a_node("n2", devices=1))
    kernel.submit(a_training(), at_s=0)
    kernel.step(started(at_s=1))
    kernel.step(lost("n2", at_s=20))
    kernel.step(ended(cause=Cause.SIGNAL, at_s=24))
    kernel.step(joined(a_node("n2", devices=1), at_s=30))
    messages: list[Message] = [began(0, 1), began(1, 1), step(0, 1, 4, 10), step(1, 1, 4, 10), saved(1, 10)]
    result = account(kernel.state, {1: messages}, until=40)
    assert losses(result, Stage.HEALTHY) == {"node_lost": 10.0}
    # From the loss on, the job waits for a second device while one is free; attempt 2 starts at 30.
    assert losses(result, Stage.ALLOCATED) == {"waiting": 6.0}
    assert losses(result, Stage.PRODUCTIVE) == {
        "start_up": 8.0,
        "lost_work": 20.0,
        "recovery": 4.0,
        "unmeasured": 20.0,
    }
    assert left(result, Stage.PRODUCTIVE) == 12.0


def test_free_devices_wait_only_while_a_job_waits() -> None:
    kernel = Kernel(a_node(devices=3))
    kernel.submit(a_job("j1", devices="cpu:2"), at_s=10)
    kernel.submit(a_job("j2", devices="cpu:2"), at_s=12)
    kernel.step(ended("j1", at_s=20))
    kernel.step(ended("j2", at_s=30))
    result = account(kernel.state, until=40)
    assert losses(result, Stage.ALLOCATED) == {"waiting": 8.0, "idle": 30.0 + 2.0 + 10.0 + 30.0}


def test_without_any_report_productive_is_unknown_not_zero() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_job(devices="cpu:2"), at_s=0)
    result = account(kernel.state, {1: [killed(0, 5)]}, until=10)
    assert left(result, Stage.ALLOCATED) == 20.0
    assert left(result, Stage.PRODUCTIVE) is None
    assert left(result, Stage.MODEL_FLOPS) is None
    assert result.notes == ("productive and model FLOPs are unknown: no worker reported its progress",)


def test_attempts_and_ranks_that_report_nothing_are_unmeasured_beside_those_that_do() -> None:
    kernel = Kernel(a_node(devices=5))
    kernel.submit(a_training("cpu:4"), a_job("silent"), at_s=0)
    messages: list[Message] = []
    for rank in (0, 2):
        messages += [began(rank, 0, world=4), step(rank, 1, 2, 10, flops=0.5e9)]
    kernel.step(ended(at_s=10))
    result = account(kernel.state, {1: messages}, until=10)
    assert losses(result, Stage.PRODUCTIVE) == {"start_up": 4.0, "unmeasured": 20.0 + 10.0}
    assert left(result, Stage.PRODUCTIVE) == 16.0
    assert left(result, Stage.MODEL_FLOPS) == 1.0
    assert any(note.startswith("unmeasured: held for workers that reported nothing") for note in result.notes)


@pytest.mark.parametrize(
    ("devices", "workers"), [("cpu:4", 2), ("cpu:2", 4), ("cpu:3", 2), (0.5, 1), (0.3, 7)]
)
def test_workers_stand_for_their_part_of_the_devices_however_many_there_are(
    devices: str | float, workers: int
) -> None:
    kernel = Kernel(a_node(devices=4))
    kernel.submit(a_training(devices, workers=workers), at_s=0)
    kernel.step(ended(at_s=10))
    messages: list[Message] = []
    for rank in range(workers):
        messages += [began(rank, 0, world=workers), step(rank, 1, 4, 9, flops=1e6)]
    held = devices if isinstance(devices, float) else float(devices.split(":")[1])
    result = account(kernel.state, {1: messages}, until=10)
    assert left(result, Stage.ALLOCATED) == pytest.approx(10 * held)
    assert left(result, Stage.PRODUCTIVE) == pytest.approx(5 * held, abs=1e-6)
    assert losses(result, Stage.PRODUCTIVE) == {
        "start_up": pytest.approx(4 * held, abs=1e-6),
        "wind_down": pytest.approx(held, abs=1e-6),
    }
    assert left(result, Stage.MODEL_FLOPS) == pytest.approx(workers * 1e-3, abs=1e-6)


def test_each_worker_is_measured_against_the_ceiling_of_its_own_node() -> None:
    kernel = Kernel(a_node("n1", devices=1), a_node("n2", devices=1))
    kernel.submit(a_training(), at_s=0)
    kernel.step(ended(at_s=10))
    messages: list[Message] = [began(0, 0), began(1, 0), step(0, 1, 0, 10), step(1, 1, 0, 10)]
    fast = Ceiling(flops=4e9, basis="nameplate bf16")
    result = account(kernel.state, {1: messages}, until=10, ceilings={**CEILINGS, ("n2", "fp32"): fast})
    assert left(result, Stage.MODEL_FLOPS) == 2.0 + 0.5
    assert "1 GFLOP/s per device and nameplate bf16, 4 GFLOP/s" in result.notes[0]


@pytest.mark.parametrize(
    ("message", "ceilings", "why"),
    [
        (step(0, 2, 6, 8, flops=None), CEILINGS, "not every step told its FLOPs"),
        (step(0, 2, 6, 8), {}, "no ceiling is known for fp32 on n1"),
        (began(0, 1, dtype=None), CEILINGS, "no ceiling is known for an untold dtype on n1"),
        (step(0, 2, 6, 8, flops=1e12), CEILINGS, "more FLOPs were told than the ceiling allows, in j1"),
    ],
)
def test_model_flops_are_unknown_unless_all_productive_time_is_covered(
    message: Message, ceilings: Mapping[tuple[str, str], Ceiling], why: str
) -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_training(), at_s=0)
    messages: list[Message] = [began(0, 0), step(0, 1, 2, 6), began(1, 0), step(1, 1, 2, 6), message]
    result = account(kernel.state, {1: messages}, until=8, ceilings=ceilings)
    assert left(result, Stage.PRODUCTIVE) is not None
    assert left(result, Stage.MODEL_FLOPS) is None
    assert f"model FLOPs are unknown: {why}" in result.notes


def test_a_step_under_way_is_productive_so_far_but_a_hang_is_not() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_training("cpu:1"), at_s=0)
    messages: list[Message] = [began(0, 0, world=1), step(0, 1, 2, 5), step(0, 2, 5, 9)]
    soon = account(kernel.state, {1: messages}, until=11)
    assert (left(soon, Stage.PRODUCTIVE), losses(soon, Stage.PRODUCTIVE)) == (9.0, {"start_up": 2.0})
    late = account(kernel.state, {1: messages}, until=100)
    assert left(late, Stage.PRODUCTIVE) == 11.0
    assert losses(late, Stage.PRODUCTIVE) == {"start_up": 2.0, "between_steps": 87.0}
    assert left(late, Stage.MODEL_FLOPS) == 4.0


@pytest.mark.parametrize(
    ("cause", "kept_s", "lost_s", "wound_down_s"),
    [(Cause.COMPLETED, 8.0, 0.0, 4.0), (Cause.CANCELLED, 4.0, 4.0, 4.0), (Cause.USER_ERROR, 4.0, 8.0, 0.0)],
)
def test_what_is_after_the_last_checkpoint_of_a_job_that_did_not_finish_is_lost(
    cause: Cause, kept_s: float, lost_s: float, wound_down_s: float
) -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_training("cpu:1"), at_s=0)
    if cause is Cause.CANCELLED:
        kernel.step(cancelled(at_s=13))
    kernel.step(ended(cause=cause, at_s=14))
    messages: list[Message] = [began(0, 0, world=1), step(0, 1, 2, 6), saved(1, 6), step(0, 2, 6, 10)]
    result = account(kernel.state, {1: messages}, until=14)
    expected = {"start_up": 2.0, "lost_work": lost_s, "wind_down": wound_down_s}
    assert losses(result, Stage.PRODUCTIVE) == {name: amount for name, amount in expected.items() if amount}
    assert left(result, Stage.PRODUCTIVE) == kept_s


def test_an_attempt_that_starts_over_from_step_1_makes_all_steps_before_it_lost_work() -> None:
    state, progress = killed_and_resumed()
    over = [m for m in progress[2] if not isinstance(m, Restored)]
    over = [replace(m, step=m.step - 2) if isinstance(m, StepCommitted) else m for m in over]
    result = account(state, {1: progress[1], 2: over}, until=60)
    assert losses(result, Stage.PRODUCTIVE)["lost_work"] == 12.0 + 16.0
    assert left(result, Stage.PRODUCTIVE) == 24.0


def test_a_third_attempt_can_undo_what_the_first_one_did() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_training("cpu:1", retry=retry(5, Cause.SIGNAL, backoff_s=0)), at_s=0)
    kernel.step(ended(epoch=1, cause=Cause.SIGNAL, at_s=10))
    kernel.step(ended(epoch=2, cause=Cause.SIGNAL, at_s=20))
    kernel.step(ended(epoch=3, at_s=30))
    progress: dict[int, list[Message]] = {
        1: [began(0, 0, world=1), *(step(0, n, n, n + 1) for n in range(1, 9)), saved(8, 9)],
        2: [began(0, 10, world=1), restored(0, 8, 12), step(0, 9, 12, 20)],
        3: [began(0, 20, world=1), restored(0, 4, 22), step(0, 5, 22, 30)],
    }
    result = account(kernel.state, progress, until=30)
    assert left(result, Stage.PRODUCTIVE) == 4.0 + 8.0
    assert losses(result, Stage.PRODUCTIVE) == {
        "start_up": 1.0,
        "lost_work": 5.0 + 8.0,
        "recovery": 2.0 + 2.0,
    }


def test_a_restore_at_the_start_of_a_first_attempt_is_a_restore() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_training("cpu:1"), at_s=0)
    kernel.step(ended(at_s=10))
    messages: list[Message] = [
        began(0, 1, world=1),
        phase(0, Phase.RESTORE, 2, 5),
        restored(0, 7, 5),
        step(0, 8, 6, 10),
    ]
    result = account(kernel.state, {1: messages}, until=10)
    assert losses(result, Stage.PRODUCTIVE) == {"restore": 3.0, "start_up": 3.0}


def test_a_step_that_overlaps_a_phase_is_counted_once_and_keeps_its_flops() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_training("cpu:1"), at_s=0)
    kernel.step(ended(at_s=10))
    messages: list[Message] = [began(0, 0, world=1), step(0, 1, 0, 10), phase(0, Phase.DATA_WAIT, 2, 6)]
    result = account(kernel.state, {1: messages}, until=10)
    assert losses(result, Stage.PRODUCTIVE) == {"data_wait": 4.0}
    assert (left(result, Stage.PRODUCTIVE), left(result, Stage.MODEL_FLOPS)) == (6.0, 2.0)


def test_a_hang_that_the_agent_recovers_from_is_accounted_for_to_the_second() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(a_training("cpu:1"), at_s=0)
    kernel.step(started(at_s=1))
    kernel.step(ended(at_s=40))
    said: list[Message] = [began(0, 1, 1), step(0, 1, 4, 8), saved(1, 8), step(0, 2, 8, 12)]
    # It hangs at 13, is declared dead at 16, and has restored step 1 at 20; step 3 is the first new one.
    said += [began(0, 17, 1), phase(0, Phase.RESTORE, 18, 20), restored(0, 1, 20)]
    said += [step(0, 2, 21, 25), step(0, 3, 25, 29), recovered(29, 11, detect_s=3, load_s=2)]
    result = account(kernel.state, {1: said}, until=40)
    assert losses(result, Stage.PRODUCTIVE) == {
        "start_up": 4.0,
        "lost_work": 4.0 + 1.0,  # step 2, and what was under way
        "detection": 3.0,
        "recovery": 2.0 + 1.0,
        "restore": 2.0,
        "wind_down": 11.0,
    }
    assert left(result, Stage.PRODUCTIVE) == 12.0


def test_an_excluded_node_is_lost_for_as_long_as_nothing_holds_it() -> None:
    kernel = Kernel(a_node("n1", devices=2), a_node("n2", devices=2))
    kernel.submit(a_job("one", devices="cpu:1"), at_s=0)
    kernel.step(excluded("n1", at_s=10))
    kernel.step(ended("one", at_s=20))
    kernel.submit(a_job("large", devices="cpu:4"), at_s=30)  # it waits for the node to come back
    kernel.step(returned("n1", at_s=40))
    kernel.step(ended("large", at_s=50))
    result = account(kernel.state, {}, until=60)
    # One device of n1 was free from 10 to 40, the one that was held from 20 to 40.
    assert losses(result, Stage.HEALTHY) == {"excluded": 50.0}
    # Before, three devices of four; from 10 to 30, n2, and from 50 all. What waits from 30 to 40 could have had n2.
    assert losses(result, Stage.ALLOCATED) == {"idle": 30.0 + 40.0 + 40.0, "waiting": 20.0}


def test_an_excluded_node_that_is_gone_is_counted_once() -> None:
    kernel = Kernel(a_node("n1", devices=1))
    kernel.step(excluded("n1", at_s=10))
    kernel.step(lost("n1", at_s=20))
    kernel.step(returned("n1", at_s=30))
    kernel.step(joined(a_node("n1", devices=1), at_s=40))
    result = account(kernel.state, {}, until=50)
    assert losses(result, Stage.HEALTHY) == {"excluded": 10.0, "node_lost": 20.0}
    assert losses(result, Stage.ALLOCATED) == {"idle": 20.0}


def gang_of(workers: int) -> tuple[State, list[Message]]:
    """A gang on a device each, that has done four steps of two seconds from 2 to 10, and runs on to 12."""
    kernel = Kernel(a_node(devices=workers))
    kernel.submit(a_training(f"cpu:{workers}"), at_s=0)
    kernel.step(ended(at_s=12))
    messages: list[Message] = []
    for rank in range(workers):
        messages.append(began(rank, 0, world=workers))
        messages += [step(rank, number, 2.0 * number, 2.0 * number + 2, flops=1e9) for number in range(1, 5)]
    return kernel.state, messages


def test_those_who_wait_for_a_slow_worker_lose_that_time_and_the_slow_one_itself_computes() -> None:
    state, messages = gang_of(3)
    messages.append(slow(1, 3, 9.5, window=2, excess_s=1.0))
    result = account(state, {1: messages}, until=12)
    assert losses(result, Stage.PRODUCTIVE) == {"start_up": 6.0, "straggler": 2.0, "wind_down": 6.0}
    assert left(result, Stage.PRODUCTIVE) == 3 * 8.0 - 2.0
    assert left(result, Stage.MODEL_FLOPS) == 3 * 4.0, "the FLOPs of the steps are all there"
    # It is at the end of steps 2 and 3, half a second in each.
    parts = [account(state, {1: messages}, since=a, until=b) for a, b in ((5.5, 6), (7, 7.5), (7.5, 8))]
    assert [losses(part, Stage.PRODUCTIVE).get("straggler") for part in parts] == [1.0, None, 1.0]


def test_of_two_slow_workers_the_slower_is_waited_for_and_by_the_other_less() -> None:
    state, messages = gang_of(4)
    messages += [slow(1, 1, 5, excess_s=1.5), slow(2, 1, 5, excess_s=0.5)]
    assert losses(account(state, {1: messages}, until=12), Stage.PRODUCTIVE)["straggler"] == 1.5 + 1.5 + 1.0


def test_no_worker_waits_longer_than_its_steps_take() -> None:
    state, messages = gang_of(2)
    messages.append(slow(1, 2, 6.5, window=2, excess_s=100.0))
    result = account(state, {1: messages}, until=12)
    assert losses(result, Stage.PRODUCTIVE)["straggler"] == 4.0


@pytest.mark.parametrize(
    "said",
    [
        slow(1, 2, 6.5, excess_s=None),
        slow(1, 2, 6.5, window=None),
        slow(1, 9, 6.5),
        slow(1, 2, 5.0),
        slow(1, 2, 6.5, excess_s=0.0),
    ],
)
def test_what_an_older_worker_told_or_of_steps_that_nobody_knows_is_no_loss(said: Message) -> None:
    state, messages = gang_of(2)
    result = account(state, {1: [*messages, said]}, until=12)
    assert "straggler" not in losses(result, Stage.PRODUCTIVE)


def test_waiting_for_a_slow_worker_in_steps_that_were_lost_is_lost_work_and_nothing_else() -> None:
    state, progress = killed_and_resumed()
    before = account(state, progress, until=60)
    # Step 2 is kept, and step 3 was done again in the second attempt.
    first = [*progress[1], slow(1, 3, 24, window=2, excess_s=2.0)]
    result = account(state, {1: first, 2: progress[2]}, until=60)
    lost, lost_before = losses(result, Stage.PRODUCTIVE), losses(before, Stage.PRODUCTIVE)
    assert lost.pop("straggler") == 1.0
    assert lost == lost_before
    second = [*progress[2], slow(1, 3, 39, excess_s=2.0)]
    result = account(state, {1: progress[1], 2: second}, until=60)
    assert losses(result, Stage.PRODUCTIVE)["straggler"] == 2.0


def test_of_steps_that_were_trained_again_within_the_attempt_the_word_is_about_those_before_it() -> None:
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_training(), at_s=0)
    kernel.step(ended(at_s=20))
    messages: list[Message] = []
    for rank in (0, 1):
        messages += [began(rank, 0), step(rank, 1, 2, 4), step(rank, 2, 4, 6)]
        messages += [restored(rank, 1, 8), step(rank, 2, 8, 10), step(rank, 3, 10, 12)]
    of_the_first_try = account(kernel.state, {1: [*messages, slow(1, 2, 7.0)]}, until=20)
    assert "straggler" not in losses(of_the_first_try, Stage.PRODUCTIVE)
    of_the_second = account(kernel.state, {1: [*messages, slow(1, 2, 11.0)]}, until=20)
    assert losses(of_the_second, Stage.PRODUCTIVE)["straggler"] == 1.0


@pytest.mark.parametrize(
    ("devices", "workers", "places"),
    [
        ("cpu:4", 4, [["n1[0]"], ["n1[1]"], ["n1[2]"], ["n2[0]"]]),
        ("cpu:4", 2, [["n1[0,1]"], ["n1[2]", "n2[0]"]]),
        ("cpu:2", 4, [["n1[0]"], ["n1[0]"], ["n1[1]"], ["n1[1]"]]),
        ("cpu:3", 2, [["n1[0,1]"], ["n1[1,2]"]]),
        (0.5, 2, [["n1[0]"], ["n1[0]"]]),
    ],
)
def test_a_worker_is_on_the_devices_that_it_stands_for(
    devices: str | float, workers: int, places: list[list[str]]
) -> None:
    kernel = Kernel(a_node("n1", devices=3), a_node("n2", devices=3))
    kernel.submit(a_training(devices, workers=workers), at_s=0)
    log = AttemptLog(attempt=kernel.job().attempts[0], world_size=workers)
    gang = Gang(kernel.job().job, log, {"n1": 3, "n2": 3})
    found = [[str(Placement(shares=(share,))) for share in gang.places(rank)] for rank in range(workers)]
    assert found == places
