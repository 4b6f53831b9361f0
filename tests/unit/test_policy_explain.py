"""Reasons in words: every sentence is read here as a user reads it."""

from collections.abc import Sequence

import pytest

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Reason
from artesian.policy import explain
from builders import GIB, Kernel, a_job, a_node, a_placement, a_snapshot, fifo, lost, nodes

H100 = "H100-SXM5-80GB"


def reason_for(
    job: Job,
    fleet: Sequence[Node],
    *,
    running: Sequence[tuple[Job, Placement]] = (),
    ahead: Sequence[Job] = (),
) -> Reason:
    """Why ``job`` waits behind ``ahead`` in the first cycle of this fleet."""
    reason = fifo().explain(a_snapshot(fleet, waiting=[*ahead, job], running=running), job.id)
    assert reason is not None, f"{job.id} starts"
    return reason


def busy(*holders: tuple[str, list[int]], node: str = "n1") -> list[tuple[Job, Placement]]:
    return [(a_job(name), a_placement((node, devices))) for name, devices in holders]


@pytest.mark.parametrize(
    ("devices", "free", "text", "unblock"),
    [
        ("cpu:1", 0, "needs 1 device (cpu:1), 0 can be had now", "1 more device becomes free"),
        ("cpu:4", 3, "needs 4 devices (cpu:4), 3 can be had now", "1 more device becomes free"),
        ("cpu:4", 1, "needs 4 devices (cpu:4), 1 can be had now", "3 more devices become free"),
        ("2..8", 1, "needs at least 2 devices (2..8), 1 can be had now", "1 more device becomes free"),
        ("0.5", 0, "no device has 0.5 of itself free", "one of them ends"),
    ],
)
def test_the_first_in_the_queue_is_told_how_many_devices_it_lacks_and_who_has_them(
    devices: str, free: int, text: str, unblock: str
) -> None:
    holder = busy(("a", list(range(8 - free))))
    reason = reason_for(a_job("j", devices=devices), nodes(1), running=holder)
    assert reason == Reason(
        code=HoldCode.DEVICES_BUSY, text=f"{text}; held by a ({8 - free})", unblock=unblock
    )


def test_the_three_largest_holders_are_named_the_largest_first() -> None:
    holders = busy(("b", [0]), ("c", [1, 2]), ("a", [3]), ("d", [4, 5]), ("e", [6, 7]))
    assert reason_for(a_job("j"), nodes(1), running=holders).text.endswith(
        "; held by c (2), d (2), e (2) and 2 more"
    )


def test_a_holder_of_other_devices_is_not_named() -> None:
    fleet = [a_node("c", devices=1), a_node("h", devices=1, accelerator=H100)]
    running = [*busy(("x", [0]), node="c"), *busy(("y", [0]), node="h")]
    assert reason_for(a_job("j", devices="H100:1"), fleet, running=running).text.endswith("; held by y (1)")


def test_a_job_that_started_in_this_very_cycle_is_a_holder_too() -> None:
    reason = reason_for(a_job("j"), nodes(1, devices=1), ahead=[a_job("first")])
    assert reason.text == "needs 1 device (cpu:1), 0 can be had now; held by first (1)"


def test_of_several_alternatives_the_nearest_is_explained() -> None:
    fleet = [a_node("c", devices=8), a_node("h", devices=2, accelerator=H100)]
    running = [*busy(("x", [0]), node="c"), *busy(("y", [0]), node="h")]
    reason = reason_for(a_job("j", devices="cpu:12 | cpu:8 | H100:2"), fleet, running=running)
    assert reason.text == "needs 8 devices (cpu:12 | cpu:8 | H100:2), 7 can be had now; held by x (1)"


def test_where_cpus_or_memory_are_short_the_reason_says_so() -> None:
    fleet = [a_node(devices=4, cpus=4)]
    running = [(a_job("x", cpus_per_device=3.0), a_placement(("n1", [0])))]
    reason = reason_for(a_job("j", devices="cpu:2", cpus_per_device=1.0), fleet, running=running)
    assert (
        reason.text
        == "needs 2 devices (cpu:2) with CPUs and memory for each, 1 can be had now; held by x (1)"
    )
    assert reason.unblock == "1 more device becomes free with CPUs and memory for each"


def test_a_job_behind_another_is_told_which_one_and_how_to_pass_it() -> None:
    ahead = a_job("big", devices="cpu:8", priority=2)
    reason = reason_for(a_job("j"), nodes(1), ahead=[ahead], running=busy(("x", [0])))
    assert reason == Reason(
        code=HoldCode.BEHIND_ANOTHER,
        text="big (big) is ahead of it and waits for the same devices",
        unblock="big starts or is cancelled, or this job has a priority above 2",
    )


def test_a_job_behind_many_of_its_shape_is_told_the_first_of_them() -> None:
    waiting = [a_job(f"w{number}", devices="cpu:2") for number in range(5)]
    reason = reason_for(a_job("j", devices="cpu:2"), nodes(1, devices=1), ahead=[a_job("x"), *waiting])
    assert reason.code is HoldCode.LARGER_THAN_FLEET
    reason = reason_for(a_job("j", devices="cpu:2"), nodes(1, devices=2), ahead=[a_job("x"), *waiting])
    assert reason.text == "w0 (w0) is ahead of it and waits for the same devices"


def test_a_job_that_the_cycle_did_not_come_to_is_told_who_keeps_its_devices() -> None:
    ahead = [a_job("first", devices="cpu:8"), a_job("second", devices="cpu:4")]
    reason = reason_for(a_job("j", devices="cpu:1"), nodes(1), ahead=ahead, running=busy(("x", [0])))
    assert reason.text == "first (first) is ahead of it and waits for the same devices"


def test_a_job_that_no_fleet_could_hold_is_not_what_the_others_wait_for() -> None:
    ahead = [a_job("huge", devices="cpu:99", priority=3), a_job("big", devices="cpu:8", priority=2)]
    reason = reason_for(a_job("j", devices="cpu:1"), nodes(1), ahead=ahead, running=busy(("x", [0])))
    assert reason.text == "big (big) is ahead of it and waits for the same devices"
    assert reason.unblock == "big starts or is cancelled, or this job has a priority above 2"


def test_a_job_that_would_start_has_no_reason_to_wait_and_one_that_does_not_wait_is_not_known() -> None:
    snapshot = a_snapshot(waiting=[a_job("j")], running=busy(("x", [0])))
    assert fifo().explain(snapshot, "j") is None
    for id in ("x", "ghost"):
        with pytest.raises(KeyError, match=id):
            fifo().explain(snapshot, id)


@pytest.mark.parametrize(
    ("fleet", "has"),
    [
        ([], "no nodes"),
        ([a_node("c")], "cpu"),
        ([a_node("c"), a_node("a", accelerator="A30"), a_node("c2")], "A30, cpu"),
    ],
)
def test_a_job_for_devices_that_nobody_has_is_told_what_there_is(fleet: list[Node], has: str) -> None:
    assert reason_for(a_job("j", devices="H100:8 | B200:4"), fleet) == Reason(
        code=HoldCode.NO_SUCH_DEVICES,
        text=f"no node that is up has devices for H100:8 | B200:4; the fleet has {has}",
        unblock="a node with such devices joins, or the job names another kind",
    )


def test_devices_of_a_lost_node_are_not_said_to_be_there() -> None:
    kernel = Kernel(a_node("h", accelerator=H100), a_node("c"))
    kernel.step(lost("h"))
    kernel.submit(a_job("j", devices="H100:1"))
    assert kernel.why("j").text == "no node that is up has devices for H100:1; the fleet has cpu"


@pytest.mark.parametrize(
    ("job", "text", "unblock"),
    [
        (
            a_job("j", devices="cpu:9"),
            "the job asks for cpu:9, and the whole fleet could give it 4 devices",
            "ask for at most 4 devices; or nodes join",
        ),
        (
            a_job("j", devices="cpu:2 | cpu:3", cpus_per_device=5.0),
            "the job asks for cpu:2 | cpu:3, and the whole fleet could give it 1 device",
            "ask for at most 1 device, or for less CPU and memory with each; or nodes join",
        ),
        (
            a_job("j", devices="cpu:0.5", memory_bytes_per_device=1000 * GIB),
            "no node has the CPUs and the memory that the job wants with each device of cpu:0.5",
            "ask for less CPU and memory with each device; or larger nodes join",
        ),
    ],
)
def test_a_job_larger_than_the_fleet_is_told_what_it_could_have(job: Job, text: str, unblock: str) -> None:
    reason = reason_for(job, [a_node(devices=4, cpus=8)])
    assert reason == Reason(code=HoldCode.LARGER_THAN_FLEET, text=text, unblock=unblock)


def test_what_fits_the_empty_fleet_is_never_called_impossible() -> None:
    capacity = Capacity(nodes(2, devices=2))
    capacity.take(a_job("x"), a_placement(("n1", [0, 1]), ("n2", [0, 1])))
    assert explain.impossible(a_job(devices="H100:1 | cpu:4"), capacity) is None
    assert explain.impossible(a_job(devices="0.5"), capacity) is None


@pytest.mark.parametrize(
    ("placement", "is_first", "text"),
    [
        (
            a_placement(("n1", [0, 1])),
            True,
            "it is first in the queue for its devices, and n1 holds the whole gang: n1[0,1]",
        ),
        (
            a_placement(("n1", [0]), ("n2", [3])),
            False,
            "no job ahead of it wants these devices, and 2 nodes hold the whole gang: n1[0] + n2[3]",
        ),
        (
            a_placement(("n1", [2]), milli=250),
            True,
            "it is first in the queue for its devices, and n1 has 0.25 of a device free: n1[2]",
        ),
    ],
)
def test_a_start_says_whose_turn_it_is_and_where(placement: Placement, is_first: bool, text: str) -> None:
    assert explain.start(placement, is_first=is_first) == text
