"""A copy of a rank's memory in another node's memory, for when the node is lost with all that is in it.

``Holder`` runs on every node, in the launch agent; it receives snapshots into the shared memory of its node,
where they look like any other rank's, and gives them back. ``send`` and ``fetch`` are the other end.

The wire, over TCP: the holder sends 32 random bytes; the other end answers with a line of JSON, which is
what it wants, and its HMAC-SHA256 with the job's token over the random bytes and the line; the holder answers alike,
over the other end's random bytes. An image follows in pieces of 16 MiB, each with its CRC-32, by whoever has it. So
neither end talks to a stranger, but what is sent is not encrypted: the network between nodes is trusted as
far as for the gradients. Only images are accepted, which are data and run no code.

Needs the standard library only.
"""

import contextlib
import hmac
import itertools
import json
import secrets
import socket
import socketserver
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from artesian.train.errors import CheckpointError
from artesian.train.segment import (
    HEADER_BYTES,
    SHARED_MEMORY,
    Buffer,
    JobFolder,
    Snapshot,
    Writer,
    reading,
)

_PIECE_BYTES = 16 << 20
_NONCE_BYTES = 32
_LINE_BYTES = 64 << 10
_TIMEOUT_S = 30.0
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Where a node's holder listens, and the token of the job."""

    host: str
    port: int
    token: str

    def __repr__(self) -> str:
        return f"the peer at {self.host}:{self.port}"  # the token is a secret


class Holder:
    """Keeps copies of other nodes' snapshots in this node's shared memory, for one job."""

    def __init__(
        self,
        job: str,
        token: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        base: Path = SHARED_MEMORY,
    ) -> None:
        """Listen on ``host`` and ``port`` (0: any that is free), in threads of this process."""
        if not token:
            raise ValueError("a token must not be empty")
        self._folder = JobFolder(job, base=base)
        try:
            self._server = _Server((host, port), self._folder, token)
        except OSError as error:
            self._folder.leave()
            raise CheckpointError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        self.peer = Peer(host=host, port=self._server.server_address[1], token=token)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name="artesian-peer",
            daemon=True,
        )
        self._thread.start()

    def close(self, *, keep: bool = False) -> None:
        """Stop listening; the last one out of the job's folder removes it, unless ``keep``."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.leave(keep=keep)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def send(peer: Peer, rank: int, snapshot: Snapshot) -> bool:
    """Give the peer a copy of ``snapshot``; False if it was overwritten before it could be held.

    Raises CheckpointError when the peer cannot be reached, or does not take it.
    """
    with reading(snapshot) as image:
        if image is None:
            return False
        with _asked(peer, {"op": "put", "rank": rank, **_facts(snapshot)}) as asked:
            asked.answer()
            _send_image(asked.file, image)
            asked.file.flush()
            asked.answer()
    return True


def fetch(peer: Peer, rank: int, folder: JobFolder, step: int | None = None) -> Snapshot | None:
    """Bring the peer's copy of the rank's newest snapshot, or of that of ``step``, into ``folder``; None if it has none.

    Raises CheckpointError when the peer cannot be reached or sends something else, or without room for it.
    """
    with _asked(peer, {"op": "get", "rank": rank, "step": step}) as asked:
        answer = asked.answer()
        if "step" not in answer:
            return None
        try:
            return _receive_image(asked.file, folder, rank, answer)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"what {peer!r} sent of rank {rank} is damaged: {error}") from error


def held(peer: Peer) -> dict[int, int]:
    """Return the step of the newest snapshot that the peer's node has of each rank.

    Raises CheckpointError when the peer cannot be reached.
    """
    with _asked(peer, {"op": "list"}) as asked:
        return {int(rank): step for rank, step in asked.answer()["steps"].items()}


def held_steps(peer: Peer, rank: int) -> list[int]:
    """Return the steps of all snapshots of the rank that the peer's node has, newest first.

    Raises CheckpointError when the peer cannot be reached.
    """
    with _asked(peer, {"op": "steps", "rank": rank}) as asked:
        return [int(step) for step in asked.answer()["steps"]]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], folder: JobFolder, token: str) -> None:
        self.folder = folder
        self.token = token
        self._changed = threading.Condition()
        self._receiving: dict[int, socket.socket] = {}
        """By rank, who brings a copy of it."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Request)

    @contextlib.contextmanager
    def receiving(self, rank: int, connection: socket.socket) -> Iterator[None]:
        """Have ``connection`` alone bring a copy of ``rank``. One that has come before it is cut off.

        The helper of a killed worker goes on sending, while the worker that has followed sends its first snapshot. The
        lock of ``Writer`` is a process's, and does not keep this one's threads out of each other's buffers.
        """
        with self._changed:
            while (before := self._receiving.get(rank)) is not None:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    before.shutdown(socket.SHUT_RDWR)
                self._changed.wait()
            self._receiving[rank] = connection
        try:
            yield
        finally:
            with self._changed:
                del self._receiving[rank]
                self._changed.notify_all()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of connections that broke: the other end has its own error."""


class _Request(socketserver.StreamRequestHandler):
    server: _Server
    timeout = _TIMEOUT_S

    def handle(self) -> None:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        self.wfile.write(nonce)
        line = self.rfile.readline(_LINE_BYTES)
        proof = self.rfile.readline(_LINE_BYTES).strip()
        if not hmac.compare_digest(proof, _proof(self.server.token, nonce + line)):
            return  # a stranger learns nothing
        request = json.loads(line)
        theirs = bytes.fromhex(request["nonce"])
        try:
            self._serve(request, theirs)
        except (CheckpointError, KeyError, TypeError, ValueError) as error:
            self._answer(theirs, {"error": str(error)})

    def _serve(self, request: Mapping[str, Any], theirs: bytes) -> None:
        folder = self.server.folder
        match request["op"]:
            case "list":
                newest = {rank: folder.snapshots(rank) for rank in folder.ranks()}
                self._answer(
                    theirs, {"steps": {rank: found[0].step for rank, found in newest.items() if found}}
                )
            case "steps":
                found = folder.snapshots(int(request["rank"]))
                self._answer(theirs, {"steps": [snapshot.step for snapshot in found]})
            case "put":
                rank = int(request["rank"])
                with self.server.receiving(rank, self.connection):
                    self._answer(theirs, {})
                    _receive_image(cast(BinaryIO, self.rfile), folder, rank, request)
                self._answer(theirs, {})
            case "get":
                self._send_newest(int(request["rank"]), request.get("step"), theirs)
            case other:
                raise CheckpointError(f"the holder does not know {other!r}")

    def _send_newest(self, rank: int, step: int | None, theirs: bytes) -> None:
        for snapshot in self.server.folder.snapshots(rank):
            if step not in (None, snapshot.step):
                continue
            with reading(snapshot) as image:
                if image is not None:
                    self._answer(theirs, _facts(snapshot))
                    _send_image(cast(BinaryIO, self.wfile), image)
                    return
        self._answer(theirs, {})

    def _answer(self, theirs: bytes, answer: Mapping[str, Any]) -> None:
        line = json.dumps(answer).encode() + b"\n"
        self.wfile.write(line + _proof(self.server.token, theirs + line) + b"\n")


class _Conversation:
    """One request to a holder, on a connection of its own."""

    def __init__(self, file: BinaryIO, peer: Peer, request: Mapping[str, Any]) -> None:
        self.file = file
        self._peer = peer
        self._is_known = False
        self._ours = secrets.token_bytes(_NONCE_BYTES)
        theirs = _exactly(file, _NONCE_BYTES)
        line = json.dumps({**request, "nonce": self._ours.hex()}).encode() + b"\n"
        file.write(line + _proof(peer.token, theirs + line) + b"\n")
        file.flush()

    def answer(self) -> dict[str, Any]:
        """Read one answer, and see that it comes from who knows the token."""
        line = self.file.readline(_LINE_BYTES)
        proof = self.file.readline(_LINE_BYTES).strip()
        if self._is_known and not line:  # to a stranger it would not have answered before
            raise EOFError("the connection ended")
        if not hmac.compare_digest(proof, _proof(self._peer.token, self._ours + line)):
            raise CheckpointError(
                f"{self._peer!r} does not know the job's token, or does not accept ours",
                hint="all nodes of a job need the same token",
            )
        self._is_known = True
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise CheckpointError(f"{self._peer!r}: {answer['error']}")
        return answer


@contextlib.contextmanager
def _asked(peer: Peer, request: Mapping[str, Any]) -> Iterator[_Conversation]:
    try:
        with socket.create_connection((peer.host, peer.port), timeout=_TIMEOUT_S) as connection:
            file = cast(BinaryIO, connection.makefile("rwb"))
            try:
                yield _Conversation(file, peer, request)
            finally:
                with contextlib.suppress(OSError):  # what could not be sent is not sent on closing either
                    file.close()
    except (OSError, EOFError) as error:
        raise CheckpointError(f"{peer!r} does not answer: {error}") from error


def _send_image(file: BinaryIO, image: memoryview) -> None:
    for at in range(0, len(image), _PIECE_BYTES):
        piece = image[at : at + _PIECE_BYTES]
        file.write(piece)
        file.write(_CRC.pack(zlib.crc32(piece)))


def _receive_image(file: BinaryIO, folder: JobFolder, rank: int, facts: Mapping[str, Any]) -> Snapshot:
    """Receive an image into a buffer of the rank's: committed when all of it has come, else never."""
    size, document_bytes = int(facts["image_bytes"]), int(facts["document_bytes"])
    if not 0 < document_bytes <= size:
        raise ValueError(f"a document of {document_bytes} bytes in an image of {size}")
    writer = Writer(folder, rank)
    try:
        found = folder.snapshots(rank)
        buffer = _free_buffer(folder, rank, size, found[0] if found else None)
        try:
            with memoryview(buffer.map)[HEADER_BYTES:] as image:
                for at in range(0, size, _PIECE_BYTES):
                    with image[at : at + _PIECE_BYTES] as piece:
                        _fill(file, piece)
                        (crc32,) = _CRC.unpack(_exactly(file, _CRC.size))
                        if zlib.crc32(piece) != crc32:
                            raise CheckpointError(f"the copy of rank {rank} was damaged on its way")
                document = bytes(image[:document_bytes])
            newest = found[0].sequence if found else 0
            return buffer.commit(max(newest + 1, int(facts["sequence"])), int(facts["step"]), document)
        finally:
            buffer.close()
    finally:
        writer.close()


def _free_buffer(folder: JobFolder, rank: int, size: int, newest: Snapshot | None) -> Buffer:
    for number in itertools.count():
        path = folder.buffer(rank, number)
        if newest is not None and newest.path == path:
            continue
        buffer = Buffer(path, size)
        if buffer.try_open():
            return buffer
        buffer.close()
    raise AssertionError("a count does not end")


def _facts(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "step": snapshot.step,
        "sequence": snapshot.sequence,
        "document_bytes": snapshot.document_bytes,
        "image_bytes": snapshot.image_bytes,
    }


def _fill(file: BinaryIO, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        count = file.readinto(piece[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the connection ended within an image")
        done += count


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError("the connection ended")
    return data


def _proof(token: str, message: bytes) -> bytes:
    return hmac.new(token.encode(), message, "sha256").hexdigest().encode()
