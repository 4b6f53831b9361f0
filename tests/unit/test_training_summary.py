"""What came of a training job: each step once, what is unknown is None."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from artesian.kernel.training import Recovery, RecoveryCause, TrainingSummary, training_summary
from artesian.model.job import Cause, JobKind
from artesian.model.ledger import Ceiling
from artesian.model.replicas import DivergedReplicas
from artesian.model.stragglers import SlowWorker
from artesian.wire import (
    CheckpointCommitted,
    Layer,
    Message,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerFailed,
    WorkerStarted,
)
from builders import Kernel, a_job, a_node, cancelled, ended, started, ticked
from worker_messages import apart, recovered

CEILINGS = {("n1", "fp32"): Ceiling(flops=2e9, basis="measured fp32")}


def began(rank: int, at_s: float, world: int = 2) -> WorkerStarted:
    return WorkerStarted(rank=rank, at_s=at_s, world_size=world, pid=1, device="cpu", dtype="fp32")


def step(
    rank: int,
    number: int,
    start_s: float,
    *,
    loss: float | None = None,
    tokens: int | None = 100,
    flops: float | None = 2e9,
) -> StepCommitted:
    """A step of two seconds."""
    return StepCommitted(
        rank=rank,
        step=number,
        start_s=start_s,
        end_s=start_s + 2,
        loss=loss,
        tokens=tokens,
        model_flops=flops,
    )


def summary(
    kernel: Kernel,
    progress: Mapping[int, Sequence[Message]],
    *,
    at_s: float = 100.0,
    ceilings: Mapping[tuple[str, str], Ceiling] = CEILINGS,
) -> TrainingSummary:
    messages = {("j1", epoch): said for epoch, said in progress.items()}
    return training_summary(kernel.job(), messages, at_s=at_s, ceilings=ceilings)


def training(workers: int = 2) -> Kernel:
    """A job on two devices, submitted at 0."""
    kernel = Kernel(a_node(devices=2))
    kernel.submit(a_job(devices="cpu:2", kind=JobKind.TRAIN, workers=workers), at_s=0)
    kernel.step(started(at_s=1))
    return kernel


def killed_and_resumed() -> tuple[Kernel, dict[int, list[Message]]]:
    """Worker 1 is killed at 9 in step 4; the job goes on from the checkpoint of step 2 and does 3 and 4."""
    kernel = training()
    kernel.step(ended(cause=Cause.SIGNAL, at_s=10))
    kernel.step(ticked(at_s=11))
    kernel.step(ended(epoch=2, at_s=20))
    first: list[Message] = [
        WorkerFailed(rank=1, at_s=9, exit_code=None, signal=9, is_oom_kill=False, message=""),
        CheckpointCommitted(rank=0, at_s=6, step=2, size_bytes=1),
    ]
    second: list[Message] = []
    for rank in (0, 1):
        first += [began(rank, 1), step(rank, 1, 2, loss=5.0 + rank), step(rank, 2, 4, loss=4.0 + rank)]
        first.append(step(rank, 3, 6, loss=99.0))
        second += [began(rank, 12), Restored(rank=rank, at_s=13, step=2)]
        second += [step(rank, 3, 14, loss=3.0 + rank), step(rank, 4, 16, loss=2.0 + rank)]
    return kernel, {1: first, 2: second}


def test_a_kill_and_a_resume_count_every_step_once() -> None:
    kernel, progress = killed_and_resumed()
    result = summary(kernel, progress)
    assert result.steps == 4
    assert (result.first_loss, result.final_loss) == (5.5, 2.5)
    assert result.losses == ((1, 5.5), (2, 4.5), (3, 3.5), (4, 2.5))
    assert result.tokens == 800
    assert result.tokens_per_s == 100.0  # 800 over 8 s in steps that count
    assert result.tokens_per_s_overall == 40.0  # 800 over 20 s from submit to end
    assert result.model_flops_per_s == 2e9  # 16e9 over 8 s
    assert result.mfu == 0.5  # of two devices at 2e9
    assert result.mfu_basis == "measured fp32, 2 GFLOP/s per device"
    assert result.recoveries == (
        Recovery(cause=RecoveryCause.SIGNAL, failed_s=9.0, seconds=5.0, worker=1, resumed_from_step=2),
    )


def test_an_attempt_that_never_came_to_a_step_is_part_of_the_recovery() -> None:
    kernel, progress = killed_and_resumed()
    kernel = training()
    kernel.step(ended(cause=Cause.SIGNAL, at_s=10))
    kernel.step(ticked(at_s=11))
    kernel.step(ended(epoch=2, cause=Cause.SIGNAL, at_s=12))
    kernel.step(ticked(at_s=14))
    kernel.step(ended(epoch=3, at_s=20))
    result = summary(kernel, {1: progress[1], 3: progress[2]})
    assert result.recoveries == (
        Recovery(cause=RecoveryCause.SIGNAL, failed_s=9.0, seconds=5.0, worker=1, resumed_from_step=2),
        Recovery(cause=RecoveryCause.SIGNAL, failed_s=12.0, seconds=2.0, worker=None, resumed_from_step=2),
    )
    assert result.steps == 4


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ({"signal": 9}, RecoveryCause.SIGNAL),
        ({"exit_code": 137}, RecoveryCause.SIGNAL),
        ({"exit_code": 1}, RecoveryCause.USER_ERROR),
        ({"signal": 9, "is_oom_kill": True}, RecoveryCause.OOM_KILL),
        ({"is_straggler": True}, RecoveryCause.STRAGGLER),
        ({"rank": -1, "exit_code": 1}, RecoveryCause.NODE_LOST),
    ],
)
def test_a_recovery_within_an_attempt_is_one_of_the_jobs(told: dict[str, Any], cause: RecoveryCause) -> None:
    said = replace(recovered(12, 1.75, detect_s=0.5, load_s=0.5, recompute_s=0.25, rank=1), **told)
    messages = [
        *[message for rank in (0, 1) for message in (began(rank, 1), step(rank, 1, 2), step(rank, 2, 4))],
        *[Restored(rank=rank, at_s=10, step=2) for rank in (0, 1)],
        *[step(rank, 3, 12) for rank in (0, 1)],
        said,
        replace(said, layer=Layer.GROW, at_s=13),
    ]
    (recovery,) = summary(training(), {1: messages}).recoveries
    worker = None if cause is RecoveryCause.NODE_LOST else 1
    expected = Recovery(
        cause=cause, failed_s=9.0, seconds=3.0, worker=worker, resumed_from_step=2, layer=Layer.FORK
    )
    assert recovery == expected


def divergences(*said: Message) -> list[DivergedReplicas] | None:
    found = summary(training(), {1: [*held_up(), *said]}).divergences
    return None if found is None else list(found)


def test_replicas_that_went_apart_are_told_until_a_state_is_restored() -> None:
    checked = replace(began(0, 1), checks_replicas=True)
    assert divergences() is None
    assert divergences(checked) == []
    first = DivergedReplicas(workers=(1,), epoch=1, step=2, at_s=7.0, is_certain=True)
    then = DivergedReplicas(workers=(0, 1), epoch=1, step=4, at_s=11.0, is_certain=False, is_now=True)
    words = apart((1,), 2, 7.0), apart((0, 1), 4, 11.0, is_certain=False)
    assert divergences(*reversed(words)) == [first, then]
    restored = Restored(rank=0, at_s=11.5, step=4)
    assert divergences(*words, restored) == [first, msgspec.structs.replace(then, is_now=False)]
    assert (
        "resume it, which gives all workers the same state, from a checkpoint of worker 0's" in first.remedy
    )
    assert "from a checkpoint before step 4" in then.remedy


def slow(
    rank: int,
    number: int,
    at_s: float,
    ratio: float,
    *,
    steps: int,
    window: int | None,
    excess_s: float | None,
) -> StragglerFound:
    return StragglerFound(
        rank=rank, at_s=at_s, step=number, ratio=ratio, steps=steps, window=window, excess_s=excess_s
    )


def held_up(*said: Message) -> list[Message]:
    """Two workers that look for stragglers, five steps of two seconds from 2 on, and these words."""
    began_ = [replace(began(rank, 1), seeks_stragglers=True) for rank in (0, 1)]
    return [*began_, *[step(rank, n, 2.0 * n) for rank in (0, 1) for n in range(1, 6)], *said]


def test_a_worker_that_holds_the_others_up_is_named_with_where_since_when_and_how_much() -> None:
    words = [
        slow(1, 2, 9.0, 1.4, steps=2, window=2, excess_s=1.0),
        slow(1, 3, 11.0, 1.6, steps=3, window=1, excess_s=0.75),
    ]
    expected = SlowWorker(
        worker=1,
        epoch=1,
        since_s=2.0,
        until_s=8.0,
        ratio=1.6,
        wait_s=1.75,
        node="n1",
        place="n1[1]",
        has_other_nodes=False,
        is_now=True,
    )
    assert summary(training(), {1: held_up(*words)}).stragglers == (expected,)
    assert summary(training(), {1: held_up(*reversed(words))}).stragglers == (expected,)


def test_a_worker_is_slow_no_more_once_words_fail_to_come_or_the_gang_has_come_back_or_the_attempt_is_over() -> (
    None
):
    word = slow(1, 2, 9.0, 1.4, steps=1, window=1, excess_s=1.0)

    def is_now(kernel: Kernel, *said: Message) -> bool:
        (found,) = summary(kernel, {1: held_up(word, *said)}).stragglers or ()
        return found.is_now

    assert not is_now(training()), "three steps without a word"
    assert is_now(training(), slow(1, 3, 9.5, 1.4, steps=2, window=1, excess_s=1.0))
    assert not is_now(
        training(), slow(1, 5, 13, 1.4, steps=2, window=1, excess_s=1.0), recovered(14, 1.0, rank=1)
    )
    over = training()
    over.step(ended(at_s=20))
    assert not is_now(over, slow(1, 5, 13, 1.4, steps=2, window=1, excess_s=1.0))


def test_a_worker_that_became_slow_again_is_slow_since_then() -> None:
    words = [
        slow(0, 1, 5.0, 2.0, steps=1, window=1, excess_s=1.0),
        slow(0, 5, 12.0, 1.5, steps=1, window=1, excess_s=0.5),
    ]
    (found,) = summary(training(), {1: held_up(*words)}).stragglers or ()
    assert (found.since_s, found.until_s, found.ratio, found.wait_s) == (10.0, 12.0, 1.5, 0.5)


def test_stragglers_are_unknown_unless_they_are_looked_for_and_none_is_another_thing() -> None:
    assert summary(training(), {1: held_up()}).stragglers == ()
    assert summary(training(), {1: [replace(began(0, 1), seeks_stragglers=False)]}).stragglers is None
    assert summary(training(), {1: [began(0, 1)]}).stragglers is None
    assert summary(training(), {}).stragglers is None


def test_an_older_worker_told_neither_how_long_nor_of_which_steps() -> None:
    said = slow(1, 99, 4.0, 1.4, steps=1, window=None, excess_s=None)
    (found,) = summary(training(), {1: [began(0, 1), said]}).stragglers or ()
    assert (found.since_s, found.until_s, found.wait_s) == (4.0, 4.0, None)


def test_a_slow_worker_on_a_node_that_may_have_changed_has_no_place() -> None:
    said: list[Message] = [
        slow(1, 2, 9.0, 1.4, steps=1, window=1, excess_s=1.0),
        replace(recovered(4, 1.0), layer=Layer.SPARE),
    ]
    (found,) = summary(training(), {1: held_up(*said)}).stragglers or ()
    assert (found.node, found.place) == (None, None)


def test_a_slow_worker_is_said_in_words() -> None:
    slow = SlowWorker(worker=3, epoch=2, since_s=10.0, until_s=70.0, ratio=2.0)
    assert str(slow) == (
        "worker 3 computes 2.00 times as long as the middle one, which holds the gang up by 50% of its computing "
        "(attempt 2, for 1m00s and no more)"
    )
    known = msgspec.structs.replace(
        slow, place="n1[0]", node="n1", has_other_nodes=True, is_now=True, wait_s=30.0
    )
    assert "worker 3 on n1[0] computes" in str(known)
    assert "for 1m00s so far; each of the others has waited 30.0 s" in str(known)
    assert "artesian nodes exclude n1 --stop --reason slow" in known.remedy
    assert "exclude" not in slow.remedy


def test_a_job_that_said_nothing_is_unknown_in_everything() -> None:
    result = summary(training(), {})
    assert result == TrainingSummary(
        job_id="j1",
        steps=None,
        first_loss=None,
        final_loss=None,
        tokens=None,
        tokens_per_s=None,
        tokens_per_s_overall=None,
        model_flops_per_s=None,
        mfu=None,
        mfu_basis=None,
        recoveries=(),
        losses=(),
    )


def test_a_job_that_has_started_but_done_no_step_has_done_none() -> None:
    result = summary(training(), {1: [began(0, 1), began(1, 1)]})
    assert (result.steps, result.tokens, result.final_loss, result.mfu) == (0, None, None, None)


def test_a_recovery_that_has_not_come_to_a_step_yet_has_no_length() -> None:
    kernel, progress = killed_and_resumed()
    kernel = training()
    kernel.step(ended(cause=Cause.SIGNAL, at_s=10))
    kernel.step(ticked(at_s=11))
    result = summary(kernel, {1: progress[1], 2: [began(0, 12)]}, at_s=13)
    (recovery,) = result.recoveries
    assert (recovery.seconds, recovery.resumed_from_step) == (None, None)
    assert result.steps == 2  # what is after the checkpoint has to be done again


def test_a_job_still_running_is_measured_until_now_and_by_the_last_step_that_all_ranks_have_told() -> None:
    messages = [began(0, 1), began(1, 1)]
    steps = [step(0, 1, 2, loss=5.0), step(1, 1, 2, loss=3.0), step(0, 2, 4, loss=1.0)]
    result = summary(training(), {1: [*messages, *steps]}, at_s=10)
    assert (result.first_loss, result.final_loss) == (4.0, 4.0)
    assert result.tokens_per_s_overall == 30.0


def test_a_loss_that_only_rank_0_tells_is_the_loss() -> None:
    steps = [step(0, 1, 2, loss=5.0), step(1, 1, 2), step(0, 2, 4, loss=4.0), step(1, 2, 4)]
    result = summary(training(), {1: [began(0, 1), began(1, 1), *steps]})
    assert result.losses == ((1, 5.0), (2, 4.0))


def test_a_loss_that_is_not_a_number_is_not_hidden() -> None:
    result = summary(training(), {1: [began(0, 1), step(0, 1, 2, loss=math.nan)]})
    assert result.final_loss is not None
    assert math.isnan(result.final_loss)


@pytest.mark.parametrize("missing", ["tokens", "flops"])
def test_a_part_that_is_unknown_makes_the_sum_unknown(missing: str) -> None:
    untold: dict[str, None] = {missing: None}
    steps = [step(0, 1, 2), step(1, 1, 2, **untold)]
    result = summary(training(), {1: [began(0, 1), began(1, 1), *steps]})
    assert (result.tokens is None) == (missing == "tokens")
    assert (result.tokens_per_s is None) == (missing == "tokens")
    assert (result.model_flops_per_s is None) == (missing == "flops")
    assert (result.mfu is None) == (missing == "flops")


@pytest.mark.parametrize("ceilings", [{}, {("n1", "fp32"): Ceiling(flops=1e6, basis="measured fp32")}])
def test_mfu_is_unknown_without_a_ceiling_or_beyond_it(ceilings: dict[tuple[str, str], Ceiling]) -> None:
    kernel, progress = killed_and_resumed()
    result = summary(kernel, progress, ceilings=ceilings)
    assert (result.mfu, result.mfu_basis) == (None, None)
    assert result.model_flops_per_s == 2e9


def test_one_worker_on_two_devices_is_measured_against_both() -> None:
    kernel = training(workers=1)
    result = summary(kernel, {1: [began(0, 1, world=1), step(0, 1, 2)]})
    assert result.mfu == 0.25


def test_a_cancelled_job_has_trained_up_to_its_last_checkpoint() -> None:
    kernel = training()
    kernel.step(cancelled(at_s=9))
    kernel.step(ended(cause=Cause.SIGNAL, at_s=10))
    messages: list[Message] = [CheckpointCommitted(rank=0, at_s=5, step=1, size_bytes=1)]
    for rank in (0, 1):
        messages += [began(rank, 1), step(rank, 1, 2, loss=5.0), step(rank, 2, 5, loss=4.0)]
    result = summary(kernel, {1: messages})
    assert (result.steps, result.final_loss, result.recoveries) == (1, 5.0, ())


def test_whatever_an_attempt_ends_of_can_be_got_over() -> None:
    assert {cause.value for cause in Cause if cause is not Cause.COMPLETED} < {*RecoveryCause}


def test_a_recovery_has_each_cause_that_an_attempt_can_fail_by_and_that_of_a_straggler() -> None:
    ends = {cause.value for cause in Cause} - {Cause.COMPLETED.value}
    assert {cause.value for cause in RecoveryCause} == ends | {"straggler"}
