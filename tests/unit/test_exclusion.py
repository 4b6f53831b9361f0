"""Nodes that an operator keeps out of use: nothing starts there, until they are returned."""

import msgspec

from artesian.kernel.image import StateImage
from artesian.kernel.lifecycle import JobState
from artesian.kernel.replay import replay
from artesian.kernel.state import State
from artesian.model.job import Cause
from builders import Kernel, a_job, a_node, ended, excluded, joined, lost, returned


def two_nodes() -> Kernel:
    return Kernel(a_node("n1", devices=2), a_node("n2", devices=2))


def places(kernel: Kernel, job: str) -> set[str]:
    return {share.node_id for share in kernel.state.jobs[job].attempt.placement.shares}


def test_nothing_starts_on_an_excluded_node_and_it_does_once_it_is_returned() -> None:
    kernel = two_nodes()
    kernel.step(excluded("n1", at_s=1))
    kernel.submit(a_job("a", devices="cpu:2"), at_s=2)
    kernel.submit(a_job("b", devices="cpu:2"), at_s=2)
    assert places(kernel, "a") == {"n2"}
    assert kernel.state.jobs["b"].state is JobState.QUEUED
    kernel.step(returned("n1", at_s=3))
    assert places(kernel, "b") == {"n1"}


def test_what_runs_there_goes_on_unless_it_is_to_stop() -> None:
    kernel = two_nodes()
    kernel.submit(a_job("a", devices="cpu:4"), at_s=1)
    kernel.step(excluded("n1", at_s=2))
    assert kernel.state.jobs["a"].state is not JobState.STOPPING
    kernel.step(excluded("n1", at_s=3, reason="a fan", is_stopping=True))
    record = kernel.state.jobs["a"]
    assert record.state is JobState.STOPPING
    assert record.attempt.stop_cause is Cause.PREEMPTED
    assert record.attempt.stop_reason == "node n1 is excluded: a fan"
    assert [e.reason for e in kernel.state.nodes["n1"].exclusions] == ["a fan"], (
        "one exclusion, newly explained"
    )


def test_what_was_stopped_there_is_tried_again_elsewhere() -> None:
    kernel = two_nodes()
    kernel.submit(a_job("a", devices="cpu:2"), at_s=1)
    (node,) = places(kernel, "a")
    kernel.step(excluded(node, at_s=2, is_stopping=True))
    kernel.step(ended("a", cause=Cause.PREEMPTED, at_s=3))
    kernel.step(excluded("unknown", at_s=1000))  # time passes
    assert places(kernel, "a") == {"n1", "n2"} - {node}


def test_a_node_that_was_gone_comes_back_excluded() -> None:
    kernel = two_nodes()
    kernel.step(excluded("n1", at_s=1))
    kernel.step(lost("n1", at_s=2))
    kernel.step(joined(a_node("n1", devices=2), at_s=3))
    kernel.submit(a_job("a", devices="cpu:4"), at_s=4)
    assert kernel.state.jobs["a"].state is JobState.QUEUED
    kernel.step(returned("n1", at_s=5))
    assert places(kernel, "a") == {"n1", "n2"}


def test_a_returned_node_that_is_gone_stays_so() -> None:
    kernel = two_nodes()
    kernel.step(excluded("n1", at_s=1))
    kernel.step(lost("n1", at_s=2))
    kernel.step(returned("n1", at_s=3))
    kernel.submit(a_job("a", devices="cpu:4"), at_s=4)
    assert kernel.state.jobs["a"].state is JobState.QUEUED


def test_what_is_said_of_no_node_or_of_one_in_use_changes_nothing() -> None:
    state = replay([joined(at_s=0.0), excluded("nowhere", 1.0), returned("n1", 2.0)])
    assert state.stale_events == 2
    assert state.excluded == []


def test_an_image_keeps_who_excluded_a_node_and_why() -> None:
    kernel = two_nodes()
    kernel.step(excluded("n1", at_s=1, reason="ECC"))
    kernel.step(ended("unknown", at_s=2))
    image = msgspec.json.decode(msgspec.json.encode(kernel.state.image()), type=StateImage)
    state = State.from_image(image)
    state.validate()
    (record,) = state.excluded
    assert record.exclusion is not None
    assert (record.node.id, record.exclusion.reason, record.exclusion.user) == ("n1", "ECC", "ada")
    assert not state.capacity.is_up[state.capacity.row["n1"]]
