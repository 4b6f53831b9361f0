"""Agents as nodes, on loopback: what happens to the gang when one of them is lost."""

import secrets
import selectors
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artesian.engines.listening import Heard
from artesian.train.elected import Elected
from artesian.train.neighbour import introduce
from artesian.train.recovery import NOBODY_THERE
from artesian.train.roster import can_grow, line_up
from artesian.train.terms import Terms
from artesian.wire import ProgressReader
from artesian.wire.faults import Fault, FaultKind, encode_faults
from artesian.wire.messages import Layer
from ports import free_port
from proc import descendants
from recovery_harness import (
    BATCH,
    DEADLINE_S,
    STEPS,
    Idle,
    Job,
    lose_node,
    start_node,
    wait_until_bound,
)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    job.end()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Job]:
    """A job whose workers stand still after step 4, until it is let go."""
    job = Job(tmp_path, HOLDS_AT="4")
    yield job
    job.end()


@pytest.mark.slow
@pytest.mark.parametrize("slow", [None, "the next leader", "the spare"])
def test_a_spare_takes_the_place_of_a_lost_leader_and_the_rest_goes_on(held: Job, slow: str | None) -> None:
    """Also where one of the two agents does nothing for so long that the other takes it for lost, or gives it up."""
    job, port = held, free_port()
    nodes = [start_node(job, port, "2")]
    wait_until_bound(port)  # the first to bind leads
    nodes += [start_node(job, port, "2"), start_node(job, port, "2")]
    job.wait_until_held(0, 1)
    # Whose worker trains came before the spare, and so leads after the first.
    heir, spare = sorted(nodes[1:], key=lambda agent: job.pid_of(1) not in descendants(agent.pid))
    stopped, other = (heir, spare) if slow == "the next leader" else (spare, heir)
    if slow is not None:
        stopped.send_signal(signal.SIGSTOP)
    lose_node(nodes[0])
    job.let_go()
    if slow is not None:
        assert other.stderr is not None
        assert any("waiting for 1 more" in line for line in other.stderr)
        stopped.send_signal(signal.SIGCONT)
    for agent in nodes[1:]:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SPARE
    assert "lost" in record.cause
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["the leader", "another"])
def test_a_spare_takes_the_place_of_a_node_that_is_slow_and_no_restart_is_used_up(
    job: Job, slow: str
) -> None:
    port = free_port()
    envs = [{"SAYS_SLOW": "1"}, {}] if slow == "the leader" else [{}, {"SAYS_SLOW": "1"}]
    nodes = [start_node(job, port, "2", **envs[0])]
    wait_until_bound(port)  # the first to bind leads, and has rank 0
    nodes.append(start_node(job, port, "2", **envs[1]))
    job.wait_for_step(1, rank=1)
    nodes.append(start_node(job, port, "2"))
    leaves = nodes.pop(0 if slow == "the leader" else 1)
    _, errors = leaves.communicate(timeout=DEADLINE_S)
    assert "makes room for a spare one" in errors
    assert leaves.returncode == 1
    for agent in nodes:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SPARE
    assert (record.is_straggler, record.restart, record.failures) == (True, 1, 0)
    assert record.rank == (0 if slow == "the leader" else 1)
    assert "is slow: it says so" in record.cause
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
def test_a_spare_takes_the_place_of_a_node_that_is_found_to_be_bad_before_the_first_step(job: Job) -> None:
    port = free_port()
    nodes = [start_node(job, port, "2", CHECKS_FIRST="1")]
    wait_until_bound(port)
    nodes.append(start_node(job, port, "2", CHECKS_FIRST="1", HAS_XID="1"))
    assert nodes[0].stderr is not None
    assert any("rank 1 should be left out: Xid 79" in line for line in nodes[0].stderr)
    assert nodes[1].stderr is not None
    assert any("is unfit: Xid 79; training goes on with it: no spare" in line for line in nodes[1].stderr)
    nodes.append(start_node(job, port, "2", CHECKS_FIRST="1"))
    lost = nodes.pop(1)
    _, errors = lost.communicate(timeout=DEADLINE_S)
    assert "is unfit: Xid 79; this node makes room for a spare one" in errors
    assert lost.returncode == 1
    for agent in nodes:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SPARE
    assert (record.rank, record.is_straggler, record.failures) == (-1, False, 1)
    assert "is unfit: Xid 79" in record.cause
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
def test_without_a_spare_a_node_that_is_found_to_be_bad_is_left_out_where_enough_are_left(job: Job) -> None:
    port = free_port()
    nodes = [start_node(job, port, "1:2", CHECKS_FIRST="1")]
    wait_until_bound(port)
    nodes.append(start_node(job, port, "1:2", CHECKS_FIRST="1", HAS_XID="1"))
    said = [agent.communicate(timeout=DEADLINE_S)[1] for agent in nodes]
    assert [agent.returncode for agent in nodes] == [0, 1], said
    assert "is unfit: Xid 79; this node is left out, and no other takes its place" in said[1]
    (record,) = job.records()
    assert record.layer is Layer.SHRINK
    assert "is unfit: Xid 79" in record.cause
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
def test_a_spare_takes_the_place_of_a_node_whose_workers_fail_again_and_again(job: Job) -> None:
    port, often = free_port(), ("--max-restarts", "1000")
    nodes = [start_node(job, port, "2", options=often)]
    wait_until_bound(port)
    nodes.append(start_node(job, port, "2", options=often, IS_BROKEN="1"))
    assert nodes[0].stderr is not None
    broken = nodes[1].stderr
    assert broken is not None
    assert any("its device is gone" in line for line in broken)  # it is one of the two
    nodes.append(start_node(job, port, "2", options=often))
    for agent in nodes:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    record = job.records()[-1]
    assert record.layer is Layer.SPARE
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
def test_the_stacks_of_all_nodes_are_shown_when_one_hangs(job: Job) -> None:
    port = free_port()
    fault = Fault(kind=FaultKind.GIL, worker=1, step=6)
    nodes = [start_node(job, port, "2", ARTESIAN_FAULTS=encode_faults([fault])) for _ in range(2)]
    for agent in nodes:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
        assert "most recent call first" in errors
        assert f'"{job.script}"' in errors
    (record,) = job.records()
    assert record.detect_s is not None


@pytest.mark.slow
def test_without_a_spare_the_gang_goes_on_with_fewer_nodes(held: Job) -> None:
    job, port = held, free_port()
    nodes = [start_node(job, port, "1:2"), start_node(job, port, "1:2")]
    job.wait_until_held(0, 1)
    lose_node(nodes[1])
    job.let_go()
    _, errors = nodes[0].communicate(timeout=DEADLINE_S)
    assert nodes[0].returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.SHRINK
    losses = job.losses()
    assert (0, STEPS) in losses
    assert (1, STEPS) not in losses
    heard = Heard()
    for message in ProgressReader(job.progress, only="rank-0.jsonl").read():
        heard.take(message)
    (before,) = heard.passed
    assert (before.workers, heard.workers) == (2, 1)
    assert 0 < before.steps < heard.steps, "what two workers did and what one did is told apart"


def test_a_gang_takes_in_a_node_that_comes_after_its_step(held: Job) -> None:
    job, port = held, free_port()
    nodes = [start_node(job, port, "1:2")]
    job.wait_until_held(0)  # alone: it has waited for others for as long as it does; until it is to make room
    nodes.append(start_node(job, port, "1:2"))
    for agent in nodes:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    (record,) = job.records()
    assert record.layer is Layer.GROW
    assert record.recomputed_steps == 0  # the step was finished, and saved
    assert (1, STEPS) in job.losses()
    assert (1, 1) not in job.losses()
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


def test_a_gang_that_waits_for_a_node_goes_on_with_the_one_that_comes(held: Job) -> None:
    job, port = held, free_port()
    nodes = [start_node(job, port, "2"), start_node(job, port, "2")]
    job.wait_until_held(0, 1)
    lost, left = sorted(nodes, key=lambda agent: job.pid_of(0) in descendants(agent.pid))
    lose_node(lost)
    job.let_go()
    assert left.stderr is not None
    assert any("waiting for 1 more" in line for line in left.stderr)
    for agent in (left, start_node(job, port, "2")):
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    counted = [sample for samples in job.samples().values() for sample in samples]
    assert len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.parametrize("is_taken", [False, True], ids=["it leads", "a stranger answers"])
def test_an_agent_that_comes_after_its_gang_has_ended_does_not_wait_for_ever(
    job: Job, is_taken: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1] if is_taken else free_port()
        agent = start_node(job, port, "2", options=("--join-timeout", "1"))
        _, errors = agent.communicate(timeout=DEADLINE_S)
    assert agent.returncode == NOBODY_THERE
    assert "the gang is over, or has not begun" in errors


def test_an_agent_that_comes_while_its_gang_ends_is_told_how_it_ended() -> None:
    address, token = ("127.0.0.1", free_port()), secrets.token_hex()
    terms = Terms(endpoints=(address,), token=token, min_nodes=1, max_nodes=1, max_restarts=0)
    late = {"id": "late", "address": address, "number": -1, "nodes": [], "restarts": 0}
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        council = Elected(terms, Idle(), selector, print)
        council.meet()
        council.resign(3)
        coming = elsewhere.submit(introduce, address, token, late)
        for _ in ("knocks", "introduces itself"):
            [(door, _)] = selector.select(DEADLINE_S)
            door.data()
        peer = coming.result()
        assert peer is not None
        assert peer.wait_for(DEADLINE_S) == {"end": 3}
        peer.close()
        council.close()


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
