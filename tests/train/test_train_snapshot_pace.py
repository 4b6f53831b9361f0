"""How often memory is brought up to date where nobody says."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from artesian.train.snapshot_pace import SnapshotPace


class Clock:
    """A clock of the nodes' that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1.79e9

    def __call__(self) -> float:
        return self.now_s


def snapshots(step_s: float, cost_s: float, steps: int, *, first: int = 1) -> list[int]:
    """Return after which of so many equal steps a snapshot is taken, by a rank that asks from ``first`` on."""
    clock = Clock()
    pace = SnapshotPace(clock=clock)
    begun_s = clock.now_s
    found = []
    for step in range(first, steps + 1):
        clock.now_s = begun_s + step * step_s
        now_s = step * step_s
        if pace.is_due(now_s):
            pace.taken(now_s)
            pace.cost(cost_s)
            found.append(step)
    return found


@given(st.floats(1e-3, 10.0), st.floats(1e-6, 10.0))
def test_what_snapshots_cost_is_at_most_2_percent_of_the_time(step_s: float, cost_s: float) -> None:
    taken = snapshots(step_s, cost_s, 300)
    assert taken[0] == 1
    # The first is no measure, so that the second one comes before anybody knows what they cost.
    assert len(taken[2:]) * cost_s <= 0.02 * 300 * step_s * (1 + 1e-9)


@given(st.floats(0.101, 10.0))
def test_a_long_step_that_costs_little_is_kept_each(step_s: float) -> None:
    assert snapshots(step_s, 0.0199 * step_s, 50) == list(range(1, 51))


@given(st.floats(1e-3, 0.0999))
def test_of_short_steps_one_in_a_tenth_of_a_second_is_kept(step_s: float) -> None:
    taken = snapshots(step_s, 1e-6, 400)
    assert len(taken) <= 400 * step_s / 0.1 + 2
    longest_s = max(later - earlier for earlier, later in itertools.pairwise(taken)) * step_s
    assert longest_s <= 0.1 + 2 * step_s


@given(st.floats(1e-3, 0.2), st.integers(2, 20))
def test_ranks_keep_the_same_steps_though_one_has_come_later(step_s: float, first: int) -> None:
    usual, late = snapshots(step_s, 1e-6, 400), snapshots(step_s, 1e-6, 400, first=first)
    both_since = first + int(0.1 / step_s) + 2
    assert [step for step in usual if step >= both_since] == [step for step in late if step >= both_since]
