"""The holder of a node as a process of its own, beside the launch agent: that has one thread, and keeps it.

Reads its settings from the first line of stdin, answers with the port on which it listens, and ends when stdin does.
What it holds is in the node's shared memory, and gone with it.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from artesian.train.errors import CheckpointError
from artesian.train.peer import Holder, Peer
from artesian.train.worker_process import die_with, ignore_stops
from artesian.wire import environment

Address = tuple[str, int]
_GRACE_S = 5.0


@contextmanager
def holding(
    environ: Mapping[str, str], endpoint: Address | None
) -> Iterator[tuple[Mapping[str, str], CheckpointError | None]]:
    """Hold copies of other nodes' memory, and tell the workers of this one in which variable others find it.

    ``endpoint`` is where the agents of all nodes meet; None: there are no others. Without a holder, which has its
    reason beside the variables, what a lost node had in memory alone is lost.
    """
    job = environ.get(environment.MEMORY)
    if endpoint is None or not job:
        yield environ, None
        return
    try:
        process, peer = _start(f"{job}-peers", _own_address(endpoint))
    except (OSError, ValueError) as error:
        yield environ, CheckpointError(f"no memory for the state of other nodes: {error}")
        return
    try:
        yield {**environ, environment.HOLDER: encode(peer)}, None
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def encode(peer: Peer) -> str:
    """Return what a worker is told of a holder."""
    return json.dumps({"host": peer.host, "port": peer.port, "token": peer.token})


def decode(text: str) -> Peer:
    """Return the holder that ``encode`` described. Raises ValueError where it is none."""
    try:
        return Peer(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ValueError(f"${environment.HOLDER} does not describe a holder") from error


def _own_address(endpoint: Address) -> str:
    """Return the address of this node from which it reaches ``endpoint``, where others reach it. Sends nothing."""
    family, kind, protocol, _, address = socket.getaddrinfo(*endpoint, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        host: str = probe.getsockname()[0]
    return host


def _start(job: str, host: str) -> tuple[subprocess.Popen[str], Peer]:
    token = secrets.token_hex(32)
    process = subprocess.Popen(
        [sys.executable, "-m", "artesian.train.holder_process", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # a signal for the agent's group is not meant for it
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"job": job, "host": host, "token": token}) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline() or '{"error": "its process has ended"}')
    if "error" in answer:
        process.stdin.close()
        process.stdout.close()
        process.wait()
        raise OSError(answer["error"])
    return process, Peer(host=host, port=answer["port"], token=token)


def main(agent: int) -> None:
    """Hold copies until the agent ends."""
    die_with(agent)
    ignore_stops()
    settings = json.loads(sys.stdin.readline())
    try:
        holder = Holder(settings["job"], settings["token"], host=settings["host"])
    except (CheckpointError, ValueError) as error:
        _answer({"error": str(error)})
        return
    with holder:
        _answer({"port": holder.peer.port})
        sys.stdin.read()


def _answer(answer: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
