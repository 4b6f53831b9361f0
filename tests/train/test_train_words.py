"""What others say to an agent: a stranger, an agent of another version, a worker that writes where it must not.

None of them ends it, or the gang with it.
"""

import json
import os
import secrets
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from artesian.train.elected import Elected
from artesian.train.heartbeat import Activity, make_page, read_page
from artesian.train.neighbour import Neighbour, admit, ask, introduce
from artesian.train.placed import council_of
from artesian.train.recovery import NOBODY_THERE, Failure
from artesian.train.terms import Address, Terms
from artesian.train.watchdog import verdict
from artesian.train.words import is_of_agent, of_worker
from ports import free_port
from recovery_harness import DEADLINE_S, Idle

DEEP = b"[" * 100_000
LOST = asdict(Failure(rank=1, text="lost", is_suspect=False))
FORM = {
    "number": 0,
    "restarts": 0,
    "replacements": 0,
    "nodes": ["a"],
    "master": ["127.0.0.1", 1],
    "is_served": True,
    "layer": None,
    "cause": LOST,
}


class Hall:
    """A council that leads, and those who come to it."""

    def __init__(self, selector: selectors.BaseSelector, elsewhere: ThreadPoolExecutor) -> None:
        self.address: Address = ("127.0.0.1", free_port())
        self.token = secrets.token_hex()
        self.said: list[str] = []
        self._selector = selector
        self._elsewhere = elsewhere

    def meet(self, place: int | None, *, nodes: int = 2) -> Elected:
        terms = {"min_nodes": nodes, "max_nodes": nodes, "max_restarts": 0, "place": place}
        council = council_of(
            Terms(endpoints=(self.address,), token=self.token, **terms),  # type: ignore[arg-type]
            Idle(),
            self._selector,
            self.said.append,
        )
        council.meet()
        assert council.is_leader
        return council  # type: ignore[return-value]

    def hear(self) -> None:
        events = self._selector.select(DEADLINE_S)
        assert events, "nothing has come"
        for key, _ in events:
            key.data()

    def come(self, **told: object) -> Neighbour | None:
        coming = self._elsewhere.submit(introduce, self.address, self.token, dict(told))
        self.hear()  # it knocks
        self.hear()
        return coming.result()


@pytest.fixture
def hall() -> Iterator[Hall]:
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        yield Hall(selector, elsewhere)


@pytest.mark.parametrize(
    "answer",
    [json.dumps({"proof": "\u00e9" * 64}).encode(), b'{"proof": "\\ud800"}', DEEP, b"GET / HTTP/1.1", b"[]"],
    ids=["no ASCII", "half a character", "deep", "a browser", "a list"],
)
def test_a_stranger_may_say_anything(hall: Hall, answer: bytes) -> None:
    council = hall.meet(None)
    with socket.create_connection(hall.address) as stranger:
        hall.hear()
        stranger.sendall(answer + b"\n")
        hall.hear()
        stranger.settimeout(DEADLINE_S)
        while stranger.recv(4096):
            pass  # the question; then it is sent away
    peer = hall.come(id="other", address=hall.address, number=-1, nodes=[])
    assert peer is not None, "and who knows the token is let in"
    assert len(council._members) == 2
    peer.close()
    council.close()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (None, {}),
        (None, {"id": "other", "address": ["127.0.0.1"], "number": -1, "nodes": []}),
        (0, {"id": "other", "address": ["127.0.0.1", 1], "number": -1, "nodes": []}),
        (
            0,
            {"id": "other", "address": ["127.0.0.1", 1], "number": -1, "nodes": [], "place": 2, "said": None},
        ),
    ],
    ids=["says nothing of itself", "has no port", "was told no place", "has a place that there is not"],
)
def test_who_was_started_on_other_terms_is_sent_away(
    hall: Hall, place: int | None, told: dict[str, object]
) -> None:
    council = hall.meet(place)
    peer = hall.come(**told)
    assert peer is not None
    assert peer.wait_for(DEADLINE_S) == {"end": NOBODY_THERE}
    assert peer.wait_for(DEADLINE_S) is None
    assert list(council._members) == [council.id]
    assert hall.said == [
        "an agent that knows the token was started on other terms than this one; it is sent away"
    ]
    peer.close()
    council.close()


def test_a_member_that_makes_no_sense_is_lost(hall: Hall) -> None:
    council = hall.meet(None)
    peer = hall.come(id="other", address=hall.address, number=-1, nodes=[])
    assert peer is not None
    peer.send({"failed": {**LOST, "of_a_later_version": 1}, "number": -1})
    hall.hear()
    assert list(council._members) == [council.id]
    peer.close()
    council.close()


def test_a_leader_that_goes_before_it_has_told_who_is_there_is_not_the_only_one_to_meet(hall: Hall) -> None:
    def lead() -> None:
        with socket.create_server(hall.address) as door:
            is_leading.set()
            while admit(guest := ask(door.accept()[0]), hall.token) is None:
                pass  # it has looked by which address others reach it
        guest.peer.close()

    is_leading = threading.Event()
    terms = Terms(endpoints=(hall.address,), token=hall.token, min_nodes=2, max_nodes=2, max_restarts=0)
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor() as elsewhere:
        council = Elected(terms, Idle(), selector, hall.said.append)
        leading = elsewhere.submit(lead)
        assert is_leading.wait(DEADLINE_S)
        council.meet()
        assert not council.is_leader
        leading.result()
        [(link, _)] = selector.select(DEADLINE_S)
        link.data()
        assert [council.is_leader, list(council._members)] == [True, [council.id]]
        council.close()


@pytest.mark.parametrize(
    "told",
    [
        {"failed": LOST},
        {"failed": {**LOST, "rank": "1"}, "number": 0},
        {"aside": {}},
        {"members": [["a", "127.0.0.1"]]},
        {"members": [["a", "127.0.0.1", "http"]]},
        {"end": "0"},
        {"form": {**FORM, "master": "127.0.0.1"}},
        {"form": {**FORM, "layer": "unheard of"}},
        {"form": {key: it for key, it in FORM.items() if key != "nodes"}},
        {"said": {"done": "0"}},
    ],
)
def test_what_an_agent_cannot_have_said_is_known(told: dict[str, Any]) -> None:
    assert not is_of_agent(told)


def test_what_agents_say_is_known() -> None:
    for told in (
        {"failed": LOST, "number": 0, "is_again": True},
        {"aside": LOST},
        {"members": [["a", "127.0.0.1", 1]]},
        {"form": FORM},
        {"end": 0},
        {"beat": 1},
        {"id": "a", "address": ["::1", 1], "number": -1, "nodes": [], "done": None, "said": None, "place": 0},
    ):
        assert is_of_agent(told)


@pytest.mark.parametrize(
    "packet",
    [
        b"no JSON",
        DEEP[:60_000],
        b"[]",
        b"{}",
        b'{"failed": 7, "round": 0}',
        b'{"failed": "x", "round": "0"}',
        b'{"failed": "x", "round": 0, "code": 1e99}',
        b'{"failed": "x", "round": 0, "code": 256}',
        b'{"against": [1], "round": 0}',
        b"\xff",
    ],
)
def test_what_a_worker_cannot_have_said_is_known(packet: bytes) -> None:
    assert of_worker(packet) is None
    assert of_worker(b'{"failed": "x", "round": 0, "code": 255, "trace": "y"}') is not None


SCRIBBLES = """
import os, socket, sys
page, control = map(int, os.environ["ARTESIAN_AGENT_FDS"].split(","))
line = socket.socket(fileno=control)
for word in (b"what a library logs", b"{}", b'{"failed": null, "round": 0}'):
    line.send(word)
os.pwrite(page, b"\\xff" * 96, 0)
try:
    os.ftruncate(page, 0)
except OSError:
    pass
print("done", flush=True)
line.recv(1)  # until the agent ends it
"""


def test_a_worker_that_writes_into_the_agents_files_does_not_end_the_agent(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIBBLES)
    command = [sys.executable, "-m", "artesian.train.launch", "--preload", "none", str(script)]
    agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "done\n"
        agent.terminate()
        _, errors = agent.communicate(timeout=DEADLINE_S)
    finally:
        agent.kill()
        agent.communicate()
    assert agent.returncode == 143
    (line,) = errors.splitlines()
    assert "worker 0" in line
    assert "says what makes no sense; that is passed over: b'what a library logs'" in line


def test_a_page_that_was_written_over_says_nothing_certain() -> None:
    page = make_page()
    try:
        os.pwrite(page, b"\xff" * 96, 0)
        beat = read_page(page)
        assert beat.activity is Activity.STARTING
        assert (beat.limit_s, beat.since_s, beat.alive_s, beat.step) == (None,) * 4
        assert verdict(beat, time.monotonic()) is None, "it is not killed for that"
        with pytest.raises(PermissionError):
            os.ftruncate(page, 0)
    finally:
        os.close(page)


FAILS_ONCE = """
import os, sys
log = os.environ.get("ARTESIAN_LOG_DIR")
if os.environ["ARTESIAN_RESTART"] == "0":
    if log:
        os.remove(f"{log}/rank-1.out")
    sys.exit(os.environ["RANK"] == "1")
"""


@pytest.mark.parametrize("trouble", ["a full disk", "nobody reads", "a log that is gone"])
def test_what_cannot_be_said_or_shown_does_not_keep_a_gang_from_its_restart(
    tmp_path: Path, trouble: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(FAILS_ONCE)
    command = [sys.executable, "-m", "artesian.train.launch", "--preload", "none", "--nproc-per-node", "2"]
    log = {"ARTESIAN_LOG_DIR": str(tmp_path)} if trouble == "a log that is gone" else {}
    reader, unread = os.pipe()
    os.close(reader)
    with open("/dev/full" if trouble == "a full disk" else os.devnull, "wb") as errors:
        done = subprocess.run(
            [*command, "--max-restarts", "1", str(script)],
            stderr=unread if trouble == "nobody reads" else errors,
            env={**os.environ, **log},
            timeout=DEADLINE_S,
        )
    os.close(unread)
    assert done.returncode == 0


def test_of_many_who_come_together_each_is_told_of_all_once(hall: Hall) -> None:
    """Each time that one comes all would be told of all: of a thousand the leader would speak for minutes."""
    council = hall.meet(None, nodes=9)
    peers = []
    for number in range(8):
        peer = hall.come(id=str(number), address=["127.0.0.1", 1], number=-1, nodes=[])
        assert peer is not None
        peers.append(peer)
    council.keep(time.monotonic(), is_warm=False)
    for number, peer in enumerate(peers):
        at_first, with_the_beat, beat = (peer.wait_for(DEADLINE_S) for _ in range(3))
        assert at_first is not None
        assert [name for name, *_ in at_first["members"]] == [council.id, *map(str, range(number + 1))]
        assert with_the_beat is not None
        assert [name for name, *_ in with_the_beat["members"]] == [council.id, *map(str, range(8))]
        assert beat == {"beat": 1}
        peer.close()
    council.close()
