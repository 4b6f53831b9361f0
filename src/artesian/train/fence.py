"""Fences a place of checkpoints: of a job's attempts, only the newest that has come there may save.

An attempt on a node that was cut off runs on when its successor has begun, and would remove what that has saved. So the
place has a note of the highest epoch of each job that has saved or restored there. It is looked at before anything is
published or removed, and brought up to date by whoever comes with a higher one. A directory has locks, so that nobody
comes between the look and the act; in an object store, which has none, names see to it that this harms nothing.

What has no epoch, as it is no attempt of a job of artesian's, is not fenced and notes nothing. Nor are jobs fenced from
each other: one submitted anew begins with epoch 1 again, in the folder of the one before.

Needs the standard library only.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, Self

from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.finality import is_lasting
from artesian.wire import environment

WRITERS = "writer.json"
_MOST_JOBS = 32
"""That are remembered, the last that came: a note that is read at each save stays small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who saves: an attempt of a job, whose ``epoch`` counts from 1."""

    job: str
    epoch: int

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self | None:
        """Return the attempt that ``environ`` speaks of; None where it speaks of none.

        Raises ValueError for an epoch that is no number.
        """
        job, epoch = environ.get(environment.JOB_ID), environ.get(environment.EPOCH)
        if not job or not epoch:
            return None
        if not (epoch.isascii() and epoch.isdigit()):
            raise ValueError(f"${environment.EPOCH} must be a whole number, got {epoch!r}")
        return cls(job=job, epoch=int(epoch))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self | None:
        """Return whom a helper saves for, by its settings."""
        found = settings.get("writer")
        return None if found is None else cls(**found)


class Fenced(Protocol):
    """A place with a note of who has come to save there."""

    name: str
    writer: Writer | None
    note: str
    """The name of the note, for who wants to remove it."""

    def alone(self) -> AbstractContextManager[None]: ...

    def epochs(self) -> Mapping[str, int]:
        """Return the highest epoch of each job that has come, by the note. Raises OSError."""
        ...

    def come(self, writer: Writer) -> None:
        """Note that the attempt has come; durable when this returns. Raises OSError."""
        ...

    def sweep(self, keep: str | None = None) -> int: ...


def check(place: Fenced) -> None:
    """Raise SupersededError where a later attempt of the writer's job has come; OSError where that cannot be read."""
    if place.writer is not None:
        _epochs(place, place.writer)


def hold(place: Fenced) -> None:
    """Check, and note the writer where it is the first of its job or a later attempt than the one before.

    To be called within ``alone``. Raises SupersededError, and OSError where the note cannot be read or written.
    """
    writer = place.writer
    if writer is None:
        return
    if _epochs(place, writer).get(writer.job) != writer.epoch:
        place.come(writer)


def claim(place: Fenced) -> None:
    """Fence off all earlier attempts; for the start of a run, before it looks at what there is to restore.

    A save of theirs that is under way is waited for, where the place knows locks. What an attempt has claimed is
    its own after a restart, too: there is nothing to wait for.

    Raises SupersededError when a later attempt has come, CheckpointError when that cannot be read or noted.
    """
    writer = place.writer
    if writer is None:
        return
    try:
        if _epochs(place, writer).get(writer.job) != writer.epoch:
            with place.alone():
                hold(place)
    except OSError as error:
        raise CheckpointError(
            f"cannot note in {place.name} which attempt saves there: {error.strerror or error}",
            hint="free space or name another folder; the first save tries again",
            is_final=is_lasting(error),
        ) from error


def sweep(place: Fenced, keep: str | None = None) -> None:
    """Remove what a crash in the middle of a save has left, but for the save in parts that is called ``keep``.

    Raises SupersededError, before anything is removed; what cannot be removed stays for the next time.
    """
    with contextlib.suppress(OSError), place.alone():
        hold(place)
        place.sweep(keep)


def _epochs(place: Fenced, writer: Writer) -> Mapping[str, int]:
    """Return the highest epoch of each job that has come. Raises SupersededError where the writer's is lower."""
    epochs = place.epochs()
    newest = epochs.get(writer.job, 0)
    if newest > writer.epoch:
        raise SupersededError(
            f"checkpoints in {place.name} must be written by the newest attempt of job {writer.job}, "
            f"which is {newest}: this is attempt {writer.epoch}, and it saves and removes nothing there",
            hint="its work goes on in the newer attempt: end this one; if there is no newer one, remove "
            f"{place.note} there",
        )
    return epochs


def decoded(note: bytes | None) -> dict[str, int]:
    """Return what ``writer.json`` says. A damaged one says nothing: whoever saves next writes it anew."""
    try:
        epochs = json.loads(note or b"{}")["epochs"]
        return {str(job): int(epoch) for job, epoch in epochs.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def encoded(epochs: Mapping[str, int], writer: Writer) -> bytes:
    """Return ``writer.json`` with the writer beside those that have come before."""
    others = [(job, epoch) for job, epoch in epochs.items() if job != writer.job]
    return json.dumps({"epochs": {**dict(others[1 - _MOST_JOBS :]), writer.job: writer.epoch}}).encode()
