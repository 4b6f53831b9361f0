"""Copies in a peer's memory: what arrives is whole and from the job; a lost node's rank goes on from it.

Two nodes are two folders, each the shared memory of one.
"""

import contextlib
import errno
import os
import secrets
import socket
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from artesian.train import CheckpointError
from artesian.train.holder_process import decode, holding
from artesian.train.membership import alone
from artesian.train.memory import Memory, load
from artesian.train.peer import Holder, Peer, _asked, _facts, fetch, held, held_steps, send
from artesian.train.persist import Report
from artesian.train.restorable import Restorable
from artesian.train.saver import Saver
from artesian.train.saves import Position
from artesian.train.segment import SHARED_MEMORY, JobFolder, reading
from artesian.train.sharded import ShardedCheckpointer
from artesian.train.sharded_back import Places, WayBack, valid_steps
from artesian.wire import environment

TOKEN = secrets.token_hex(8)


def state(step: int) -> dict[str, Any]:
    return {"w": torch.full((50_000,), float(step)), "lr": float(step)}


def assert_is(state: Any, step: int) -> None:
    assert state["lr"] == step
    assert torch.equal(state["w"], torch.full((50_000,), float(step)))


@pytest.fixture
def node_a(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    return tmp_path / "a"


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    (tmp_path / "b").mkdir()
    with Holder("j", TOKEN, base=tmp_path / "b") as holder:
        yield holder
    assert list((tmp_path / "b").iterdir()) == []


def snapshot_of(memory: Memory, step: int) -> Any:
    memory.begin(step, state(step))
    return memory.finish()


def test_a_lost_nodes_rank_goes_on_from_its_peers_memory(
    node_a: Path, holder: Holder, tmp_path: Path
) -> None:
    saver = Saver(None, job="j", rank=1, peer=holder.peer, shared_memory=node_a)
    assert saver.restore() is None
    for step in range(1, 5):
        saver.wait()
        saver.begin(step, lambda step=step: state(step), position=10 * step)  # type: ignore[misc]
    saver.close()
    assert saver.peer_step == 4
    assert held(holder.peer) == {1: 4}

    (tmp_path / "c").mkdir()
    replacement = Saver(None, job="j", rank=1, peer=holder.peer, shared_memory=tmp_path / "c")
    found = replacement.restore()
    assert found is not None
    assert (found.step, found.position, found.layer) == (4, 40, "memory")
    assert_is(found.state, 4)
    replacement.close()

    # The replacement may also be the node that has the copy: it is there already.
    on_b = Saver(None, job="j", rank=1, shared_memory=tmp_path / "b")
    found = on_b.restore()
    assert found is not None
    assert found.step == 4
    on_b.close()


def test_a_peer_that_is_not_there_is_reported_and_training_goes_on(node_a: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = Peer(host="127.0.0.1", port=taken.getsockname()[1], token=TOKEN)
        reports: list[Report] = []
        saver = Saver(None, job="j", peer=nobody, shared_memory=node_a, on_report=reports.append)
        saver.begin(1, lambda: state(1))
        saver.wait()
        assert saver.memory is not None
        assert saver.memory.finish() is not None
        saver.close()
    assert len(reports) == 2  # to fetch, and to send
    assert all("does not answer" in (report.failure or "") for report in reports)
    assert TOKEN not in repr(reports) + repr(nobody)


def test_a_stranger_gets_and_leaves_nothing(node_a: Path, holder: Holder) -> None:
    folder = JobFolder("j", base=node_a)
    memory = Memory(folder, 0)
    snapshot = snapshot_of(memory, 1)
    assert send(holder.peer, 0, snapshot)
    stranger = Peer(host="127.0.0.1", port=holder.peer.port, token=TOKEN[::-1] + "x")
    for act in (
        lambda: send(stranger, 0, snapshot),
        lambda: fetch(stranger, 0, folder),
        lambda: held(stranger),
    ):
        with pytest.raises(CheckpointError, match=r"does not know the job's token|does not answer"):
            act()
    assert held(holder.peer) == {0: 1}
    memory.close()
    folder.leave(keep=False)


def test_a_false_holder_is_found_out(node_a: Path) -> None:
    """It cannot prove that it knows the token, whatever it answers."""
    folder = JobFolder("j", base=node_a)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pretend() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(bytes(32))
                connection.recv(4096)
                connection.sendall(
                    b'{"step": 5, "sequence": 9, "document_bytes": 2, "image_bytes": 4096}\n00\n'
                )

        thread = threading.Thread(target=pretend)
        thread.start()
        peer = Peer(host="127.0.0.1", port=server.getsockname()[1], token=TOKEN)
        with pytest.raises(CheckpointError, match="does not know the job's token"):
            fetch(peer, 0, folder)
        thread.join()
    assert folder.ranks() == []
    folder.leave(keep=False)


def test_a_copy_that_breaks_off_or_is_damaged_leaves_the_one_before(
    node_a: Path, holder: Holder, tmp_path: Path
) -> None:
    folder = JobFolder("j", base=node_a)
    memory = Memory(folder, 0)
    assert send(holder.peer, 0, snapshot_of(memory, 1))
    snapshot = snapshot_of(memory, 2)
    for damage in ("cut", "flip"):
        with _damaging(holder.peer, damage) as proxy, pytest.raises(CheckpointError):
            send(proxy, 0, snapshot)
        assert held(holder.peer) == {0: 1}
    there = JobFolder("j", base=tmp_path / "b")
    recalled = load(there, 0)
    assert recalled is not None
    assert_is(recalled.state, 1)
    there.leave()
    assert send(holder.peer, 0, snapshot)
    assert held(holder.peer) == {0: 2}
    memory.close()
    folder.leave(keep=False)


def test_a_killed_workers_copy_on_its_way_does_not_mix_with_its_successors(
    node_a: Path, holder: Holder, tmp_path: Path
) -> None:
    memory = Memory(JobFolder("j", base=node_a), 1, buffers=3)
    first, second = snapshot_of(memory, 1), snapshot_of(memory, 2)
    with reading(first) as image:
        assert image is not None
        data = bytes(image)
    half = len(data) // 2
    is_accepted = False
    with (
        contextlib.suppress(CheckpointError),
        _asked(holder.peer, {"op": "put", "rank": 1, **_facts(first)}) as slow,
    ):
        slow.answer()
        slow.file.write(data[:half])
        slow.file.flush()
        assert send(holder.peer, 1, second)
        slow.file.write(data[half:] + zlib.crc32(data).to_bytes(4, "little"))
        slow.file.flush()
        slow.answer()
        is_accepted = True
    assert not is_accepted, "it was overtaken"
    folder = JobFolder("j", base=tmp_path / "b")
    found = [load(folder, 1, step) for step in held_steps(holder.peer, 1)]
    assert [recalled and recalled.snapshot.step for recalled in found] == [2]
    for recalled in found:
        assert recalled is not None
        assert_is(recalled.state, recalled.snapshot.step)
    folder.leave()
    memory.close()


def test_a_snapshot_that_was_overwritten_is_not_sent(node_a: Path, holder: Holder) -> None:
    folder = JobFolder("j", base=node_a)
    memory = Memory(folder, 0)
    first = snapshot_of(memory, 1)
    for step in (2, 3):
        snapshot_of(memory, step)
    assert not send(holder.peer, 0, first)
    assert fetch(holder.peer, 0, folder) is None
    memory.close()
    folder.leave(keep=False)


class _damaging:  # noqa: N801 - used like a function
    """A proxy before a holder, that flips a bit of the image on its way, or hangs up within it."""

    def __init__(self, peer: Peer, damage: str) -> None:
        self._peer = peer
        self._damage = damage
        self._server = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Peer:
        self._thread.start()
        return Peer(host="127.0.0.1", port=self._server.getsockname()[1], token=self._peer.token)

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        near, _ = self._server.accept()
        far = socket.create_connection((self._peer.host, self._peer.port))
        back = threading.Thread(target=_copy, args=(far, near))
        back.start()
        seen = 0
        while data := near.recv(1 << 14):
            seen += len(data)
            if seen > 100_000:
                if self._damage == "cut":
                    break
                data = bytes([data[0] ^ 1]) + data[1:]
                seen = -(1 << 30)
            far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        back.join()
        near.close()
        far.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(1 << 14):
        target.sendall(data)
    target.shutdown(socket.SHUT_RDWR)


def test_a_peer_tells_the_steps_that_it_has_and_gives_any_of_them(node_a: Path, holder: Holder) -> None:
    folder = JobFolder("j", base=node_a)
    memory = Memory(folder, 1)
    for step in (4, 7):
        assert send(holder.peer, 1, snapshot_of(memory, step))
    memory.close()
    assert held_steps(holder.peer, 1) == [7, 4]
    assert held_steps(holder.peer, 2) == []
    assert fetch(holder.peer, 1, folder, 5) is None
    assert fetch(holder.peer, 1, folder, 4) is not None
    found = load(folder, 1)
    assert found is not None
    assert_is(found.state, 4)
    folder.leave(keep=False)


def test_a_holder_beside_the_agent_holds_until_the_agent_is_done(tmp_path: Path, node_a: Path) -> None:
    job = f"test-{secrets.token_hex(4)}"
    folder = JobFolder("j", base=node_a)
    memory = Memory(folder, 0)
    with holding({environment.MEMORY: job}, ("127.0.0.1", 9)) as (environ, problem):
        assert problem is None
        peer = decode(environ[environment.HOLDER])
        assert peer.host == "127.0.0.1"
        assert send(peer, 0, snapshot_of(memory, 3))
        assert held_steps(peer, 0) == [3]
        assert list(SHARED_MEMORY.glob(f"*{job}*"))
    with pytest.raises(CheckpointError, match="does not answer"):
        held_steps(peer, 0)
    assert not list(SHARED_MEMORY.glob(f"*{job}*"))
    memory.close()
    folder.leave(keep=False)


def test_without_other_nodes_or_without_memory_there_is_nothing_to_hold() -> None:
    with holding({environment.MEMORY: "j"}, None) as (environ, problem):
        assert (dict(environ), problem) == ({environment.MEMORY: "j"}, None)
    with holding({}, ("127.0.0.1", 9)) as (environ, problem):
        assert (dict(environ), problem) == ({}, None)


def test_where_no_holder_can_be_started_that_is_told_and_the_agent_goes_on() -> None:
    with holding({environment.MEMORY: "no/name"}, ("127.0.0.1", 9)) as (environ, problem):
        assert environment.HOLDER not in environ
        assert "no memory for the state of other nodes" in str(problem)


@pytest.mark.parametrize(
    ("own", "copied", "at_most", "valid"),
    [
        ([8, 6], [6, 4], None, {8, 6, 4}),
        ([], [6, 4], None, {6, 4}),
        ([8, 6], [], None, {8, 6}),
        ([8, 6], [6, 4], 6, {6, 4}),
        ([], [6, 4], 9, {6, 4}),
        ([3, 8], [8, 6], None, {3}),  # it went back from 8 to 2, and has not sent since
        ([], [3, 8], None, {3}),
        ([], [], None, set()),
    ],
)
def test_steps_that_were_undone_are_none_to_go_back_to(
    own: list[int], copied: list[int], at_most: int | None, valid: set[int]
) -> None:
    assert valid_steps(own, copied, at_most) == valid


def test_a_holder_may_listen_at_an_address_of_either_version(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")
    with Holder("j", TOKEN, host="::1", base=tmp_path) as holder:
        assert held(holder.peer) == {}


class Unlisted:
    """A place that does not answer."""

    def steps(self) -> list[int]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


def test_a_storage_that_cannot_be_listed_leaves_the_way_back_by_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = cast(ShardedCheckpointer, Unlisted())
    way = WayBack(cast(Places, None), cast(Restorable, None), alone("cpu"), storage, None)
    monkeypatch.setattr(way, "_own_steps", lambda _: [4, 3])
    monkeypatch.setattr(way, "_from_memory", lambda step, **_: Position(step=step, samples=8))
    assert way.find(None, None) == Position(step=4, samples=8)
    assert "cannot list the checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"host": "a"}', '"x"'])
def test_what_does_not_describe_a_holder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"ARTESIAN_HOLDER does not describe a holder"):
        decode(text)
