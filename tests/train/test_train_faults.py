"""What can happen to saves, in one job: it goes on each time, and comes to the same bits. benchmarks/faults.py has all."""

from collections import Counter
from pathlib import Path

import pytest

from faults_harness import KINDS, OF_NODES, Undisturbed, carry_out, plans

KINDS_HERE = ("torn-memory", "torn-storage", "full", "corrupt")


@pytest.mark.slow
def test_a_job_whose_saves_go_wrong_comes_to_the_same_bits(tmp_path: Path) -> None:
    (plan,) = plans(4, seed=2, kinds=KINDS_HERE)
    outcome = carry_out(plan, tmp_path / "disturbed", Undisturbed(tmp_path), step_s=0.02)
    assert outcome.problem is None
    assert None not in outcome.recovered_s


def test_plans_are_the_same_for_the_same_seed_and_have_every_kind_as_often() -> None:
    assert plans(100, 3) == plans(100, 3) != plans(100, 4)
    orders = [order for plan in plans(100, 3) for order in plan.orders]
    counts = Counter(order.kind for order in orders)
    assert set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) <= 1
    for plan in plans(100, 3):
        assert plan.is_on_nodes == any(order.kind in OF_NODES for order in plan.orders)
        steps = [order.step for order in plan.orders]
        assert steps == sorted(set(steps))
        assert steps[-1] < plan.steps
