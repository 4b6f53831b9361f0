"""Sets of bits say of nodes what arrays say of them, and Pack places by them as by the arrays."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.levels import Levels, bits, each
from artesian.model.resources import DeviceRequest
from artesian.policy.place import Pack
from builders import a_job
from strategies import fleets, jobs

MOST = 8

counts = st.lists(st.integers(0, MOST), max_size=100)


@given(counts=counts, data=st.data())
def test_levels_find_what_arrays_find(counts: list[int], data: st.DataObject) -> None:
    levels = Levels(np.array(counts, dtype=np.int64), MOST)
    for _ in range(data.draw(st.integers(0, 5)) if counts else 0):
        row, after = data.draw(st.integers(0, len(counts) - 1)), data.draw(st.integers(0, MOST))
        levels.move(row, counts[row], after)
        counts[row] = after
    mask = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))), dtype=bool
    )
    rows = np.flatnonzero(mask).tolist()
    among = bits(mask)
    assert list(each(among)) == rows
    least = data.draw(st.integers(0, MOST))
    enough = [row for row in rows if counts[row] >= least]
    assert levels.lowest(least, among) == min(enough, key=lambda row: (counts[row], row), default=None)
    highest = min(enough, key=lambda row: (-counts[row], row), default=None)
    assert levels.highest(least, among) == (None if highest is None else (highest, counts[highest]))
    some = [(row, counts[row]) for row in rows if counts[row]]
    assert list(levels.falling(among)) == sorted(some, key=lambda found: (-found[1], found[0]))
    assert levels.sum(among) == sum(counts[row] for row in rows)


def packed(
    job: Job, request: DeviceRequest, capacity: Capacity, allowed: Any
) -> list[tuple[str, int]] | None:
    """Where whole devices go, by the arrays: what ``Pack`` promises, with a look at each node."""
    count = np.where(allowed, capacity.startable(job, request), 0)
    most, least = request.max_devices, request.min_devices
    enough = np.flatnonzero(count >= max(1, most))
    if enough.size:
        row = int(enough[np.argmin(capacity.free_whole[enough])])
        return [(capacity.nodes[row].id, most)]
    if request.is_host_only or not count.size:
        return None
    if count.max() >= least:
        return [(capacity.nodes[int(count.argmax())].id, int(count.max()))]
    sums = capacity.by_kind(count)
    kind = int(np.argmax(np.minimum(sums, most)))
    if sums[kind] < least:
        return None
    shares, left = [], most
    for row in np.argsort(-np.where(capacity.kind == kind, count, 0), kind="stable").tolist():
        if (taken := min(left, int(count[row]))) > 0 and capacity.kind[row] == kind:
            shares.append((capacity.nodes[row].id, taken))
            left -= taken
    return shares


@given(fleet=fleets(most_nodes=6), data=st.data())
def test_pack_places_as_a_look_at_each_node_would(fleet: list[Node], data: st.DataObject) -> None:
    capacity = Capacity(fleet)
    capacity.occupy()
    for node in fleet:
        if data.draw(st.integers(0, 5)) == 0:
            capacity.set_up(node.id, False)
    for number in range(6):
        job = data.draw(jobs(f"j{number}"))
        allowed = capacity.is_up
        if data.draw(st.booleans()):
            allowed = allowed & np.array([data.draw(st.booleans()) for _ in fleet], dtype=bool)
        placement = Pack().place(job, capacity, allowed)
        if not any(request.is_fraction for request in job.devices):
            every = (packed(job, request, capacity, allowed) for request in job.devices)
            expected = next((found for found in every if found is not None), None)
            shares = None if placement is None else placement.shares
            found = None if shares is None else [(share.node_id, len(share.devices)) for share in shares]
            assert found == expected
        if placement is not None:
            capacity.take(job, placement)
        assert capacity.levels.at == Levels(capacity.free_whole, capacity.free_milli.shape[1]).at
        assert capacity.open_devices == np.count_nonzero(capacity.free_milli > 0)


def test_a_job_that_wants_no_device_goes_to_the_fullest_host_that_has_room() -> None:
    capacity = Capacity(
        [Node(id=f"n{n}", accelerator="cpu", devices=n, cpus=4, memory_bytes=2**30) for n in (2, 0, 1)]
    )
    placement = Pack().place(a_job(devices="host", cpus_per_device=2.0), capacity, capacity.is_up)
    assert placement is not None
    assert placement.shares[0].node_id == "n0"
