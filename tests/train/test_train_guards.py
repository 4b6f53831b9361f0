"""Guards over losses: what is a spike, what all ranks do about it, and when it is enough."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from artesian.train.cursor import Cursor
from artesian.train.guards import Action, Guard, Policy, Symptom, Verdict

SMALL = {"window": 16, "warm_up": 4}


def run(guard: Guard, losses: list[float], *, first: int = 1) -> list[Verdict]:
    return [guard.inspect(loss, step=first + index) for index, loss in enumerate(losses)]


def actions(verdicts: list[Verdict]) -> set[Action]:
    return {verdict.action for verdict in verdicts}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 1e30])
def test_a_loss_that_is_no_number_skips_the_batch_from_the_first_step_on(loss: float) -> None:
    guard = Guard()
    (verdict,) = run(guard, [loss])
    assert (verdict.action, verdict.symptom, verdict.ranks) == (Action.SKIP, Symptom.NOT_FINITE, 1)
    assert verdict.loss is None
    assert str(verdict) == "step 1: the loss of 1 ranks is not finite; action: skip"
    assert guard.interventions == {Symptom.NOT_FINITE: 1, Symptom.SPIKE: 0}


def test_so_does_a_gradient_that_is_none_though_the_loss_is() -> None:
    verdict = Guard().inspect(torch.tensor(2.0), step=1, gradient_norm=torch.tensor(math.nan))
    assert (verdict.action, verdict.loss) == (Action.SKIP, 2.0)


def test_a_worker_that_tells_no_loss_has_no_say() -> None:
    verdict = Guard().inspect(None, step=1)
    assert (verdict.action, verdict.loss, str(verdict)) == (Action.GO_ON, None, "step 1 is good")


def test_one_rank_is_enough_and_all_come_to_the_same_verdict() -> None:
    guards = [Guard(Policy(**SMALL)) for _ in range(3)]  # type: ignore[arg-type]
    for step in range(1, 9):
        losses = [1.0, 2.0, 3.0 if step != 8 else math.nan]
        cast = [guard.vote(loss) for guard, loss in zip(guards, losses, strict=True)]
        votes = [sum(numbers) for numbers in zip(*cast, strict=True)]
        verdicts = [guard.decide(votes, step=step) for guard in guards]
        assert verdicts[0] == verdicts[1] == verdicts[2]
        assert verdicts[0].loss == (2.0 if step != 8 else 1.5)
    assert verdicts[0].action is Action.SKIP


def falling(steps: int, noise: float, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [2.0 + 8.0 * math.exp(-step / 40) + rng.gauss(0, noise) for step in range(steps)]


@given(seed=st.integers(0, 10_000), noise=st.floats(0.0, 0.05))
def test_a_noisy_loss_that_falls_is_no_spike(seed: int, noise: float) -> None:
    guard = Guard(Policy(spike=Action.STOP))
    assert actions(run(guard, falling(300, noise, seed))) == {Action.GO_ON}


@given(seed=st.integers(0, 10_000), at=st.integers(40, 299))
def test_a_leap_is_a_spike_and_leaves_no_trace_in_what_later_ones_are_measured_against(
    seed: int, at: int
) -> None:
    losses = falling(300, 0.02, seed)
    losses[at] *= 3
    guard = Guard(Policy(spike=Action.SKIP, deviations=8))
    verdicts = run(guard, losses)
    assert [v.step for v in verdicts if v.symptom] == [at + 1]
    assert losses[at] not in guard.state_dict()["losses"]
    assert f"the loss leaps to {losses[at]:.4g}, above" in str(verdicts[at])


def test_a_constant_loss_does_not_make_a_hairs_breadth_a_spike() -> None:
    guard = Guard(Policy(spike=Action.SKIP, **SMALL))  # type: ignore[arg-type]
    assert actions(run(guard, [2.0] * 20 + [2.19])) == {Action.GO_ON}
    assert run(guard, [2.3])[0].action is Action.SKIP


def test_a_spike_that_the_policy_lets_pass_is_told_and_counts_as_the_new_level() -> None:
    guard = Guard(Policy(**SMALL))  # type: ignore[arg-type]
    verdicts = run(guard, [2.0] * 16 + [9.0] * 9)
    assert actions(verdicts) == {Action.GO_ON}
    assert verdicts[16].symptom is Symptom.SPIKE
    assert verdicts[-1].symptom is None
    assert sum(guard.interventions.values()) == 0


def test_a_roll_back_says_to_where_and_what_to_pass_over() -> None:
    guard = Guard(Policy(not_finite=Action.ROLL_BACK, back=5, forget=2))
    cursor, verdicts = Cursor(), []
    for step, loss in enumerate([1.0] * 8 + [math.nan], start=1):
        taken, cursor = cursor.take(10)
        verdicts.append(guard.inspect(loss, step=step, taken=taken))
    assert (verdicts[-1].action, verdicts[-1].to_step) == (Action.ROLL_BACK, 4)
    assert verdicts[-1].exclude == (range(70, 80), range(80, 90))


def test_it_stops_when_the_same_step_is_bad_again_and_again_though_replayed_steps_are_good() -> None:
    guard = Guard(Policy(not_finite=Action.ROLL_BACK, limit=3))
    saved = guard.state_dict()
    for _ in range(3):
        *good, bad = run(guard, [1.0, 1.0, math.nan])
        assert actions(good) == {Action.GO_ON}
        assert bad.action is Action.ROLL_BACK
        guard.load_state_dict(saved)
    last = run(guard, [1.0, 1.0, math.nan])[-1]
    assert last.action is Action.STOP
    assert "action: stop after 4 interventions" in str(guard.stop(last))
    assert guard.stop(last).hint


def test_good_steps_beyond_it_make_up_for_bad_ones() -> None:
    guard = Guard(Policy(limit=2))
    assert actions(run(guard, [math.nan, math.nan, 1.0] * 5)) == {Action.SKIP, Action.GO_ON}
    assert run(guard, [math.nan, math.nan, math.nan], first=16)[-1].action is Action.STOP


@given(
    losses=st.lists(st.floats(0.5, 20) | st.just(math.nan), min_size=1, max_size=60), at=st.integers(0, 60)
)
def test_a_restart_comes_to_the_same_verdicts(losses: list[float], at: int) -> None:
    policy = Policy(spike=Action.SKIP, **SMALL)  # type: ignore[arg-type]
    whole = run(Guard(policy), losses)
    first = Guard(policy)
    run(first, losses[:at])
    second = Guard(policy)
    second.load_state_dict(first.state_dict())
    assert run(second, losses[at:], first=min(at, len(losses)) + 1) == whole[at:]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"warm_up": 1}, "warm_up must be at least 2"),
        ({"window": 8}, "not above the window of 8, got 32"),
        ({"deviations": 0.0}, "deviations must be positive"),
        ({"limit": 0}, "back, forget and limit must be positive"),
    ],
)
def test_a_policy_out_of_range_is_refused(bad: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Policy(**bad)  # type: ignore[arg-type]
