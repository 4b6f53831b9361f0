"""A connection between two agents: JSON lines over TCP, after both have proved that they know the token.

The proof is an HMAC of the other side's nonce, so that the token itself never travels. What follows is not
encrypted and not signed line by line: it is meant for a cluster's own network, as torch's store is.
"""

import hashlib
import hmac
import json
import secrets
import select
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from artesian.train.words import Message, is_of_agent, parsed

_HANDSHAKE_S = 1.0
_SEND_S = 2.0
_LINE_BYTES = 1 << 20


class Neighbour:
    """One agent as another sees it. ``heard_s`` is when it last said something, on the monotonic clock."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.heard_s = time.monotonic()
        self.id = ""
        self._received = b""
        connection.settimeout(_SEND_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: Message) -> bool:
        """Send ``message``; False where the other side is gone, or does not take it."""
        return self.send_line(_line_of(message))

    def send_line(self, line: bytes) -> bool:
        """Send a message that is a line already; as ``send``."""
        try:
            self.socket.sendall(line)
        except OSError:
            return False
        return True

    def receive(self) -> list[Message] | None:
        """Return what has come, after the socket was readable; None when the other side is gone, or makes no sense."""
        try:
            data = self.socket.recv(65_536)
        except OSError:
            return None
        if not data or len(self._received) > _LINE_BYTES:
            return None
        self.heard_s = time.monotonic()
        *lines, self._received = (self._received + data).split(b"\n")
        messages = [told for line in lines if (told := parsed(line)) is not None and is_of_agent(told)]
        return messages if len(messages) == len(lines) else None

    def wait_for(self, timeout_s: float) -> Message | None:
        """Return the next message, and leave those behind it in the socket; None when none comes in time."""
        deadline_s = time.monotonic() + timeout_s
        line = b""
        while not line.endswith(b"\n"):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0 or len(line) > _LINE_BYTES or not _is_readable(self.socket, left_s):
                return None
            try:
                seen = self.socket.recv(65_536, socket.MSG_PEEK)
                line += self.socket.recv(seen.find(b"\n") + 1 or len(seen))
            except OSError:
                return None
            if not seen:
                return None
        return parsed(line)

    def close(self) -> None:
        """Close the connection. Calling it again does nothing."""
        self.socket.close()


def tell_all(peers: Iterable[Neighbour], message: Message) -> None:
    """Send all the same, which is put into words once. Whether they are there their beats tell."""
    line = _line_of(message)
    for peer in peers:
        peer.send_line(line)


def _line_of(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _is_readable(connection: socket.socket, timeout_s: float) -> bool:
    """Wait until something has come, or the time is over. Not by ``select``, which takes no more than 1024 files."""
    waiting = select.poll()
    waiting.register(connection, select.POLLIN)
    return bool(waiting.poll(1000 * timeout_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """Who has connected and was asked for a proof, which ``admit`` reads once something has come."""

    peer: Neighbour
    nonce: str


def ask(connection: socket.socket) -> Guest:
    """Ask who has connected for a proof that it knows the token, and do not wait for it."""
    guest = Guest(peer=Neighbour(connection), nonce=secrets.token_hex(16))
    guest.peer.send({"nonce": guest.nonce})  # whether it is there its answer tells
    return guest


def admit(guest: Guest, token: str) -> Message | None:
    """Return the introduction of who has answered; None, and it is closed, unless it knows ``token``."""
    peer = guest.peer
    answer = peer.wait_for(_HANDSHAKE_S)
    if answer is not None and _is_proof(answer.get("proof"), token, "member", guest.nonce):
        peer.id = str(answer.get("id"))
        if peer.send({"proof": _proof(token, "leader", str(answer.get("nonce")))}):
            return answer
    peer.close()
    return None


def introduce(address: tuple[str, int], token: str, introduction: Message) -> Neighbour | None:
    """Connect to the leader at ``address``; None unless it is there and knows ``token``."""
    try:
        connection = socket.create_connection(address, timeout=_HANDSHAKE_S)
    except OSError:
        return None
    peer, nonce = Neighbour(connection), secrets.token_hex(16)
    question = peer.wait_for(_HANDSHAKE_S)
    if question is not None and "nonce" in question:
        proof = _proof(token, "member", str(question["nonce"]))
        introduction = {**introduction, "proof": proof, "nonce": nonce}
        if peer.send(introduction):
            answer = peer.wait_for(_HANDSHAKE_S)
            if answer is not None and _is_proof(answer.get("proof"), token, "leader", nonce):
                return peer
    peer.close()
    return None


def _proof(token: str, role: str, nonce: str) -> str:
    return hmac.new(token.encode(), f"{role} {nonce}".encode(), hashlib.sha256).hexdigest()


def _is_proof(given: object, token: str, role: str, nonce: str) -> bool:
    # As bytes: of texts it takes ASCII only, and a stranger may say anything.
    return isinstance(given, str) and hmac.compare_digest(
        given.encode(errors="replace"), _proof(token, role, nonce).encode()
    )
