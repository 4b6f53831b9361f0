"""Agents that are told their places, as engines do it: they meet at the first, and leave together."""

import os
import secrets
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from artesian.train.neighbour import Neighbour, introduce
from artesian.train.placed import Placed
from artesian.train.recovery import NOBODY_THERE, PREEMPTED
from artesian.train.terms import Terms
from artesian.wire.messages import Layer, WorkerFailed
from ports import free_port
from recovery_harness import (
    BATCH,
    DEADLINE_S,
    STEPS,
    Idle,
    Job,
    start_placed_node,
    wait_for,
)
from relay import relay_to

PLAIN = """
import os, signal, sys

def save(number, frame):
    open(f"{sys.argv[1]}/saved-{os.environ['RANK']}", "w").close()
    sys.exit(0)

for number in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, save)
open(f"{sys.argv[1]}/up-{os.environ['RANK']}", "w").close()
while True:
    signal.pause()
"""
"""A program that knows nothing of artesian, nor of the other workers."""


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path, HOLDS_AT="3")
    yield job
    job.end()


def ended(*agents: subprocess.Popen[str]) -> list[int]:
    """Return the exit codes of the agents, once all have left."""
    for agent in agents:
        agent.communicate(timeout=DEADLINE_S)
    return [agent.returncode for agent in agents]


def every_sample_counts_once(job: Job) -> bool:
    counted = [sample for samples in job.samples().values() for sample in samples]
    return len(counted) == len(set(counted)) == STEPS * BATCH


@pytest.mark.slow
def test_nodes_that_are_told_their_places_restart_in_place(job: Job) -> None:
    port = free_port()
    last = start_placed_node(job, port, 1)  # who comes first does not lead
    first = start_placed_node(job, port, 0)
    job.wait_until_held(0, 1)
    os.kill(job.pid_of(1), signal.SIGKILL)
    job.let_go()
    assert ended(first, last) == [0, 0]
    (record,) = job.records()
    assert (record.rank, record.signal, record.layer) == (1, signal.SIGKILL, Layer.FORK)
    assert every_sample_counts_once(job)


@pytest.mark.slow
@pytest.mark.parametrize("is_worker_killed", [False, True])
def test_an_agent_that_was_cut_off_comes_back_and_the_gang_goes_on(job: Job, is_worker_killed: bool) -> None:
    """The connection of agents is none of workers: they train on. What fails meanwhile is told by who comes back."""
    port = free_port()
    with relay_to(port) as relay:
        first, last = start_placed_node(job, port, 0), start_placed_node(job, relay.port, 1)
        job.wait_until_held(0, 1)
        relay.cut()
        assert first.stderr is not None
        assert any("node 1 does not answer; it may come back" in line for line in first.stderr)
        if is_worker_killed:
            before = job.pid_of(0), job.pid_of(1)
            os.kill(before[1], signal.SIGKILL)
            wait_for(
                lambda: not any(Path(f"/proc/{pid}").exists() for pid in before[1:]), "the end of the workers"
            )
        assert (first.poll(), last.poll()) == (None, None)
        job.let_go()
        if not is_worker_killed:
            job.wait_for_step(5, rank=1)
        relay.mend()
        assert ended(first, last) == [0, 0]
        assert relay.connections > 1
    told = [(record.rank, record.signal, record.layer) for record in job.records()]
    assert told == ([(1, signal.SIGKILL, Layer.FORK)] if is_worker_killed else [])
    assert every_sample_counts_once(job)


@pytest.mark.slow
def test_workers_that_have_ended_while_their_agent_was_cut_off_have_ended_well(job: Job) -> None:
    port = free_port()
    with relay_to(port) as relay:
        first, last = start_placed_node(job, port, 0), start_placed_node(job, relay.port, 1)
        job.wait_until_held(0, 1)
        relay.cut()
        workers = job.pid_of(0), job.pid_of(1)
        job.let_go()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the end of the workers")
        assert (first.poll(), last.poll()) == (None, None)
        relay.mend()
        assert ended(first, last) == [0, 0]
    assert job.records() == []
    assert every_sample_counts_once(job)


def test_an_agent_that_was_cut_off_as_its_gang_was_formed_is_told_again() -> None:
    """It costs no restart: the others wait for its workers, and nobody has failed."""
    address, token = ("127.0.0.1", free_port()), secrets.token_hex()
    terms = Terms(endpoints=(address,), token=token, min_nodes=2, max_nodes=2, max_restarts=0, place=0)
    member = {"id": "other", "address": address, "number": -1, "nodes": [], "restarts": 0}
    told = []
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        council = Placed(terms, Idle(), selector, print)
        council.meet()
        for _ in range(2):
            coming = elsewhere.submit(introduce, address, token, {**member, "place": 1, "said": None})
            for _ in ("knocks", "introduces itself"):
                [(door, _)] = selector.select(DEADLINE_S)
                door.data()
            council.keep(time.monotonic(), is_warm=False)
            peer = coming.result()
            assert peer is not None
            said = peer.wait_for(DEADLINE_S)
            while said is not None and "form" not in said:
                said = peer.wait_for(DEADLINE_S)
            assert said is not None
            told.append(said["form"])
            peer.close()
            [(door, _)] = selector.select(DEADLINE_S)  # the leader sees that it is gone
            door.data()
        council.close()
    assert told[0] == told[1]
    assert told[0]["restarts"] == 0


def test_a_stranger_that_says_nothing_does_not_hold_the_leader_up() -> None:
    """It has one thread, and others take it for lost when it is silent for seconds."""
    address, token = ("127.0.0.1", free_port()), secrets.token_hex()
    terms = Terms(endpoints=(address,), token=token, min_nodes=2, max_nodes=2, max_restarts=0, place=0)
    member = {"id": "other", "address": address, "number": -1, "nodes": [], "place": 1, "said": None}
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        council = Placed(terms, Idle(), selector, print)
        council.meet()
        with socket.create_connection(address) as stranger:
            stranger.settimeout(DEADLINE_S)
            coming = None
            while coming is None or not coming.done():
                for door, _ in selector.select(0.1):
                    door.data()
                coming = coming or elsewhere.submit(introduce, address, token, member)
            peer = coming.result()
            assert peer is not None
            assert "nonce" in stranger.recv(4096).decode()
            stranger.setblocking(False)
            with pytest.raises(BlockingIOError):  # it may still say something
                stranger.recv(4096)
            council.close()
            stranger.settimeout(DEADLINE_S)
            assert stranger.recv(4096) == b""
        peer.close()


@pytest.mark.parametrize("other", ["hears", "is cut off, and comes back", "never hears"])
def test_the_leader_stays_until_all_know_that_they_have_ended_well(other: str) -> None:
    """Who was cut off at that very moment would else wait for the others, and take them for lost."""
    address, token = ("127.0.0.1", free_port()), secrets.token_hex()
    terms = Terms(endpoints=(address,), token=token, min_nodes=2, max_nodes=2, max_restarts=0, place=0)
    member = {"id": "other", "address": address, "number": -1, "nodes": [], "place": 1, "said": None}
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        council = Placed(terms, Idle(), selector, print)

        def hear() -> None:
            [(source, _)] = selector.select(DEADLINE_S)
            source.data()
            council.keep(time.monotonic(), is_warm=False)

        def connected(introduction: dict[str, Any]) -> Neighbour:
            coming = elsewhere.submit(introduce, address, token, introduction)
            hear()  # it knocks
            hear()
            peer = coming.result()
            assert peer is not None
            return peer

        def until(peer: Neighbour, word: str) -> Any:
            while (said := peer.wait_for(DEADLINE_S)) is not None and word not in said:
                pass
            assert said is not None
            return said[word]

        def is_over() -> bool:
            return council.is_over

        council.meet()
        peer = connected(member)
        number = until(peer, "form")["number"]
        council.report({"done": number})
        peer.send({"done": number})
        hear()
        assert not is_over()
        if other == "is cut off, and comes back":
            peer.close()
            hear()
            assert not is_over()
            peer = connected({**member, "number": number, "said": {"done": number}})
        assert until(peer, "end") == 0
        if other == "never hears":
            council.keep(time.monotonic() + council.lost_s, is_warm=False)
            assert not is_over()
            council.keep(time.monotonic() + 3 * council.lost_s, is_warm=False)
        else:
            assert not is_over()
            peer.send({"heard": 0})
            hear()
        assert is_over()
        peer.close()
        council.close()


@pytest.mark.slow
def test_agents_that_cannot_reach_each_other_again_leave_and_tell_of_a_lost_node(job: Job) -> None:
    port = free_port()
    limit = ("--join-timeout", "1")
    job.script.write_text(PLAIN)
    with relay_to(port) as relay:
        agents = [
            start_placed_node(job, port, 0, options=limit),
            start_placed_node(job, relay.port, 1, options=limit),
        ]
        wait_for(
            lambda: all((job.notes / f"up-{rank}").exists() for rank in (0, 1)), "the start of both workers"
        )
        relay.cut()
        assert ended(*agents) == [NOBODY_THERE, NOBODY_THERE]
    told = [message for message in job.messages() if isinstance(message, WorkerFailed)]
    assert [(message.rank, message.exit_code, message.signal) for message in told] == [(-1, None, None)] * 2
    assert {message.message for message in told} == {
        f"node {node} has not answered for 1 s" for node in (0, 1)
    }
    assert all((job.notes / f"saved-{rank}").exists() for rank in (0, 1))


@pytest.mark.parametrize(
    ("rank", "whom"), [(0, "node 1 has not answered"), (1, "no agent answers at 127.0.0.1:")]
)
def test_an_agent_to_whom_nobody_comes_leaves_and_tells_of_a_lost_node(
    job: Job, rank: int, whom: str
) -> None:
    agent = start_placed_node(job, free_port(), rank, options=("--join-timeout", "1"))
    assert ended(agent) == [NOBODY_THERE]
    (told,) = job.messages()
    assert isinstance(told, WorkerFailed)
    assert (told.rank, told.exit_code, told.signal) == (-1, None, None)
    assert whom in told.message


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGUSR1), (1, signal.SIGTERM)])
def test_a_stop_that_reaches_one_agent_only_lets_the_workers_of_all_save(
    tmp_path: Path, rank: int, number: signal.Signals
) -> None:
    """And what they save is the step that all have finished, from which the next attempt goes on."""
    job = Job(tmp_path, HOLDS_AT="3", ARTESIAN_CHECKPOINT_EVERY="1000")
    try:
        port = free_port()
        agents = [start_placed_node(job, port, place) for place in (0, 1)]
        job.wait_until_held(0, 1)
        agents[rank].send_signal(number)
        job.wait_until_gone_on(rank)
        job.let_go()
        assert ended(*agents) == [PREEMPTED, PREEMPTED]
        last_step = max(step for _, step in job.losses())
        assert last_step < STEPS

        port = free_port()
        assert ended(*(start_placed_node(job, port, place) for place in (0, 1))) == [0, 0]
        assert {message.step for message in job.restored() if message.step} == {last_step}
        assert every_sample_counts_once(job)
    finally:
        job.end()


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGTERM), (1, signal.SIGUSR1)])
def test_a_stop_that_reaches_one_agent_only_ends_programs_that_know_nothing_of_each_other(
    job: Job, rank: int, number: signal.Signals
) -> None:
    job.script.write_text(PLAIN)
    port = free_port()
    agents = [start_placed_node(job, port, place) for place in (0, 1)]
    wait_for(
        lambda: all((job.notes / f"up-{place}").exists() for place in (0, 1)), "the start of both workers"
    )
    agents[rank].send_signal(number)
    assert ended(*agents) == [PREEMPTED, PREEMPTED]
    assert all((job.notes / f"saved-{place}").exists() for place in (0, 1))
