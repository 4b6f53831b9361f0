"""Agents and workers that meet at IPv6 addresses."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from artesian.train.doors import Doors
from artesian.train.gang import free_port
from artesian.train.listening import listen
from recovery_harness import DEADLINE_S, STEPS, Job


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    job.end()


@pytest.mark.parametrize(
    ("host", "found_at"),
    [("127.0.0.1", {"127.0.0.1"}), ("::1", {"::1"}), ("", {"127.0.0.1", "::1"})],
    ids=["IPv4", "IPv6", "all"],
)
def test_who_listens_is_found_at_the_addresses_that_are_meant(host: str, found_at: set[str]) -> None:
    with listen((host, 0), backlog=1) as server:
        port = server.getsockname()[1]
        reached = set()
        for address in ("127.0.0.1", "::1"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family) as probe:
                if probe.connect_ex((address, port)) == 0:
                    reached.add(address)
    assert reached == found_at


def test_a_name_that_means_both_is_found_at_its_older_address(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", 0, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with listen(("localhost", 0), backlog=1) as server:
        assert server.family is socket.AF_INET


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
def test_a_port_that_is_taken_cannot_be_had(host: str) -> None:
    with listen((host, 0), backlog=1) as server, pytest.raises(OSError, match="in use"):
        listen((host, server.getsockname()[1]), backlog=1)


def test_an_agent_is_known_at_the_address_by_which_it_reaches_the_others() -> None:
    with selectors.DefaultSelector() as selector, listen(("::1", 0), backlog=1) as leader:
        doors = Doors(selector, print)
        found = doors.open_towards(leader.getsockname()[:2])
        assert found is not None
        host, port = found
        assert host == "::1"
        socket.create_connection((host, port)).close()
        doors.close()


@pytest.mark.slow
@pytest.mark.parametrize("is_placed", [False, True], ids=["elected", "placed"])
def test_a_gang_of_two_nodes_meets_and_starts_anew(job: Job, is_placed: bool) -> None:
    port = free_port("::1")
    agents = []
    for rank in range(2):
        size = ("--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "1")
        place = ("--node-rank", str(rank), "--master-addr", "::1", "--master-port", str(port))
        where = place if is_placed else ("--rdzv-endpoint", f"[::1]:{port}")
        agents.append(job.start(*size, *where, env={"STEP_S": "0.05"}))
    job.wait_for_step(3, 1)
    os.kill(job.pid_of(1), signal.SIGKILL)
    for agent in agents:
        _, errors = agent.communicate(timeout=DEADLINE_S)
        assert agent.returncode == 0, errors
    assert len(job.records()) == 1
    assert {step for _, step in job.losses()} == set(range(1, STEPS + 1))
