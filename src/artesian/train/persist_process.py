"""The helper that brings snapshots to storage or to a peer, beside the worker and with less priority.

Reads its settings from the first line of stdin, then one snapshot a line; answers each with a line on stdout. It is a process of
its own, so that it needs no part of the worker's GIL, can be made to yield to every worker, and finishes
what it has begun when the worker is killed. It ends when stdin does.

Needs the standard library only: it starts in a twentieth of a second and holds no copy of torch.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artesian.train.errors import CheckpointError
from artesian.train.manifest import Facts
from artesian.train.peer import Peer, send
from artesian.train.segment import Snapshot, reading
from artesian.train.storage import PIECE_BYTES, open_storage, write_checkpoint

NICE = 10
"""A ninth of a normal process's share where both want the core: it gets on, and costs the steps little."""


def to_storage(
    where: Path | str,
    *,
    keep_last: int = 2,
    keep_every: int | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the settings of a helper that writes to storage."""
    return {
        "where": str(where),
        "options": dict(options or {}),
        "keep_last": keep_last,
        "keep_every": keep_every,
    }


def to_peer(peer: Peer, rank: int) -> dict[str, Any]:
    """Return the settings of a helper that sends a rank's snapshots to a peer."""
    return {"host": peer.host, "port": peer.port, "token": peer.token, "rank": rank}


def deliver(settings: Mapping[str, Any], snapshot: Snapshot) -> dict[str, Any]:
    """Write a snapshot to storage or send it to a peer, and return what became of it.

    ``{"gone": true}`` if it was overwritten before it could be held; else ``step``, and either
    ``size_bytes`` and ``duration_s``, or ``failure`` and ``hint``.
    """
    start_s = time.monotonic()
    try:
        if "host" in settings:
            peer = Peer(host=settings["host"], port=settings["port"], token=settings["token"])
            is_there = send(peer, settings["rank"], snapshot)
        else:
            is_there = _persist(settings, snapshot)
    except CheckpointError as error:
        return {"step": snapshot.step, "failure": str(error), "hint": error.hint}
    if not is_there:
        return {"gone": True}
    return {
        "step": snapshot.step,
        "size_bytes": snapshot.image_bytes,
        "duration_s": time.monotonic() - start_s,
    }


def _persist(settings: Mapping[str, Any], snapshot: Snapshot) -> bool:
    storage = open_storage(settings["where"], settings["options"])
    with reading(snapshot) as image:
        if image is None:
            return False
        meta = json.loads(bytes(image[: snapshot.document_bytes]))[1][0]
        write_checkpoint(
            storage,
            Facts(step=snapshot.step, position=meta.get("position", 0), world_size=meta.get("world_size", 1)),
            (image[at : at + PIECE_BYTES] for at in range(0, len(image), PIECE_BYTES)),
            snapshot.document_bytes,
            keep_last=settings["keep_last"],
            keep_every=settings["keep_every"],
        )
    return True


def encode_snapshot(snapshot: Snapshot) -> str:
    """Return a snapshot's description as one line."""
    return json.dumps({**asdict(snapshot), "path": str(snapshot.path)})


def decode_snapshot(fields: Mapping[str, Any]) -> Snapshot:
    """Return the snapshot that ``encode_snapshot`` described."""
    return Snapshot(**{**fields, "path": Path(fields["path"])})


def main() -> None:
    """Serve the worker on stdin and stdout until it ends."""
    # A stop reaches the whole group of processes; what is being written is finished, as the worker waits for it.
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.SIG_IGN)
    os.nice(NICE)
    settings = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        answer = deliver(settings, decode_snapshot(json.loads(line)))
        try:
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the worker was killed meanwhile
            os._exit(0)  # not to flush into the pipe again


if __name__ == "__main__":
    main()
