"""The helper that brings snapshots to storage or to a peer, beside the worker and with less priority.

Reads its settings from the first line of stdin, then one snapshot a line; answers each with a line on stdout. It is a process of
its own, so that it needs no part of the worker's GIL, can be made to yield to every worker, and finishes
what it has begun when the worker is killed. It ends when stdin does.

Needs the standard library only: it starts in a twentieth of a second and holds no copy of torch.
"""

import contextlib
import functools
import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from artesian.train import fence
from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.fence import Writer
from artesian.train.manifest import Facts
from artesian.train.parts import Save, commit_parts, write_part
from artesian.train.peer import Peer, send
from artesian.train.segment import Snapshot, meta_of, reading
from artesian.train.storage import Storage, in_pieces, open_storage, write_checkpoint

NICE = 17
"""A fortieth of a normal process's share where both want the core, all of it where none does: so little that the
steps beside it take less than 1.05 times as long on cores that are all busy; at 10, a ninth, they took 1.07 and more."""
_LEAST_WAIT_S, _MOST_WAIT_S = 0.02, 1.0
_PATIENCE_S, _PATIENCE = 60.0, 10.0
"""How long the other ranks' parts may take when the worker has ended: so long, and so many times the own one."""


def to_storage(
    where: Path | str,
    *,
    keep_last: int = 2,
    keep_every: int | None = None,
    options: Mapping[str, Any] | None = None,
    writer: Writer | None = None,
) -> dict[str, Any]:
    """Return the settings of a helper that writes to storage, for ``writer`` where that is an attempt of a job."""
    return {
        "where": str(where),
        "options": dict(options or {}),
        "keep_last": keep_last,
        "keep_every": keep_every,
        "writer": None if writer is None else asdict(writer),
    }


def in_parts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, of ``to_storage``, of a helper that writes one rank's parts of sharded saves there."""
    return {**settings, "is_in_parts": True}


def to_peer(peer: Peer, rank: int) -> dict[str, Any]:
    """Return the settings of a helper that sends a rank's snapshots to a peer."""
    return {"host": peer.host, "port": peer.port, "token": peer.token, "rank": rank}


class Words(SimpleQueue[dict[str, Any] | None]):
    """What the worker says, each a line; None when it says no more, and ``is_over`` as soon as that is known."""

    is_over = False


def deliver(settings: Mapping[str, Any], snapshot: Snapshot, words: Words | None = None) -> dict[str, Any]:
    """Write a snapshot to storage or send it to a peer, and return what became of it.

    ``words`` are listened to while rank 0 waits for the other ranks' parts.

    ``{"gone": true}`` if it was overwritten before it could be held; else ``step``, and either
    ``size_bytes`` and ``duration_s``, or ``failure`` and ``hint``; ``is_superseded`` where that is why.
    """
    start_s = time.monotonic()
    size_bytes: int | None = snapshot.image_bytes
    try:
        if "host" in settings:
            peer = Peer(host=settings["host"], port=settings["port"], token=settings["token"])
            is_there = send(peer, settings["rank"], snapshot)
        elif "is_in_parts" in settings:
            size_bytes = _persist_part(settings, snapshot, words)
            is_there = size_bytes is not None
        else:
            is_there = _persist(settings, snapshot, words)
    except CheckpointError as error:
        why = {"is_superseded": True} if isinstance(error, SupersededError) else {}
        return {"step": snapshot.step, "failure": str(error), "hint": error.hint, **why}
    if not is_there:
        return {"gone": True}
    return {"step": snapshot.step, "size_bytes": size_bytes, "duration_s": time.monotonic() - start_s}


def _storage_of(settings: Mapping[str, Any]) -> Storage:
    options = json.dumps(settings["options"], sort_keys=True)
    return _opened(settings["where"], options, Writer.of(settings))


@functools.cache
def _opened(where: str, options: str, writer: Writer | None) -> Storage:
    """Return the storage of a helper, which has one: what it knows of the place it need not ask again."""
    return open_storage(where, json.loads(options), writer=writer)


def _persist(settings: Mapping[str, Any], snapshot: Snapshot, words: Words | None) -> bool:
    storage = _storage_of(settings)
    with reading(snapshot) as image:
        if image is None:
            return False
        meta = meta_of(snapshot, image)
        write_checkpoint(
            storage,
            Facts(step=snapshot.step, position=meta.get("position", 0), world_size=meta.get("world_size", 1)),
            in_pieces(image),
            snapshot.document_bytes,
            keep_last=settings["keep_last"],
            keep_every=settings["keep_every"],
            # The worker may have been followed by another, whose newer checkpoints look as if they had been left behind.
            is_tidying=lambda: words is None or not words.is_over,
        )
    return True


def _persist_part(settings: Mapping[str, Any], snapshot: Snapshot, words: Words | None) -> int | None:
    """Write a rank's part and, on rank 0, commit the save when all parts are there; return the bytes written."""
    start_s = time.monotonic()
    storage = _storage_of(settings)
    with reading(snapshot) as image:
        if image is None:
            return None
        save, rank = save_of(snapshot.step, meta_of(snapshot, image))
        if rank == 0:
            fence.sweep(storage, save.name)
        write_part(storage, save, rank, in_pieces(image), snapshot.document_bytes)
    if rank != 0:
        return snapshot.image_bytes
    patience_s = _PATIENCE_S + _PATIENCE * (time.monotonic() - start_s)
    return _committed(storage, save, settings, words, patience_s)


def save_of(step: int, meta: Mapping[str, Any]) -> tuple[Save, int]:
    """Return which save a snapshot of sharded state is a part of, and of which rank it is; ``meta`` is its own."""
    save = Save(step=step, position=meta["position"], world_size=meta["world_size"], number=meta["save"])
    return save, meta["rank"]


def _committed(
    storage: Storage, save: Save, settings: Mapping[str, Any], words: Words | None, patience_s: float
) -> int:
    """Commit the save as soon as all parts are there, and return its bytes.

    A worker that has ended gives no word any more: then the others have ``patience_s`` to finish theirs.
    """
    wait_s, give_up_s = _LEAST_WAIT_S, math.inf
    while True:
        is_tidying = give_up_s == math.inf
        manifest = commit_parts(
            storage,
            save,
            keep_last=settings["keep_last"],
            keep_every=settings["keep_every"],
            is_tidying=is_tidying,
        )
        if manifest is not None:
            return manifest.size_bytes
        if words is None or time.monotonic() > give_up_s:
            raise CheckpointError(
                f"not all parts of the checkpoint of step {save.step} are in {storage.name}"
            )
        try:
            word = words.get(timeout=wait_s)
        except Empty:
            wait_s = min(2 * wait_s, _MOST_WAIT_S)
            continue
        if word is None:
            words.put(None)  # for whoever asks next
            if is_tidying:
                give_up_s = time.monotonic() + patience_s
            time.sleep(wait_s)
        elif word.get("give_up") == save.step:
            fence.sweep(storage)  # it takes room that the next one may need
            raise CheckpointError(
                f"another rank could not write its part of the checkpoint of step {save.step}"
            )


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
    # What a library prints is not for the worker, which waits for answers alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = json.loads(sys.stdin.readline())
    words = Words()
    threading.Thread(target=_hear, args=(words,), name="artesian-words", daemon=True).start()
    while (word := words.get()) is not None:
        if "give_up" in word:  # what it was about is over
            continue
        answer = deliver(settings, decode_snapshot(word), words)
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except BrokenPipeError:  # the worker was killed meanwhile
            os._exit(0)  # not to flush into the pipe again


def _hear(words: Words) -> None:
    with contextlib.suppress(ValueError):  # half a line: the worker was killed on the way
        for line in sys.stdin:
            words.put(json.loads(line))
    words.is_over = True
    words.put(None)


if __name__ == "__main__":
    main()
