"""How the workers of a gang are divided among its nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.engines.gang import divided
from builders import a_placement


@given(devices=st.lists(st.integers(1, 16), min_size=1, max_size=12), over=st.integers(0, 200))
def test_every_node_has_workers_as_it_has_devices(devices: list[int], over: int) -> None:
    placement = a_placement(*((f"n{number}", range(count)) for number, count in enumerate(devices)))
    workers = len(devices) + over
    parts = divided(workers, placement)
    assert sum(parts) == workers
    assert min(parts) >= 1
    if workers % sum(devices) == 0:
        assert parts == tuple(count * workers // sum(devices) for count in devices)
    fair = [workers * count / sum(devices) for count in devices]
    assert all(own == 1 or own < due + len(devices) for own, due in zip(parts, fair, strict=True))
    for own, count in zip(parts, devices, strict=True):
        for others, more in zip(parts, devices, strict=True):
            assert not (count < more and own > max(1, others)), "fewer devices, more workers"


def test_of_nodes_that_are_alike_the_first_have_more() -> None:
    alike = a_placement(("n1", range(2)), ("n2", range(2)), ("n3", range(2)))
    assert divided(7, alike) == (3, 2, 2)
    assert divided(8, alike) == (3, 3, 2)


def test_too_few_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="a worker on each of its 2 nodes, got 1 workers"):
        divided(1, a_placement(("n1", [0]), ("n2", [0])))
