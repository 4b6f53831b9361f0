"""The waiting jobs: a walk through them in any order, and indices that never go stale."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.queue import Index, Key, Place, WaitingJob, WaitingQueue, shape_of
from artesian.policy.order import PriorityFifo
from builders import GIB, a_job, a_placement, a_waiting
from strategies import waiting_jobs

FIFO = PriorityFifo().key


def latest_first(entry: WaitingJob) -> Key:
    """Another order, with many ties."""
    return (-entry.waits_since_s,)


KEYS = (FIFO, latest_first)


def by(key: Callable[[WaitingJob], Key]) -> Callable[[WaitingJob], tuple[Key, str]]:
    return lambda entry: (key(entry), entry.job.id)


def ids(entries: Iterator[WaitingJob]) -> list[str]:
    return [entry.job.id for entry in entries]


def index_of(queue: WaitingQueue, key: Callable[[WaitingJob], Key]) -> dict[object, list[Place]]:
    """What the queue keeps for the key, by shape."""
    queue.walk(key)
    kept: Index = queue._keys[key]
    return {shape_of(queue[alike.jobs[0][-2]].job): list(alike.jobs) for alike in kept.shapes}


@given(entries=waiting_jobs())
def test_a_walk_yields_every_job_once_the_least_key_first_and_ties_by_id(entries: list[WaitingJob]) -> None:
    queue = WaitingQueue(entries)
    for key in (*KEYS, *KEYS):
        assert list(queue.walk(key)) == sorted(entries, key=by(key))


@given(entries=waiting_jobs(), data=st.data())
def test_leaving_a_shape_leaves_out_exactly_the_rest_of_it(
    entries: list[WaitingJob], data: st.DataObject
) -> None:
    queue = WaitingQueue(entries)
    left = set()
    expected, met = sorted(entries, key=by(FIFO)), []
    walk = queue.walk(FIFO)
    for entry in walk:
        met.append(entry)
        if data.draw(st.booleans()):
            walk.leave_shape()
            left.add(shape_of(entry.job))
            expected = [
                other for other in expected if other in met or shape_of(other.job) != shape_of(entry.job)
            ]
        assert expected[: len(met)] == met
    assert met == expected
    assert {shape_of(entry.job) for entry in met} == {shape_of(entry.job) for entry in entries}
    assert list(queue.walk(FIFO)) == sorted(entries, key=by(FIFO)), "the next walk has all again"


@given(entries=waiting_jobs(), data=st.data())
def test_after_any_comings_and_goings_the_indices_are_those_of_a_queue_made_afresh(
    entries: list[WaitingJob], data: st.DataObject
) -> None:
    queue = WaitingQueue()
    inside: dict[str, WaitingJob] = {}
    known = {entry.job.id: entry for entry in entries}
    for _ in range(data.draw(st.integers(0, 3 * len(known)))):
        id = data.draw(st.sampled_from(sorted(known)))
        if id in inside:
            queue.discard(id)
            # It may come back as another attempt, in another place.
            known[id] = replace(inside.pop(id), waits_since_s=data.draw(st.sampled_from([0.0, 1.0, 9.0])))
        else:
            queue.add(known[id])
            inside[id] = known[id]
        if data.draw(st.booleans()):
            queue.walk(data.draw(st.sampled_from(KEYS)))  # from now on the queue keeps an index for it
    fresh = WaitingQueue(inside.values())
    assert dict(queue) == inside == dict(fresh)
    for key in KEYS:
        assert index_of(queue, key) == index_of(fresh, key)
        assert list(queue.walk(key)) == sorted(inside.values(), key=by(key))


@given(entries=waiting_jobs(), data=st.data())
def test_what_is_hidden_is_left_out_more_and_more_and_all_of_it_comes_back(
    entries: list[WaitingJob], data: st.DataObject
) -> None:
    entries = [
        replace(entry, claim=a_placement(("n1", [0]))) if data.draw(st.booleans()) else entry
        for entry in entries
    ]
    queue = WaitingQueue(entries)
    before = {key: index_of(queue, key) for key in KEYS}
    shown = {entry.job.id: entry for entry in entries}
    hidden: set[str] = set()
    with queue.hiding() as hide:
        for _ in range(3):
            gone: set[str] = data.draw(st.sets(st.sampled_from(sorted(queue)))) if queue else set()
            hide(gone | hidden)  # who is hidden already may be named again
            hidden |= gone
            shown = {id: entry for id, entry in shown.items() if id not in gone}
            fresh = WaitingQueue(shown.values())
            assert (dict(queue), queue.claims) == (shown, fresh.claims)
            for key in KEYS:
                assert index_of(queue, key) == index_of(fresh, key)
        with pytest.raises(KeyError):
            hide(["nobody"])
    assert dict(queue) == {entry.job.id: entry for entry in entries}
    assert queue.claims == WaitingQueue(entries).claims
    assert {key: index_of(queue, key) for key in KEYS} == before


@given(entries=waiting_jobs())
def test_two_walks_at_once_do_not_disturb_each_other(entries: list[WaitingJob]) -> None:
    queue = WaitingQueue(entries)
    one, other, again = queue.walk(FIFO), queue.walk(latest_first), queue.walk(FIFO)
    again.leave_shape()
    together = list(zip(one, other, again, strict=True))
    assert [first for first, _, _ in together] == [third for _, _, third in together]
    assert [first for first, _, _ in together] == sorted(entries, key=by(FIFO))
    assert [second for _, second, _ in together] == sorted(entries, key=by(latest_first))


def test_a_queue_is_a_mapping_by_id() -> None:
    one, other = a_waiting(a_job("a")), a_waiting(a_job("b"))
    queue = WaitingQueue([one, other])
    assert (len(queue), set(queue), queue["a"], queue.get("c")) == (2, {"a", "b"}, one, None)
    queue.discard("c")
    queue.discard("a")
    assert dict(queue) == {"b": other}
    assert ids(WaitingQueue().walk(FIFO)) == []


def test_a_job_is_not_taken_in_twice() -> None:
    queue = WaitingQueue([a_waiting()])
    with pytest.raises(AssertionError, match="j1"):
        queue.add(a_waiting())
    assert ids(queue.walk(FIFO)) == ["j1"]


def test_a_key_that_changes_while_its_job_waits_is_seen() -> None:
    shift = [0.0]

    def unsteady(entry: WaitingJob) -> Key:
        return (entry.submitted_s * shift[0],)

    queue = WaitingQueue(a_waiting(a_job(id), float(number)) for number, id in enumerate("abc"))
    queue.walk(unsteady)
    shift[0] = -1.0
    with pytest.raises((AssertionError, IndexError)):
        queue.discard("c")


@pytest.mark.parametrize(
    ("more", "is_alike"),
    [
        ({"priority": 5, "name": "x", "command": ("false",), "grace_s": 1.0, "env": {"A": "1"}}, True),
        ({"devices": "cpu:3"}, False),
        ({"devices": "cpu:1..2"}, False),
        ({"devices": "cpu:2 | H100:1"}, False),
        ({"cpus_per_device": 1.0}, False),
        ({"memory_bytes_per_device": GIB}, False),
    ],
)
def test_jobs_are_of_one_shape_where_what_one_can_get_the_other_can(
    more: dict[str, Any], is_alike: bool
) -> None:
    job = a_job("a", devices="cpu:2")
    other = a_job("b", **{"devices": "cpu:2", **more})
    assert (shape_of(job) == shape_of(other)) is is_alike


@given(entries=waiting_jobs(), data=st.data())
def test_leaving_later_ones_leaves_out_those_next_in_the_shape_that_would_end_too_late(
    entries: list[WaitingJob], data: st.DataObject
) -> None:
    lasting = st.sampled_from([None, 1.0, 5.0, 20.0])
    entries = [
        replace(entry, job=replace(entry.job, estimated_duration_s=data.draw(lasting))) for entry in entries
    ]
    queue = WaitingQueue(entries)
    walk = queue.walk(FIFO)
    expected, met = sorted(entries, key=by(FIFO)), []
    for entry in walk:
        met.append(entry)
        assert expected[: len(met)] == met
        if not data.draw(st.booleans()):
            continue
        until_s = data.draw(st.sampled_from([-math.inf, 100.5, 101.0, 105.0, math.inf]))
        walk.leave_later(100.0, until_s)
        alike = [other for other in expected[len(met) :] if shape_of(other.job) == shape_of(entry.job)]
        ends_s = [100.0 + (other.job.estimated_duration_s or math.inf) for other in alike]
        late = next((number for number, end_s in enumerate(ends_s) if end_s <= until_s), len(alike))
        expected = [other for other in expected if other not in alike[:late]]
    assert met == expected


@given(entries=waiting_jobs())
def test_the_first_of_each_shape_leads_it(entries: list[WaitingJob]) -> None:
    queue = WaitingQueue(entries)
    leading: dict[object, str] = {}
    for entry in sorted(entries, key=by(FIFO)):
        leading.setdefault(shape_of(entry.job), entry.job.id)
    assert {id for id in queue if queue.leads(FIFO, id)} == set(leading.values())
