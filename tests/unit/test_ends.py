"""When devices come free: what is kept from one question to the next is what a look at each would say."""

import math
from collections.abc import Collection

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.ends import Ends
from artesian.model.placement import NodeShare
from artesian.model.resources import MILLI

WIDTH = 3

moments = st.floats(0.0, 1e6, allow_nan=False) | st.sampled_from([0.0, 1.0, 10.0, 100.0])


def expected(held: Collection[tuple[float, float]], at_s: float) -> float:
    """The first of the last end, the end as long again after the beginning, and so on, that lies ahead."""
    if not held:
        return -math.inf
    end_s, since_s = max((end_s, -since_s) for since_s, end_s in held)
    since_s = -since_s
    if end_s > at_s:
        return end_s
    estimate_s = max(end_s - since_s, 1e-9)
    return next(end for k in range(1, 200) if (end := since_s + estimate_s * 2.0**k) > at_s)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, WIDTH - 1), moments, st.none() | st.floats(1e-3, 1e5)), max_size=12
    ),
    milli=st.lists(st.sampled_from([MILLI, 100]), min_size=WIDTH, max_size=WIDTH),
    data=st.data(),
)
def test_what_is_outlived_is_put_off_as_if_it_was_asked_for_the_first_time(
    steps: list[tuple[int, float, float | None]], milli: list[int], data: st.DataObject
) -> None:
    ends = Ends(np.array([[True] * WIDTH + [False]]))
    held: list[dict[str, tuple[float, float]]] = [{} for _ in range(WIDTH)]
    for number, (device, since_s, lasts_s) in enumerate(steps):
        share = NodeShare(node_id="n", devices=(device,), milli=milli[device])
        is_full = milli[device] == MILLI and bool(held[device])
        if is_full or (held[device] and data.draw(st.booleans())):
            job_id = data.draw(st.sampled_from(sorted(held[device])))
            del held[device][job_id]
            if not held[device]:
                ends.clear(0, device)
            if milli[device] < MILLI:
                ends.leave(0, share, job_id)
        else:
            end_s = math.inf if lasts_s is None else since_s + lasts_s
            ends.hold(0, share, f"j{number}", since_s, end_s)
            held[device][f"j{number}"] = (since_s, end_s)
        at_s = max(data.draw(moments), *(began_s for holders in held for began_s, _ in holders.values()), 0.0)
        found = ends.expected_s(at_s)[0].tolist()
        assert found == [*(expected(holders.values(), at_s) for holders in held), math.inf]
        assert ends.copy().expected_s(at_s)[0].tolist() == found


@given(
    held=st.lists(st.tuples(moments, st.floats(1e-9, 1e5) | st.just(0.0)), min_size=1, max_size=20),
    later_s=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=3),
)
def test_many_that_are_outlived_at_once_are_put_off_as_each_alone(
    held: list[tuple[float, float]], later_s: list[float]
) -> None:
    many = 100
    together, alone = (
        Ends(np.ones((len(held), many), dtype=np.bool_)),
        Ends(np.ones((len(held), 1), dtype=np.bool_)),
    )
    for row, (since_s, lasts_s) in enumerate(held):
        for ends, devices in ((together, tuple(range(many))), (alone, (0,))):
            ends.hold(row, NodeShare(node_id="n", devices=devices), "j", since_s, since_s + lasts_s)
    at_s = max(since_s for since_s, _ in held)
    for more_s in later_s:
        at_s += more_s
        one_by_one = alone.expected_s(at_s)
        assert (together.expected_s(at_s) == one_by_one).all()
