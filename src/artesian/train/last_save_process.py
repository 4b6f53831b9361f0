"""The process that brings the newest state in a node's shared memory to storage, when the node is to be lost.

It needs no worker, and no part of one's locks. Replicated state is that of any rank; of sharded state each node
writes the parts of its ranks, and the node of rank 0 commits the newest step of which all parts have come.

Needs the standard library only. Nothing is removed: that is left to the run that follows.
"""

import contextlib
import json
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from artesian.train.errors import CheckpointError
from artesian.train.fence import Writer
from artesian.train.last_save import NOTE
from artesian.train.manifest import Facts
from artesian.train.parts import Save, commit_parts, write_part
from artesian.train.persist_process import save_of
from artesian.train.segment import SHARED_MEMORY, JobFolder, Snapshot, meta_of, reading
from artesian.train.storage import Storage, in_pieces, open_storage

_SHARE = 0.25
"""Of the grace, what the workers have to save on their own before their memory is saved beside them."""
_RANKS = 1 << 20
"""Buffers of numbers beyond are copies for others, or on their way."""
_POLL_S = 0.1
_LAST = "-last"
"""Ends the number of such a save: the workers may be writing parts of their own of it."""


def bring(folder: JobFolder, until_s: float) -> int | None:
    """Save the newest state in ``folder`` that is newer than all in storage, and return its step; None: there is none.

    ``until_s``, on the monotonic clock, is how long parts of other nodes are waited for. Raises CheckpointError or
    OSError when it cannot be saved; SupersededError where a later attempt has come, which has what it needs.
    """
    try:
        settings = json.loads((folder.path / NOTE).read_bytes())
    except FileNotFoundError:  # the workers save nowhere, or have left
        return None
    storage = open_storage(settings["where"], settings["options"], writer=Writer.of(settings))
    stored = max(storage.steps(), default=0)
    ranks = {rank: folder.snapshots(rank) for rank in folder.ranks() if rank < _RANKS}
    if settings.get("is_in_parts"):
        return _bring_parts(storage, ranks, stored, until_s)
    newest = sorted(
        ((snapshot.step, -rank, snapshot) for rank, found in ranks.items() for snapshot in found),
        key=lambda each: each[:2],
        reverse=True,
    )
    for step, _, snapshot in newest:
        if step > stored and _bring_whole(storage, snapshot):
            return step
    return None


def _bring_whole(storage: Storage, snapshot: Snapshot) -> bool:
    with reading(snapshot) as image:
        if image is None:
            return False
        meta = meta_of(snapshot, image)
        facts = Facts(step=snapshot.step, position=meta["position"], world_size=meta["world_size"])
        with storage.alone():
            if max(storage.steps(), default=0) < snapshot.step:  # else a worker has been quicker
                storage.save(facts, in_pieces(image), snapshot.document_bytes)
    return True


def _bring_parts(
    storage: Storage, ranks: Mapping[int, list[Snapshot]], stored: int, until_s: float
) -> int | None:
    found: dict[Save, dict[int, tuple[Snapshot, memoryview]]] = defaultdict(dict)
    here: dict[str, set[int]] = defaultdict(set)
    """By run, which of this node's ranks were in it: where one had more of them, those that are gone have left theirs."""
    with ExitStack() as held:
        for snapshots in ranks.values():
            for snapshot in snapshots:
                image = held.enter_context(reading(snapshot))
                if (
                    image is None
                    or snapshot.step <= stored
                    or "save" not in (meta := meta_of(snapshot, image))
                ):
                    continue
                save, rank = save_of(snapshot.step, meta)
                here[_run_of(save)].add(rank)
                found[replace(save, number=f"{save.number}{_LAST}")][rank] = (snapshot, image)
        ready = sorted(
            (save for save, parts in found.items() if len(parts) == len(here[_run_of(save)])),
            key=lambda save: save.step,
            reverse=True,
        )
        for save in ready:
            for rank, (snapshot, image) in found[save].items():
                write_part(storage, save, rank, in_pieces(image), snapshot.document_bytes)
            if len(found[save]) == save.world_size:  # no other node has one of this step
                break
        has_first = any(0 in found[save] for save in ready)
    while has_first:
        for save in ready:
            if commit_parts(storage, save, keep_last=1, keep_every=None, is_tidying=False) is not None:
                return save.step
        if time.monotonic() > until_s:
            raise CheckpointError(
                f"not all parts of the checkpoint of step {ready[0].step} are in {storage.name}"
            )
        time.sleep(_POLL_S)
    return None


def _run_of(save: Save) -> str:
    return save.number.removesuffix(_LAST).rpartition("-")[0]


def main(memory: str, grace_s: float, base: Path = SHARED_MEMORY) -> None:
    """Save after a part of the grace, and again when stdin ends, which says that the workers are gone."""
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(stop, signal.SIG_IGN)
    end_s = time.monotonic() + grace_s
    folder = JobFolder(memory, base=base)
    are_gone = bool(select.select([sys.stdin], [], [], _SHARE * grace_s)[0])
    while True:
        try:
            step = bring(folder, end_s)
        except (CheckpointError, OSError, ValueError) as error:
            _say(f"what the workers have in memory cannot be saved: {error}")
        else:
            if step is not None:
                _say(f"saved step {step}, the newest that the workers have in memory")
        if are_gone:
            break
        select.select([sys.stdin], [], [])
        are_gone = True
    folder.leave(keep=True)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"artesian: {text}\n")
        sys.stderr.flush()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
