"""Records as bytes: every kind comes back as it went in, or is refused before it is acknowledged."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.kernel.state import Record
from artesian.model.events import EVENT_TYPES, CancelRequested, JobSubmitted, NodeJoined
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, JobKind, Outcome, RetryPolicy
from artesian.model.placement import NodeShare, Placement
from artesian.model.plan import Hold, HoldCode, Plan, Start, Stop
from artesian.model.resources import DeviceRequest
from artesian.store import UnstorableRecord
from artesian.store.codec import MOST_BYTES, RECORD_TYPES, UnknownRecord, decode, encode
from artesian.wire import Fault
from builders import (
    a_job,
    a_node,
    a_placement,
    cancelled,
    ended,
    excluded,
    joined,
    lost,
    progressed,
    resized,
    returned,
    started,
    submitted,
    ticked,
)

floats = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(min_value=0, allow_infinity=False, allow_nan=False)
whole = st.integers(0, 2**62)
counts = st.integers(1, 10_000)


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


requests = st.one_of(
    st.integers(1, 999).map(lambda milli: DeviceRequest(min_milli=milli, max_milli=milli)),
    st.builds(
        lambda low, more, **kind: DeviceRequest(min_milli=low * 1000, max_milli=(low + more) * 1000, **kind),
        counts,
        counts,
        vendor=optional(st.text()),
        accelerator=optional(st.text()),
        memory_bytes=optional(whole),
    ),
)
retries = st.builds(
    lambda backoff_s, more_s, **rest: RetryPolicy(
        backoff_s=backoff_s, max_backoff_s=backoff_s + more_s, **rest
    ),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    limit=st.integers(0, 100),
    causes=st.frozensets(st.sampled_from(Cause)),
)
jobs = st.builds(
    Job,
    id=st.text(),
    name=st.from_regex(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?", fullmatch=True),
    command=st.lists(st.text(), min_size=1).map(tuple),
    devices=st.lists(requests, min_size=1, max_size=3).map(tuple),
    workdir=st.text(),
    kind=st.sampled_from(JobKind),
    workers=optional(st.integers(0, 10_000)),
    env=st.dictionaries(st.text(), st.text(), max_size=4),
    cpus_per_device=optional(st.floats(0.5, 64)),
    memory_bytes_per_device=optional(st.integers(1, 2**62)),
    priority=st.integers(-(2**31), 2**31),
    grace_s=amounts,
    estimated_duration_s=optional(st.floats(1, 1e9)),
    checkpoint_every_steps=optional(counts),
    dataset=optional(st.text()),
    faults=st.lists(st.builds(Fault, worker=whole, step=whole, epoch=counts), max_size=2).map(tuple),
    retry=retries,
)
nodes = st.builds(
    Node,
    devices=st.integers(0, 64),
    cpus=counts,
    memory_bytes=whole,
    device_memory_bytes=optional(whole),
    peak_flops=optional(amounts),
)
placements = st.builds(
    Placement,
    shares=st.lists(
        st.builds(
            NodeShare,
            devices=st.lists(st.integers(0, 64), min_size=1, unique=True).map(tuple),
            milli=st.integers(1, 1000),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda share: share.node_id,
    ).map(tuple),
)
outcomes = st.builds(
    Outcome,
    exit_code=optional(st.integers(0, 255)),
    signal=optional(st.integers(1, 64)),
    worker=optional(whole),
)
fields: dict[str, st.SearchStrategy[Any]] = {
    "at_s": floats,
    "devices": st.lists(requests, min_size=1, max_size=3).map(tuple),
    "epoch": counts,
    "job": jobs,
    "node": nodes,
    "outcome": outcomes,
}
starts = st.builds(Start, epoch=counts, placement=placements)
stops = st.builds(Stop, epoch=counts, grace_s=amounts)
holds = st.builds(Hold, code=st.sampled_from(HoldCode), behind=optional(st.text()))
plans = st.builds(
    Plan,
    at_s=floats,
    stops=st.lists(stops, max_size=3).map(tuple),
    starts=st.lists(starts, max_size=3).map(tuple),
    holds=st.lists(holds, max_size=3).map(tuple),
)


def records_of(name: str) -> st.SearchStrategy[Record]:
    cls = RECORD_TYPES[name]
    if cls is Plan:
        return plans
    given_fields = {field: fields[field] for field in cls.__struct_fields__ if field in fields}
    return st.builds(cls, **given_fields)


ONE_OF_EACH: tuple[Record, ...] = (
    joined(),
    lost(),
    excluded(),
    returned(),
    submitted(),
    cancelled(),
    resized(),
    started(),
    ended(),
    progressed(saved_s=1.5, steps=3.0, steps_s=2.0),
    ticked(),
    Plan(at_s=0.0),
)


def test_every_kind_of_event_and_the_plan_can_be_stored() -> None:
    assert set(RECORD_TYPES.values()) == {*EVENT_TYPES, Plan}
    assert [type(record) for record in ONE_OF_EACH] == list(RECORD_TYPES.values())


@pytest.mark.parametrize("name", sorted(RECORD_TYPES))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_record_comes_back_as_it_went_in(name: str, data: st.DataObject) -> None:
    record = data.draw(records_of(name))
    stored_name, body = encode(record)
    assert stored_name == name
    assert decode(stored_name, body) == record


def test_the_form_on_disk_is_pinned() -> None:
    """Renaming a class or a field breaks every journal there is: this fails first, and asks for a migration."""
    placement = a_placement(("n1", [0, 1]))
    plan = Plan(
        at_s=2.5,
        stops=(Stop(job_id="a", epoch=1, grace_s=3.0, cause=Cause.PREEMPTED, reason="r"),),
        starts=(Start(job_id="b", epoch=2, placement=placement, reason="r"),),
        holds=(
            Hold(job_id="c", code=HoldCode.DEVICES_BUSY),
            Hold(job_id="d", code=HoldCode.BEHIND_ANOTHER, behind="c"),
        ),
    )
    name, body = encode(plan)
    assert name == "Plan"
    assert body.decode() == (
        '{"at_s":2.5,"stops":[{"job_id":"a","epoch":1,"grace_s":3.0,"cause":"preempted","reason":"r"}],'
        '"starts":[{"job_id":"b","epoch":2,"placement":{"shares":[{"node_id":"n1","devices":[0,1],"milli":1000}]},'
        '"reason":"r"}],"holds":[{"job_id":"c","code":"devices_busy","behind":null},'
        '{"job_id":"d","code":"behind_another","behind":"c"}],"claims":[],"notice":null}'
    )
    name, body = encode(ended(cause=Cause.SIGNAL))
    assert name == "AttemptEnded"
    assert body.decode() == (
        '{"at_s":0.0,"job_id":"j1","epoch":1,"outcome":{"cause":"signal","exit_code":null,"signal":null,'
        '"worker":null,"message":"","restarts":0}}'
    )
    assert sorted(RECORD_TYPES) == [
        "AttemptEnded",
        "AttemptProgressed",
        "AttemptStarted",
        "CancelRequested",
        "ClockTicked",
        "JobSubmitted",
        "NodeExcluded",
        "NodeJoined",
        "NodeLost",
        "NodeReturned",
        "Plan",
        "ResizeRequested",
    ]


def test_a_set_is_the_same_bytes_whatever_order_it_was_made_in() -> None:
    causes = list(Cause)
    bodies = {
        encode(submitted(a_job(retry=RetryPolicy(causes=frozenset(order)))))[1]
        for order in (causes, causes[::-1])
    }
    assert len(bodies) == 1


@pytest.mark.parametrize("record", ONE_OF_EACH, ids=lambda record: type(record).__name__)
def test_a_field_of_a_later_version_is_ignored(record: Record) -> None:
    name, body = encode(record)
    later = {**json.loads(body), "added_later": {"x": [1]}}
    assert decode(name, json.dumps(later).encode()) == record


def test_a_record_type_of_a_later_version_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownRecord, match=r"JobResized.*known are AttemptEnded, .*Plan"):
        decode("JobResized", b"{}")


def test_a_value_of_a_later_version_is_refused_with_its_place() -> None:
    with pytest.raises(UnknownRecord, match=r"no AttemptEnded .*'melted'.*outcome.cause"):
        decode("AttemptEnded", b'{"at_s":0,"job_id":"j","epoch":1,"outcome":{"cause":"melted"}}')


@pytest.mark.parametrize(
    "record",
    [
        ticked(math.nan),
        ticked(math.inf),
        submitted(a_job(estimated_duration_s=math.inf)),
        NodeJoined(at_s=0.0, node=a_node(peak_flops=math.inf)),
        CancelRequested(at_s=0.0, job_id="bad \udcff bytes"),
        submitted(a_job(command=["true"])),
        JobSubmitted(at_s=0.0, job=replace(a_job(), env={"A": object()})),
    ],
    ids=["nan", "inf", "inf-to-null", "inf-in-node", "surrogate", "list-for-tuple", "object"],
)
def test_what_would_not_come_back_unchanged_is_refused(record: Record) -> None:
    with pytest.raises(UnstorableRecord, match=f"record {type(record).__name__} cannot be stored") as caught:
        encode(record)
    assert caught.value.hint


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(UnstorableRecord, match="record Outcome cannot be stored"):
        encode(Outcome(cause=Cause.COMPLETED))  # type: ignore[arg-type]


def test_what_a_user_asks_for_has_a_largest_size_and_what_is_decided_has_none() -> None:
    largest = submitted(a_job(env={"X": "x" * (MOST_BYTES // 2)}))
    assert decode(*encode(largest)) == largest
    with pytest.raises(UnstorableRecord, match=f"at most {MOST_BYTES} bytes") as caught:
        encode(submitted(a_job(env={"X": "x" * MOST_BYTES})))
    assert caught.value.hint
    holds = tuple(Hold(job_id="j" * 50 + str(number), code=HoldCode.DEVICES_BUSY) for number in range(20_000))
    assert len(encode(Plan(at_s=0.0, holds=holds))[1]) > MOST_BYTES
