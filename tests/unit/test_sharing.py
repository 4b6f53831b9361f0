"""Equal parts of jobs and nodes are kept once, and nobody can tell but by counting bytes."""

import copy

import msgspec
import pytest

from artesian.kernel import sharing
from artesian.kernel.state import State
from artesian.model.events import JobSubmitted, NodeJoined
from artesian.model.job import Job
from builders import Kernel, a_job, a_node, cancelled, joined, retry, submitted


def read(number: int) -> JobSubmitted:
    """An event as it comes from a journal: nothing in it is anybody else's."""
    job = a_job(
        f"j{number}",
        name="train",
        devices="nvidia:H100:4..8",
        command=("python", "train.py", f"--seed={number}"),
        env={"HOME": "/home/ada", "MODEL": "llama"},
        team="vision",
        retry=retry(2, backoff_s=3.0),
    )
    return msgspec.json.decode(msgspec.json.encode(submitted(job)), type=JobSubmitted)


def encoded(job: Job) -> bytes:
    return msgspec.json.encode(job, order="deterministic")


def test_equal_parts_of_jobs_are_one_object() -> None:
    state = State()
    for number in range(2):
        state.apply(read(number))
    one, two = (record.job for record in state.jobs.values())
    for part in ("name", "workdir", "devices", "env", "team", "user", "retry"):
        assert getattr(one, part) is getattr(two, part), part
    assert one.command[0] is two.command[0]
    assert one.command[2] != two.command[2]


def test_a_job_stays_what_it_was() -> None:
    state = State()
    for number in range(3):
        event = read(number)
        before = copy.deepcopy(event.job)
        state.apply(event)
        assert state.jobs[event.job.id].job == before
        assert encoded(state.jobs[event.job.id].job) == encoded(before)


def test_jobs_with_environments_of_their_own_share_the_words() -> None:
    state = State()
    for number in range(2):
        event = read(number)
        state.apply(submitted(a_job(f"j{number}", env={**event.job.env, "SEED": str(number)})))
    one, two = (record.job.env for record in state.jobs.values())
    assert one != two
    assert one["HOME"] is two["HOME"]


def test_equal_parts_of_nodes_are_one_object_and_numbers_keep_their_type() -> None:
    state = State()
    for number, peak in ((1, 1e15), (2, 1e15), (3, 10**15)):
        node = a_node(f"n{number}", accelerator="H100", vendor="nvidia", peak_flops=peak)
        state.apply(msgspec.json.decode(msgspec.json.encode(joined(node)), type=NodeJoined))
    one, two, three = (record.node for record in state.nodes.values())
    assert one.accelerator is two.accelerator is three.accelerator
    assert one.peak_flops is two.peak_flops
    assert isinstance(three.peak_flops, float)


def test_what_is_unique_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_MOST", 20)
    monkeypatch.setattr(sharing, "_MOST_ENVIRONMENTS", 20)
    shared = sharing.Sharing()
    for number in range(200):
        job = a_job(f"j{number}", command=(f"--seed={number}",), env={"SEED": str(number)}, priority=number)
        shared.job(job)
        shared.node(a_node(f"n{number}", peak_flops=float(number)))
        assert job == a_job(
            f"j{number}", command=(f"--seed={number}",), env={"SEED": str(number)}, priority=number
        )
    assert max(len(shared._words), len(shared._parts), len(shared._environments)) < 40


def test_jobs_that_were_submitted_at_one_moment_share_it_until_something_becomes_of_one() -> None:
    kernel = Kernel(a_node(devices=1))
    kernel.submit(*(a_job(f"j{number}", devices="cpu:1") for number in range(4)), at_s=7.0)
    kernel.submit(a_job("later", devices="cpu:1"), at_s=8.0)
    waiting = [kernel.job(id_) for id_ in ("j1", "j2", "j3")]
    assert all(one.history is waiting[0].history for one in waiting)
    assert all(one.submitted_s is one.history[0].at_s for one in waiting)
    assert kernel.job("later").history[0].at_s == 8.0
    kernel.step(cancelled("j1", at_s=9.0))
    assert [change.at_s for change in kernel.job("j1").history] == [7.0, 9.0]
    assert [change.at_s for change in kernel.job("j2").history] == [7.0]
    assert kernel.job("j0").history[0].at_s == 7.0
