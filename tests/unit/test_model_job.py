"""Jobs, retry policies, nodes and placements refuse what contradicts itself."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.errors import ArtesianError, JobError
from artesian.model.fleet import Fleet
from artesian.model.job import Cause, JobKind, RetryPolicy
from artesian.model.placement import NodeShare, Placement
from builders import a_job, a_node, a_placement, nodes, retry


@pytest.mark.parametrize("name", ["a", "train-7b", "a.b_c", "0", "a" * 63])
def test_a_name_is_lower_case_and_short(name: str) -> None:
    assert a_job(name=name).name == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "a" * 64, "ä", "a\n", "a/b"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="name: expected"):
        a_job(name=name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"command": ()}, "expected a command"),
        ({"workers": -1}, "workers must be at least 0"),
        ({"grace_s": -0.1}, "grace must not be negative"),
        ({"grace_s": math.nan}, "grace must not be negative"),
        ({"cpus_per_device": 0.0}, "CPUs per device must be at least 0.001"),
        ({"cpus_per_device": -2.0}, "CPUs per device must be at least 0.001"),
        ({"cpus_per_device": 0.0001}, "CPUs per device must be at least 0.001"),
        ({"memory_bytes_per_device": 0}, "memory per device must be at least 1 B"),
    ],
)
def test_a_job_that_contradicts_itself_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=f"job train: {said}") as caught:
        a_job("train", **wrong)
    assert isinstance(caught.value, ArtesianError)


def test_a_gang_has_one_worker_per_device_in_training_and_as_many_as_the_job_says() -> None:
    assert a_job(kind=JobKind.TRAIN).gang_size(4) == 4
    assert a_job(kind=JobKind.BATCH).gang_size(4) == 0
    assert a_job(kind=JobKind.TRAIN, workers=2).gang_size(4) == 2


@pytest.mark.parametrize(
    ("limit", "backoff_s", "max_backoff_s"),
    [(-1, 1.0, 60.0), (3, -1.0, 60.0), (3, 2.0, 1.0), (3, math.nan, 60.0), (3, 1.0, math.nan)],
)
def test_a_retry_policy_that_contradicts_itself_is_refused(
    limit: int, backoff_s: float, max_backoff_s: float
) -> None:
    with pytest.raises(JobError, match="retry: expected"):
        RetryPolicy(limit=limit, backoff_s=backoff_s, max_backoff_s=max_backoff_s)


@given(
    limit=st.integers(0, 10**6),
    counted=st.integers(0, 10**6),
    backoff_s=st.floats(0, 1e6),
    more_s=st.floats(0, 1e6),
    cause=st.sampled_from(Cause),
)
def test_a_delay_lies_between_the_first_and_the_longest_and_ends_at_the_limit(
    limit: int, counted: int, backoff_s: float, more_s: float, cause: Cause
) -> None:
    policy = retry(limit, cause, backoff_s=backoff_s, max_backoff_s=backoff_s + more_s)
    delay_s = policy.delay_s(cause, counted)
    if not policy.counts(cause):
        assert delay_s == 0.0
    elif counted >= limit:
        assert delay_s is None
    else:
        assert delay_s is not None
        assert backoff_s <= delay_s <= backoff_s + more_s
        later_s = policy.delay_s(cause, min(counted + 1, limit - 1))
        assert later_s is not None
        assert later_s >= delay_s


def test_a_job_that_is_retried_a_thousand_times_and_more_still_waits_the_longest_delay() -> None:
    assert retry(10_000, Cause.SIGNAL).delay_s(Cause.SIGNAL, 5_000) == 60.0


@pytest.mark.parametrize("wrong", [{"devices": -1}, {"cpus": 0}])
def test_a_node_without_cpus_or_with_less_than_no_device_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="node n1: devices="):
        a_node(**wrong)  # type: ignore[arg-type]


def test_a_fleet_has_the_devices_of_its_nodes() -> None:
    assert Fleet(nodes=tuple(nodes(3, devices=4))).devices == 12
    assert Fleet(nodes=()).devices == 0


def test_a_placement_counts_its_devices_and_reads_as_nodes_with_indices() -> None:
    placement = a_placement(("n1", [0, 1]), ("n2", [3]))
    assert (placement.devices, str(placement)) == (3, "n1[0,1] + n2[3]")


@pytest.mark.parametrize("devices", [[0, 0], [-1], [1, 2, 1]])
def test_a_share_has_distinct_devices(devices: list[int]) -> None:
    with pytest.raises(ValueError, match="node n1: expected distinct device indices"):
        NodeShare(node_id="n1", devices=tuple(devices))


@pytest.mark.parametrize("milli", [0, -1, 1001])
def test_a_share_takes_a_device_or_a_part_of_it(milli: int) -> None:
    with pytest.raises(ValueError, match="thousandths"):
        NodeShare(node_id="n1", devices=(0,), milli=milli)


def test_a_placement_has_one_share_per_node_and_at_least_one() -> None:
    with pytest.raises(ValueError, match="one share per node"):
        Placement(shares=())
    with pytest.raises(ValueError, match="one share per node"):
        a_placement(("n1", [0]), ("n1", [1]))
