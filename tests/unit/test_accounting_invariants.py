"""The ledger is exact whatever workers say, and agrees with an oracle."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artesian.kernel.lifecycle import Attempt
from artesian.kernel.progress import AttemptLog, WorkerLog
from artesian.kernel.state import State
from artesian.kernel.timeline import pieces
from artesian.model.events import Event
from artesian.model.job import Cause, Outcome
from artesian.model.ledger import US, Loss, Stage, Waterfall
from artesian.model.placement import NodeShare, Placement
from artesian.wire import (
    Message,
    Phase,
    Recovered,
    ReplicasDiverged,
    StragglerFound,
    WorkerFailed,
)
from builders import Kernel, a_node, cancelled, ended, excluded, joined, lost, returned, started, ticked
from worker_messages import (
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

moments = st.integers(-8, 100).map(lambda n: n / 2)
ranks = st.integers(-1, 4)
numbers = st.integers(0, 6)
messages = st.one_of(
    st.builds(began, ranks, moments, st.integers(0, 6), st.sampled_from([None, "fp32", "bf16"])),
    st.builds(step, ranks, numbers, moments, moments, st.sampled_from([None, 1e6, 1e9])),
    st.builds(phase, ranks, st.sampled_from(Phase), moments, moments),
    st.builds(replace, st.just(saved(1, 1)), step=numbers, at_s=moments),
    st.builds(restored, ranks, numbers, moments),
    st.builds(killed, ranks, moments),
    st.builds(
        slow,
        ranks,
        numbers,
        moments,
        window=st.none() | st.integers(-1, 4),
        excess_s=st.none() | moments,
    ),
    st.builds(
        lambda at_s, restart_s, detect_s, load_s, recompute_s: recovered(
            at_s, restart_s, detect_s=detect_s, load_s=load_s, recompute_s=recompute_s
        ),
        *(moments, moments.map(abs), *(st.none() | moments.map(abs) for _ in range(3))),
    ),
)
gangs = st.sampled_from(["cpu:1", "cpu:2", "cpu:3", 0.3])
second_ends = st.sampled_from([Cause.COMPLETED, Cause.USER_ERROR, Cause.SIGNAL, Cause.CANCELLED, None])


def a_life(
    devices: str | float,
    workers: int | None,
    second: Cause | None,
    lost_s: float,
    out_of_use: tuple[float, float] | None,
) -> State:
    """A job with up to two attempts in 0 to 50 s on two nodes: one is lost for a while, the other excluded."""
    kernel = Kernel(a_node("n1", devices=2), a_node("n2", devices=2))
    kernel.submit(a_training(devices, workers=workers), at_s=2)
    events: list[Event] = [
        started(at_s=3),
        ended(cause=Cause.SIGNAL, at_s=20),
        ticked(at_s=21.5),
        lost("n2", at_s=lost_s),
        *([cancelled(at_s=35)] if second is Cause.CANCELLED else []),
        *([ended(epoch=2, cause=second, at_s=40)] if second is not None else []),
        joined(a_node("n2", devices=2), at_s=44),
    ]
    if out_of_use is not None:
        events += [excluded("n1", at_s=min(out_of_use)), returned("n1", at_s=max(out_of_use))]
    for event in sorted(events, key=lambda event: event.at_s):
        kernel.step(event)
    return kernel.state


def by_cause(parts: Iterable[Waterfall]) -> dict[str, float]:
    """Losses of all stages above model FLOPs; what is unknown is unmeasured."""
    total: dict[str, float] = {}
    for part in parts:
        for stage in (Stage.HEALTHY, Stage.ALLOCATED, Stage.PRODUCTIVE):
            for cause, amount in losses(part, stage).items():
                total[cause] = total.get(cause, 0) + amount
        rest = "productive"
        if part.left_us(Stage.PRODUCTIVE) is None:
            rest = "unmeasured"
        held = left(part, Stage.PRODUCTIVE if rest == "productive" else Stage.ALLOCATED)
        assert held is not None
        total[rest] = total.get(rest, 0) + held
    return total


@settings(deadline=None)
@given(
    devices=gangs,
    workers=st.none() | st.integers(1, 5),
    second=second_ends,
    lost_s=st.integers(22, 43).map(float),
    out_of_use=st.none() | st.tuples(st.integers(2, 49).map(float), st.integers(2, 49).map(float)),
    first_said=st.lists(messages, max_size=30),
    second_said=st.lists(messages, max_size=30),
    cut=moments,
)
def test_whatever_workers_say_the_sums_are_exact_and_windows_add_up(
    devices: str | float,
    workers: int | None,
    second: Cause | None,
    lost_s: float,
    out_of_use: tuple[float, float] | None,
    first_said: list[Message],
    second_said: list[Message],
    cut: float,
) -> None:
    state = a_life(devices, workers, second, lost_s, out_of_use)
    progress = {1: first_said, 2: second_said}
    cut = min(max(cut, 0.0), 50.0)
    whole = account(state, progress, until=50)  # the constructor checks that everything adds up
    parts = [account(state, progress, until=cut), account(state, progress, since=cut, until=50)]
    assert sum(part.nameplate_us for part in parts) == whole.nameplate_us == 200 * US
    expected, together = by_cause([whole]), by_cause(parts)
    for cause in {*expected, *together}:
        assert together.get(cause, 0) == pytest.approx(expected.get(cause, 0), abs=5e-6), cause
    silent = all(
        isinstance(message, WorkerFailed | Recovered | StragglerFound | ReplicasDiverged) or message.rank < 0
        for message in first_said + second_said
    )
    assert (whole.left_us(Stage.PRODUCTIVE) is None) == silent


@given(
    steps=st.lists(st.tuples(moments, moments, st.booleans()), max_size=8),
    phases=st.lists(st.tuples(st.sampled_from(Phase), moments, moments), max_size=8),
    epoch=st.integers(1, 2),
    failed_s=st.none() | st.integers(10, 40).map(float),
    recovery=st.none()
    | st.tuples(
        st.integers(10, 40), st.integers(0, 9), st.integers(0, 9), st.integers(0, 3), st.integers(0, 3)
    ),
    held_up=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 8), moments, st.integers(0, 20).map(lambda n: n / 2)),
        max_size=6,
    ),
)
def test_every_half_second_is_what_the_highest_layer_says(
    steps: list[tuple[float, float, bool]],
    phases: list[tuple[Phase, float, float]],
    epoch: int,
    failed_s: float | None,
    recovery: tuple[int, int, int, int, int] | None,
    held_up: list[tuple[int, int, float, float]],
) -> None:
    placement = Placement(shares=(NodeShare(node_id="n1", devices=(0,)),))
    attempt = Attempt(epoch=epoch, placement=placement, reason="", decided_s=5.0, ended_s=40.0)
    attempt.outcome = Outcome(cause=Cause.COMPLETED if failed_s is None else Cause.SIGNAL)
    steps.sort(key=lambda entry: entry[1])
    worker = WorkerLog(
        rank=0,
        steps=[step(0, number, *entry[:2]) for number, entry in enumerate(steps)],
        is_kept=[entry[2] for entry in steps],
        phases=[phase(0, *entry) for entry in phases],
    )
    log = AttemptLog(attempt=attempt, failed_s=failed_s)
    if recovery is not None:
        at_s, restart_s, *rest = recovery
        detect_s, load_s, recompute_s = (length_s or None for length_s in rest)
        log.recoveries.append(
            recovered(at_s, restart_s, detect_s=detect_s, load_s=load_s, recompute_s=recompute_s)
        )
    log.stragglers += [
        slow(rank, number, at_s, excess_s=excess_s) for rank, number, at_s, excess_s in held_up
    ]
    found = pieces(log, worker, end_us=0)
    assert found[0].start_us == 5 * US
    assert found[-1].end_us == 40 * US
    assert all(one.end_us == other.start_us for one, other in pairwise(found))
    for half in range(10, 80):
        middle = half * US // 2 + US // 4
        (piece,) = [piece for piece in found if piece.start_us <= middle < piece.end_us]
        expected = oracle(middle / US, steps, phases, epoch, failed_s, recovery, held_up)
        assert piece.loss == expected, middle / US


def oracle(
    at_s: float,
    steps: list[tuple[float, float, bool]],
    phases: list[tuple[Phase, float, float]],
    epoch: int,
    failed_s: float | None,
    recovery: tuple[int, int, int, int, int] | None,
    held_up: list[tuple[int, int, float, float]],
) -> Loss | None:
    """What a moment was, by the table in ``artesian.kernel.timeline``, read from its top."""
    active = {kind for kind, start, end in phases if start <= at_s < end}
    first = min((start for start, _, _ in steps), default=None)
    last = max((end for _, end, _ in steps), default=0.0)
    if failed_s is not None and at_s >= failed_s:
        return Loss.RECOVERY
    if epoch == 1 and Phase.RESTORE in active:
        return Loss.RESTORE
    if first is None or at_s < first:
        return Loss.START_UP if epoch == 1 else Loss.RECOVERY
    for kind in (Phase.RESTORE, Phase.CHECKPOINT_STALL, Phase.EVALUATION, Phase.DATA_WAIT):
        if kind in active:
            return Loss(kind.value)
    in_steps = {kept for start, end, kept in steps if start <= at_s < end}
    if in_steps:
        if in_steps != {True}:
            return Loss.LOST_WORK
        return Loss.STRAGGLER if is_wait(at_s, steps, held_up) else None
    if recovery is not None:
        end_s, restart_s, detect_s, load_s, recompute_s = recovery
        verdict_s = end_s - restart_s - load_s - recompute_s
        alive_s = verdict_s - detect_s
        before = max((end for _, end, _ in steps if end <= verdict_s), default=alive_s)
        if alive_s <= at_s < verdict_s:
            return Loss.DETECTION
        if before <= at_s < verdict_s:
            return Loss.LOST_WORK
        if verdict_s <= at_s < end_s:
            return Loss.RECOVERY
    if at_s < max(first, last):
        return Loss.BETWEEN_STEPS
    return Loss.WIND_DOWN if failed_s is None else Loss.LOST_WORK


def is_wait(
    at_s: float, steps: list[tuple[float, float, bool]], held_up: list[tuple[int, int, float, float]]
) -> bool:
    """Whether rank 0 waited for another in a step, numbered in order of its end; words are on one step each."""
    for number, (start, end, kept) in enumerate(steps):
        told = [
            (rank, min(excess_s, end - start))
            for rank, of, said_s, excess_s in held_up
            if of == number and end <= said_s
        ]
        waited = max((excess_s for rank, excess_s in told if rank != 0), default=0.0)
        computed = max((excess_s for rank, excess_s in told if rank == 0), default=0.0)
        if kept and max(start, end - max(0.0, waited - computed)) <= at_s < end:
            return True
    return False
