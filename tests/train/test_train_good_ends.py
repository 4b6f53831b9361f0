"""Agents that elect their leader, at a good end: whoever was cut off at that very moment comes to know of it."""

import secrets
import selectors
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from artesian.train.elected import Elected
from artesian.train.neighbour import Neighbour, admit, ask, introduce
from artesian.train.terms import Address, Terms
from artesian.train.words import Message
from ports import free_port
from recovery_harness import (
    DEADLINE_S,
    Idle,
    Job,
    lose_node,
    start_node,
    wait_for,
    wait_until_bound,
)

PLAIN = """
import os, signal, sys

with open(f"{sys.argv[1]}/up-{os.environ['RANK']}.new", "w") as file:
    file.write(str(os.getpid()))
os.rename(file.name, file.name.removesuffix(".new"))
if os.environ["RANK"] == "0":
    signal.pause()
"""
"""A program whose first worker is still there when the others have ended."""


class Told(Idle):
    """A node that remembers what formations it was in, and how it was told that the gang has ended."""

    def __init__(self) -> None:
        self.formed: list[int] = []
        self.ends: list[int] = []

    def form(self, number: int, *_: object, **__: object) -> None:
        self.formed.append(number)

    def end(self, exit_code: int) -> None:
        self.ends.append(exit_code)


class Meeting:
    """One agent that elects, and the others as the test plays them."""

    def __init__(self, selector: selectors.BaseSelector, elsewhere: ThreadPoolExecutor) -> None:
        self.address: Address = ("127.0.0.1", free_port())
        self.token = secrets.token_hex()
        self.node = Told()
        self.said: list[str] = []
        self._selector = selector
        self._elsewhere = elsewhere
        terms = Terms(endpoints=(self.address,), token=self.token, min_nodes=2, max_nodes=2, max_restarts=0)
        self.council = Elected(terms, self.node, selector, self.said.append)

    def hear(self) -> None:
        """Have the agent act on what comes next."""
        events = self._selector.select(DEADLINE_S)
        assert events, "nothing has come"
        for key, _ in events:
            key.data()
        self.keep()

    def keep(self, later_s: float = 0.0) -> None:
        self.council.keep(time.monotonic() + later_s, is_warm=False)

    def is_over(self) -> bool:
        return self.council.is_over

    def come(self, **told: object) -> Neighbour:
        """Connect to the agent as another one, which comes to it."""
        introduction = {"id": "other", "address": self.address, "number": -1, "nodes": [], **told}
        coming = self._elsewhere.submit(introduce, self.address, self.token, introduction)
        self.hear()  # it knocks
        self.hear()
        peer = coming.result()
        assert peer is not None
        return peer

    def lead(self, *, stays: bool) -> Future[tuple[Neighbour, Message] | None]:
        """Be the one that leads: form the gang, hear that the agent is done, and cut it off.

        Who ``stays`` takes it in again; else nobody listens any more.
        """
        door = socket.create_server(self.address)

        def serve() -> tuple[Neighbour, Message] | None:
            with door:
                peer, told = self._admitted(door)
                peer.send({"members": [["first", *self.address], [told["id"], *told["address"]]]})
                lineup = {"number": 0, "restarts": 0, "replacements": 0, "nodes": ["first", told["id"]]}
                made = {"master": ["127.0.0.1", 1], "is_served": True, "layer": None, "cause": None}
                peer.send({"form": {**lineup, **made}})
                until(peer, "done")
                if not stays:
                    door.close()
                peer.close()
                return self._admitted(door) if stays else None

        return self._elsewhere.submit(serve)

    def _admitted(self, door: socket.socket) -> tuple[Neighbour, Message]:
        while True:
            guest = ask(door.accept()[0])
            if (told := admit(guest, self.token)) is not None:
                return guest.peer, told
            # else it has looked by which address others reach it


def until(peer: Neighbour, word: str) -> Any:
    """Return what the agent says of ``word``."""
    while (said := peer.wait_for(DEADLINE_S)) is not None and word not in said:
        pass
    assert said is not None
    return said[word]


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        meeting = Meeting(selector, elsewhere)
        yield meeting
        meeting.council.close()


@pytest.mark.parametrize("other", ["hears", "is cut off, and comes back", "never hears"])
def test_who_leads_stays_until_all_know_that_they_have_ended_well(meeting: Meeting, other: str) -> None:
    council = meeting.council
    council.meet()
    peer = meeting.come()
    number = until(peer, "form")["number"]
    council.report({"done": number})
    peer.send({"done": number})
    meeting.hear()
    assert meeting.node.ends == [0]
    assert not meeting.is_over()
    if other == "is cut off, and comes back":
        peer.close()
        meeting.hear()
        assert not meeting.is_over()
        peer = meeting.come(number=number, done=number)
    assert until(peer, "end") == 0
    if other == "never hears":
        meeting.keep(council.lost_s)
        assert not meeting.is_over()
        meeting.keep(3 * council.lost_s)
    else:
        assert not meeting.is_over()
        peer.send({"heard": 0})
        meeting.hear()
    assert meeting.is_over()
    peer.close()


def test_a_node_that_is_lost_when_its_workers_have_ended_well_is_not_missed(meeting: Meeting) -> None:
    council = meeting.council
    council.meet()
    peer = meeting.come()
    number = until(peer, "form")["number"]
    peer.send({"done": number})
    meeting.hear()
    peer.close()
    meeting.hear()
    council.report({"done": number})
    assert meeting.node.ends == [0]


@pytest.mark.parametrize("stays", [True, False], ids=["who led is there", "who led is gone for good"])
def test_an_agent_that_was_cut_off_when_its_work_was_done_ends_well_and_does_not_wait(
    meeting: Meeting, stays: bool
) -> None:
    council = meeting.council
    serving = meeting.lead(stays=stays)
    council.meet()
    while not meeting.node.formed:
        meeting.hear()
    council.report({"done": 0})
    meeting.hear()  # that the connection is lost
    if (back := serving.result()) is not None:
        peer, told = back
        assert (told["number"], told["done"]) == (0, 0)
        peer.send({"end": 0})
        meeting.hear()
        assert until(peer, "heard") == 0
        peer.close()
    else:
        assert not meeting.is_over()  # it may still be there, and only slow
        meeting.keep(2 * council.lost_s)
        assert "the workers here have ended well" in meeting.said[-1]
    assert meeting.node.ends == [0]
    assert meeting.is_over()


@pytest.mark.slow
def test_the_agent_that_is_left_when_its_workers_have_ended_well_ends_well(tmp_path: Path) -> None:
    """It would wait for others as long as they may take to join: ten minutes."""
    job = Job(tmp_path)
    try:
        job.script.write_text(PLAIN)
        port, options = free_port(), ("--preload", "torch")
        nodes = [start_node(job, port, "2", options=options)]
        wait_until_bound(port)  # the first to bind leads
        nodes.append(start_node(job, port, "2", options=options))
        wait_for(
            lambda: all((job.notes / f"up-{rank}").exists() for rank in (0, 1)), "the start of both workers"
        )
        pid = int((job.notes / "up-1").read_text())
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of the second worker")
        lose_node(nodes[0])
        _, errors = nodes[1].communicate(timeout=DEADLINE_S)
        assert nodes[1].returncode == 0, errors
        assert "the workers here have ended well, and who led is gone" in errors
    finally:
        job.end()
