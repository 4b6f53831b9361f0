"""What worker and agent say to each other, and agents among themselves: whatever is said, and however many files are open."""

import fcntl
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from artesian.train.heartbeat import make_page, read_page
from artesian.train.link import Link
from artesian.train.neighbour import admit, ask, introduce

_PACKET_BYTES = 65_536
_BEYOND_SELECT = 1_100


TEMPLATE = """
import errno, os, sys
from artesian.train import template

itself, fork = os.getpid(), os.fork

def fork_once():
    if os.getpid() != itself:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fork_once
template.main(int(sys.argv[1]), os.getppid(), [])
"""


def test_a_template_that_cannot_fork_ends_and_so_tells_the_agent() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", TEMPLATE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        ours.settimeout(60.0)
        try:
            assert json.loads(ours.recv(_PACKET_BYTES)) == {}
            ours.send(json.dumps({"id": 1, "kind": "worker"}).encode())
            assert ours.recv(_PACKET_BYTES) == b""
        finally:
            process.kill()
            _, said = process.communicate()
    assert "a worker could not be forked" in said


MANY_GUESTS = """
import resource, selectors, socket
from artesian.train.doors import Doors

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
selector, guests, came = selectors.DefaultSelector(), [], []
doors = Doors(selector, came.append)
port = doors.open(("127.0.0.1", 0))
while len(came) < 200:
    guests.append(socket.create_connection(("127.0.0.1", port)))
    guests[-1].sendall(b"anything\\n")
    while len(came) < len(guests):
        for key, _ in selector.select():
            key.data()
"""


def test_a_leader_has_room_for_more_nodes_than_it_may_have_files_at_its_start() -> None:
    subprocess.run([sys.executable, "-c", MANY_GUESTS], check=True, timeout=180)


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as an agent of a thousand nodes may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[0] <= _BEYOND_SELECT:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * _BEYOND_SELECT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def moved(connection: socket.socket) -> socket.socket:
    """Return the socket under a number that ``select`` does not take."""
    number = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, _BEYOND_SELECT)
    connection.close()
    return socket.socket(fileno=number)


@contextmanager
def linked(theirs: socket.socket) -> Iterator[tuple[Link, int]]:
    """Yield a worker's end and its page; close the agent's end within the block."""
    page, before = make_page(), set(threading.enumerate())
    link = Link(os.dup(page), theirs.detach(), 0)
    yield link, page
    for thread in set(threading.enumerate()) - before:
        thread.join(30.0)
        assert not thread.is_alive(), "it hears of the agent's end"
    link._control.close()
    os.close(page)


@pytest.mark.parametrize("letter", ["e", "\u00e9", "\U0001f642", "\udc80"])
def test_a_long_error_in_any_script_reaches_the_agent_in_one_piece(letter: str) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with linked(theirs) as (link, _), ours:
        link.failed(50_000 * letter + "the end", is_final=True)
        told = json.loads(ours.recv(_PACKET_BYTES))
    assert (told["is_final"], told["code"], told["round"]) == (True, 1, 0)
    assert told["failed"].endswith(1000 * letter + "the end")


def test_a_worker_says_that_it_lives_whatever_the_number_of_its_socket(many_files: None) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with linked(moved(theirs)) as (link, page), ours:
        link.offer_rejoin(lambda: None)
        assert "offers" in json.loads(ours.recv(_PACKET_BYTES))
        ours.send(json.dumps({"yours": True}).encode())
        with link._told:
            assert link._told.wait_for(lambda: link._is_own_fault, timeout=30.0), "its thread is dead"
        assert read_page(page).alive_s is not None


def test_a_leader_of_a_thousand_nodes_admits_another(many_files: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = []
        member = threading.Thread(
            target=lambda: found.append(introduce(server.getsockname(), "token", {"id": "a"}))
        )
        member.start()
        connection, _ = server.accept()
        guest = ask(moved(connection))
        assert admit(guest, "token") is not None
        member.join()
    assert guest.peer.id == "a"
    (peer,) = found
    assert peer is not None
    peer.close()
    guest.peer.close()
