"""Checkpoints in storage: whole or not there, checked before they are believed.

A checkpoint is a folder ``step-00000040`` with the image of a state (``image``) and ``manifest.json``, which
holds the checksum of every 16 MiB of it and of itself. In a directory it is written under a temporary
name, flushed to the device, and renamed; in an object store, where a put is atomic and a rename is not, the manifest
is put last and is the commit. A crash at any instant leaves the checkpoints before as they were.

Images are written and read past the page cache, straight from shared memory, where the file system can:
a checkpoint is as large as memory, is read once at most, and should not push anything else out.

Needs the standard library only; object stores need fsspec (``pip install 'artesian[storage]'``).
"""

import contextlib
import errno
import mmap
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from artesian.train.directory import Directory, is_direct, set_direct
from artesian.train.errors import CheckpointError
from artesian.train.fence import Writer, hold
from artesian.train.finality import is_lasting
from artesian.train.manifest import Facts, Manifest

PIECE_BYTES = 16 << 20


class Storage(Protocol):
    """Where checkpoints lie. One process at a time may save; any number may read."""

    name: str
    writer: Writer | None
    """Whose saves are fenced by their epoch; None: nobody's."""

    def alone(self) -> AbstractContextManager[None]:
        """Wait until no other process saves, and keep others from it within the block, where that can be.

        The helper of a process that was killed may still be finishing its save.
        """
        ...

    def save(self, facts: Facts, pieces: Iterable[memoryview], document_bytes: int) -> Manifest:
        """Write an image, given in pieces of 16 MiB; it is durable when this returns.

        Raises OSError when it cannot be written, SupersededError where the ``writer`` has been followed by a later
        attempt: the checkpoints from before are untouched.
        """
        ...

    note: str
    """The name of the note of who has come to save here."""

    def epochs(self) -> Mapping[str, int]:
        """Return the highest epoch of each job that has come to save here. Raises OSError."""
        ...

    def come(self, writer: Writer) -> None:
        """Note that an attempt has come; durable when this returns. Raises OSError."""
        ...

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints, lowest first, unverified."""
        ...

    def manifest(self, step: int) -> Mapping[str, Any]:
        """Return the manifest's fields, as they were read. Raises OSError or ValueError."""
        ...

    def open(self, step: int, file: str) -> AbstractContextManager[BinaryIO]:
        """Open a file of a checkpoint to read it. Raises OSError."""
        ...

    def remove(self, step: int) -> None:
        """Remove a checkpoint; what cannot be removed stays for the next time."""
        ...

    def sweep(self, keep: str | None = None) -> int:
        """Remove what a crash in the middle of a save has left, and return how many leftovers there were.

        ``keep`` names a save in parts that goes on.
        """
        ...

    def put_part(self, save: str, name: str, pieces: Iterable[memoryview]) -> tuple[int, list[int]]:
        """Write a file of a save that all ranks take part in, and return its size and its pieces' checksums.

        It is durable when this returns, and part of no checkpoint yet. Raises OSError.
        """
        ...

    def put_note(self, save: str, name: str, data: bytes) -> None:
        """Write a small file beside the parts of a save; durable when this returns. Raises OSError."""
        ...

    def notes(self, save: str, count: int) -> list[bytes]:
        """Return the small files of a save, when there are ``count`` of them; else none. Raises OSError."""
        ...

    def commit(self, save: str, step: int, manifest: bytes) -> None:
        """Make the parts of ``save`` the checkpoint of ``step``, at once. Raises OSError."""
        ...

    def open_part(self, save: str, step: int, file: str) -> AbstractContextManager[BinaryIO]:
        """Open a part of the checkpoint of ``step``, which was the save ``save``. Raises OSError."""
        ...


def open_storage(
    where: Path | str, options: Mapping[str, Any] | None = None, *, writer: Writer | None = None
) -> Storage:
    """Return the storage at a path, or at a URL of any of fsspec's file systems (``s3://bucket/run``).

    ``options`` are the file system's, such as credentials; ``writer`` is who will save there, where that is an
    attempt of a job. Raises CheckpointError when fsspec or the file
    system's package is missing.
    """
    scheme, mark, rest = str(where).partition("://")
    if not mark:
        return Directory(Path(where), writer)
    if scheme in ("file", "local"):
        return Directory(Path(rest), writer)
    from artesian.train.object_store import ObjectStore  # few need it

    return ObjectStore(str(where), options or {}, writer)


def write_checkpoint(
    storage: Storage,
    facts: Facts,
    pieces: Iterable[memoryview],
    document_bytes: int,
    *,
    keep_last: int,
    keep_every: int | None,
    is_tidying: Callable[[], bool] = lambda: True,
) -> Manifest:
    """Save an image, then remove what is not to be kept: all but the newest ``keep_last``.

    Those of steps divisible by ``keep_every`` stay for good. Those of later steps go: a run that saves
    ``step`` has left them behind. Nothing is removed by one that ``is_tidying`` no more once it has saved: its run may
    have been followed by another.

    Raises CheckpointError when it cannot be written (a full disk), SupersededError where the writer has been followed by
    a later attempt: the checkpoints from before are intact.
    """
    try:
        with storage.alone():
            manifest = storage.save(facts, pieces, document_bytes)
            if is_tidying():
                with contextlib.suppress(OSError):  # tried again at the next save; the new checkpoint is safe
                    remove_old(storage, facts.step, keep_last, keep_every)
    except OSError as error:
        raise not_saved("write", f"the checkpoint of step {facts.step}", storage, error) from error
    return manifest


def not_saved(act: str, what: str, storage: Storage, error: OSError) -> CheckpointError:
    """Return the error of who could not ``act`` (write, commit) on ``what`` is saved."""
    return CheckpointError(
        f"cannot {act} {what} to {storage.name}: {error.strerror or error}",
        hint="free space or name another folder; earlier checkpoints are intact",
        is_final=is_lasting(error),
    )


def in_pieces(image: memoryview) -> Iterator[memoryview]:
    """Yield an image in pieces of 16 MiB."""
    for at in range(0, len(image), PIECE_BYTES):
        yield image[at : at + PIECE_BYTES]


def remove_old(storage: Storage, newest: int, keep_last: int, keep_every: int | None) -> None:
    """Remove the checkpoints that are not to be kept once ``newest`` is there. Raises OSError, SupersededError."""
    steps = storage.steps()
    # After the look: so that it has seen nothing of a successor's, for whom ``newest`` was there.
    hold(storage)
    older = [step for step in steps if step <= newest]
    kept = {*older[-keep_last:], *(step for step in older if keep_every and step % keep_every == 0)}
    for step in steps:
        if step not in kept:
            storage.remove(step)
    storage.sweep()


def remove_later(storage: Storage, step: int) -> None:
    """Remove the checkpoints of steps after ``step``, to which a run has gone back: nobody is to go on from them.

    Raises CheckpointError where they cannot be listed, SupersededError where the writer has been followed by a later
    attempt.
    """
    try:
        with storage.alone():
            later = [found for found in storage.steps() if found > step]
            if later:
                hold(storage)
            for found in later:
                storage.remove(found)
    except OSError as error:
        raise CheckpointError(
            f"cannot remove what was saved after step {step} in {storage.name}: {error.strerror or error}",
            hint="a restart before the next save may go on from there",
        ) from error


def verified_pieces(storage: Storage, manifest: Manifest) -> Iterator[memoryview]:
    """Yield the image's pieces, each checked; a piece is valid until the next one is asked for.

    Raises ValueError where the image is not what the manifest says, OSError where it cannot be read.
    """
    with storage.open(manifest.step, manifest.file) as file:
        numbers = range(len(manifest.crc32s))
        for _, piece in verified(file, manifest.file, manifest.size_bytes, manifest.crc32s, numbers):
            yield piece


def verified(
    file: BinaryIO, name: str, size_bytes: int, crc32s: Sequence[int], numbers: Iterable[int]
) -> Iterator[tuple[int, memoryview]]:
    """Yield where a piece of ``file`` begins, and the piece, checked; for each of ``numbers``, lowest first.

    Raises as ``verified_pieces`` does.
    """
    size = file.seek(0, os.SEEK_END)
    with contextlib.suppress(OSError):  # it is no file of the system's
        set_direct(file.fileno(), True)
    if size != size_bytes or len(crc32s) != -(-size // PIECE_BYTES):
        raise ValueError(f"{name} should have {size_bytes} bytes, and has {size}")
    # Anonymous memory is aligned to pages, as reads past the page cache have to be.
    room = memoryview(mmap.mmap(-1, PIECE_BYTES))
    for number in numbers:
        start = number * PIECE_BYTES
        file.seek(start)
        piece = room[: min(PIECE_BYTES, size - start)]
        _fill(file, piece)
        if zlib.crc32(piece) != crc32s[number]:
            raise ValueError(f"{name} does not match its checksum")
        yield start, piece


def _fill(file: BinaryIO, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        try:
            count = file.readinto(piece[done:])  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno != errno.EINVAL or not is_direct(file.fileno()):
                raise
            set_direct(file.fileno(), False)
            continue
        if not count:
            raise ValueError("it ends before its size")
        done += count
