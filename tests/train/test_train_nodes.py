"""Agents as nodes, on loopback: what happens to the gang when one of them is lost."""

import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.train.roster import can_grow, line_up
from artesian.wire.messages import Layer, StepCommitted
from recovery_harness import BATCH, STEPS, Job, lose_node

DEADLINE_S = 240.0


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path, STEP_S="0.1")
    yield job
    job.end()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def start_node(job: Job, port: int, nodes: str) -> subprocess.Popen[str]:
    options = ("--nnodes", nodes, "--nproc-per-node", "1", "--max-restarts", "3")
    return job.start(*options, "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-backend", "c10d")


def wait_until_bound(port: int) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        select.select([], [], [], 0.05)
    raise TimeoutError(f"nobody listens on port {port}")


def wait_for_step(job: Job, step: int, rank: int) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        if any(isinstance(m, StepCommitted) and m.rank == rank and m.step >= step for m in job.messages()):
            return
        select.select([], [], [], 0.05)
    raise TimeoutError(f"rank {rank} does not come to step {step}")


@pytest.mark.slow
def test_a_spare_takes_the_place_of_a_lost_leader_and_the_rest_goes_on(job: Job) -> None:
    port = free_port()
    nodes = [start_node(job, port, "2")]
    wait_until_bound(port)  # the first to bind leads
    nodes += [start_node(job, port, "2"), start_node(job, port, "2")]
    wait_for_step(job, 3, rank=1)
    lose_node(nodes[0])
    for agent in nodes[1:]:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SPARE
    assert "lost" in record.cause
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
def test_without_a_spare_the_gang_goes_on_with_fewer_nodes(job: Job) -> None:
    port = free_port()
    nodes = [start_node(job, port, "1:2"), start_node(job, port, "1:2")]
    wait_for_step(job, 3, rank=1)
    lose_node(nodes[1])
    _, errors = nodes[0].communicate(timeout=DEADLINE_S)
    assert nodes[0].returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SHRINK
    losses = job.losses()
    assert (0, STEPS) in losses
    assert (1, STEPS) not in losses


def test_an_agent_that_finds_nobody_can_be_told_to_stop(job: Job) -> None:
    """Somebody else has the port, and says nothing: there is nobody to lead, and nobody to follow."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        agent = start_node(job, stranger.getsockname()[1], "2")
        stranger.accept()[0].close()
        agent.send_signal(signal.SIGTERM)
        agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 128 + signal.SIGTERM


def test_an_agent_that_waits_for_others_can_be_told_to_stop(job: Job) -> None:
    port = free_port()
    agent = start_node(job, port, "2")
    wait_until_bound(port)
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == 128 + signal.SIGTERM


def test_a_node_that_stays_keeps_its_place() -> None:
    spare = line_up(["a", "b", "c"], ["c", "a", "x"], min_nodes=3, max_nodes=3)
    assert spare is not None
    assert (spare.nodes, spare.layer) == (("a", "x", "c"), Layer.SPARE)
    shrunk = line_up(["a", "b", "c"], ["c", "a"], min_nodes=1, max_nodes=3)
    assert shrunk is not None
    assert (shrunk.nodes, shrunk.layer) == (("a", "c"), Layer.SHRINK)
    grown = line_up(["a"], ["a", "b", "c"], min_nodes=1, max_nodes=2)
    assert grown is not None
    assert (grown.nodes, grown.layer) == (("a", "b"), Layer.GROW)
    assert line_up(["a", "b"], ["b"], min_nodes=2, max_nodes=2) is None


def test_a_gang_that_is_full_does_not_grow() -> None:
    assert can_grow(["a"], ["a", "b"], 2)
    assert not can_grow(["a", "b"], ["a", "b", "c"], 2)
    assert not can_grow(["a"], ["a"], 2)
