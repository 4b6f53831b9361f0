"""When devices come free: what is kept from one question to the next is what a look at each would say."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.ends import Ends

WIDTH = 3

moments = st.floats(0.0, 1e6, allow_nan=False) | st.sampled_from([0.0, 1.0, 10.0, 100.0])


def expected(held: tuple[float, float] | None, at_s: float) -> float:
    """The first of the end, the end as long again after the beginning, and so on, that lies ahead."""
    if held is None:
        return -math.inf
    since_s, end_s = held
    if end_s > at_s:
        return end_s
    estimate_s = max(end_s - since_s, 1e-9)
    return next(end for k in range(1, 200) if (end := since_s + estimate_s * 2.0**k) > at_s)


@given(
    steps=st.lists(
        st.tuples(st.integers(0, WIDTH - 1), moments, st.none() | st.floats(1e-3, 1e5)), max_size=12
    ),
    data=st.data(),
)
def test_what_is_outlived_is_put_off_as_if_it_was_asked_for_the_first_time(
    steps: list[tuple[int, float, float | None]], data: st.DataObject
) -> None:
    ends = Ends(np.array([[True] * WIDTH + [False]]))
    held: dict[int, tuple[float, float]] = {}
    for device, since_s, lasts_s in steps:
        if device in held and data.draw(st.booleans()):
            ends.clear(0, device)
            del held[device]
        else:
            end_s = math.inf if lasts_s is None else since_s + lasts_s
            end_s = max(end_s, held.get(device, (0.0, -math.inf))[1])
            ends.extend(0, device, since_s, end_s)
            held[device] = (since_s, end_s)
        at_s = max(data.draw(moments), *(began_s for began_s, _ in held.values()), 0.0)
        found = ends.expected_s(at_s)[0].tolist()
        assert found == [*(expected(held.get(device), at_s) for device in range(WIDTH)), math.inf]
        assert ends.copy().expected_s(at_s)[0].tolist() == found
