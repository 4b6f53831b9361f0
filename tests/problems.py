"""Problems of mixed fleets, from a line each: ``a_problem([[4.0, 1.0], [1.0, 2.0]], capacity=[1, 1])``."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from artesian.policy.throughput import Problem
from builders import a_job


def a_problem(
    rate: Sequence[Sequence[float]],
    *,
    capacity: Sequence[float],
    devices: Sequence[Sequence[float]] | None = None,
    left: Sequence[float] | None = None,
    held_s: Sequence[Sequence[float]] | None = None,
    age_s: Sequence[float] | None = None,
    weight: Sequence[float] | None = None,
    on: Sequence[int] | None = None,
) -> Problem:
    """Jobs by their rates on each kind; all have one device on each kind, 100 steps to go, and had nothing."""
    rates = np.array(rate, dtype=np.float64)
    jobs = len(rates)
    had_s = np.array(held_s, dtype=np.float64) if held_s is not None else np.zeros_like(rates)
    with np.errstate(over="ignore", invalid="ignore"):  # tests also ask about numbers beyond all floats
        done = (rates * had_s).sum(1)
    return Problem(
        jobs=tuple(a_job(f"j{number}") for number in range(jobs)),
        kinds=tuple(f"k{kind}" for kind in range(rates.shape[1])),
        devices=np.array(devices, dtype=np.float64) if devices is not None else np.ones_like(rates),
        rate=rates,
        is_known=np.ones(jobs, dtype=np.bool_),
        left=np.array(left if left is not None else [100.0] * jobs),
        done=done,
        held_s=had_s,
        age_s=np.array(age_s if age_s is not None else [0.0] * jobs),
        weight=np.array(weight if weight is not None else [1.0] * jobs),
        on=np.array(on if on is not None else [-1] * jobs, dtype=np.int64),
        capacity=np.array(capacity, dtype=np.float64),
        least=np.array(devices, dtype=np.float64) if devices is not None else np.ones_like(rates),
        has=np.zeros(jobs),
        begun=np.zeros(jobs),
        lost_s=np.zeros(jobs),
        node_devices=np.ones(rates.shape[1]),
    )


@st.composite
def problems(draw: st.DrawFn, weights: Sequence[float] = (0.5, 1.0, 1.0, 2.0)) -> Problem:
    """Up to 5 jobs on up to 3 kinds, gangs and jobs that cannot run everywhere among them."""
    jobs, kinds = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    speed = st.sampled_from([0.0, 0.5, 1.0, 1.0, 3.0, 10.0])
    rate = [
        draw(st.lists(speed, min_size=kinds, max_size=kinds).filter(lambda row: max(row) > 0))
        for _ in range(jobs)
    ]
    devices = [[draw(st.sampled_from([0.5, 1.0, 1.0, 2.0]))] * kinds for _ in range(jobs)]
    held_s = [[draw(st.sampled_from([0.0, 0.0, 500.0])) for _ in range(kinds)] for _ in range(jobs)]
    return a_problem(
        rate,
        devices=devices,
        capacity=[draw(st.sampled_from([2.0, 3.0])) for _ in range(kinds)],
        left=[draw(st.sampled_from([1.0, 100.0, 1e6])) for _ in range(jobs)],
        held_s=held_s,
        age_s=[sum(row) + draw(st.sampled_from([0.0, 100.0])) for row in held_s],
        weight=[draw(st.sampled_from(weights)) for _ in range(jobs)],
    )
