"""Checkpoints in a directory: written under a temporary name, flushed to the device, and renamed.

Needs the standard library only.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from artesian.train.errors import SupersededError
from artesian.train.fence import WRITERS, Writer, decoded, encoded, hold
from artesian.train.manifest import (
    MANIFEST,
    Facts,
    Manifest,
    encode_manifest,
    folder_name,
    make_manifest,
    manifest_fields,
    steps_among,
)

_TEMPORARY = ".tmp-"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Both as Linux has them."""


class Directory:
    """Checkpoints in a directory, which all nodes share if there are several."""

    note = WRITERS

    def __init__(self, folder: Path, writer: Writer | None = None) -> None:
        """``writer`` is who saves there, where that is an attempt of a job."""
        self.folder = folder
        self.name = str(folder)
        self.writer = writer

    def save(self, facts: Facts, pieces: Iterable[memoryview], document_bytes: int) -> Manifest:
        target = self.path(facts.step)
        # Attempts do not write into each other's, where there are no locks to keep them apart.
        whose = "" if self.writer is None else f"-{self.writer.epoch}"
        temporary = self.folder / f"{_TEMPORARY}{target.name}{whose}"
        hold(self)
        self.sweep()
        try:
            temporary.mkdir()
            manifest = _write(temporary, facts, pieces, document_bytes)
            hold(self)  # again: where there are no locks, a successor may have come while it was written
            self._install(temporary, target)
        except (OSError, SupersededError):
            with contextlib.suppress(OSError):  # what is left is swept at the next save
                shutil.rmtree(temporary)
            raise
        return manifest

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # a network file system without locks
                fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def epochs(self) -> Mapping[str, int]:
        try:
            return decoded((self.folder / WRITERS).read_bytes())
        except FileNotFoundError:
            return {}

    def come(self, writer: Writer) -> None:
        temporary = self.folder / f".{WRITERS}-{secrets.token_hex(4)}"
        try:
            _write_note(temporary, encoded(self.epochs(), writer))
            os.rename(temporary, self.folder / WRITERS)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(self.folder)

    def steps(self) -> list[int]:
        return steps_among(os.listdir(self.folder)) if self.folder.exists() else []

    def manifest(self, step: int) -> Mapping[str, Any]:
        return manifest_fields((self.path(step) / MANIFEST).read_bytes())

    def open(self, step: int, file: str) -> AbstractContextManager[BinaryIO]:
        return cast(BinaryIO, (self.path(step) / Path(file).name).open("rb", buffering=0))

    def remove(self, step: int) -> None:
        target = self.path(step)
        gone = self.folder / f"{_TEMPORARY}old-{target.name}"
        with contextlib.suppress(OSError):  # what is left under either name goes the next time
            os.rename(target, gone)  # at once, so that no half of it is ever taken for one
        shutil.rmtree(gone, ignore_errors=True)

    def sweep(self, keep: str | None = None) -> int:
        kept = f"{_TEMPORARY}{keep}"
        leftovers = [path for path in self.folder.glob(f"{_TEMPORARY}*") if path.name != kept]
        for path in leftovers:
            shutil.rmtree(path)
        return len(leftovers)

    def put_part(self, save: str, name: str, pieces: Iterable[memoryview]) -> tuple[int, list[int]]:
        folder = self._of(save)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _write_pieces(folder / name, pieces)
        except OSError:
            with contextlib.suppress(OSError):  # half a part is of use to nobody, and takes room
                (folder / name).unlink()
            raise

    def put_note(self, save: str, name: str, data: bytes) -> None:
        hidden = f"{name}.new"
        folder = os.open(self._of(save), os.O_RDONLY | os.O_DIRECTORY)
        try:
            _write_note(self._of(save) / hidden, data)
            # Whoever sees it may commit the save at once, and the folder has another name from then on.
            os.rename(hidden, name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            os.close(folder)

    def notes(self, save: str, count: int) -> list[bytes]:
        found = list(self._of(save).glob("*.json"))
        return [path.read_bytes() for path in found] if len(found) >= count else []

    def commit(self, save: str, step: int, manifest: bytes) -> None:
        _write_note(self._of(save) / MANIFEST, manifest)
        sync_folder(self._of(save))
        self._install(self._of(save), self.path(step))

    def open_part(
        self,
        save: str,  # noqa: ARG002 - its folder has the step's name now
        step: int,
        file: str,
    ) -> AbstractContextManager[BinaryIO]:
        return self.open(step, file)

    def _of(self, save: str) -> Path:
        return self.folder / f"{_TEMPORARY}{save}"

    def _install(self, temporary: Path, target: Path) -> None:
        """Give what is whole its name, at once."""
        # One may be there: damaged, or of a run that was rolled back to before it.
        if not (target.exists() and _exchange(temporary, target)):
            if target.exists():
                os.rename(target, self.folder / f"{_TEMPORARY}old-{target.name}")
            os.rename(temporary, target)
        sync_folder(self.folder)

    def path(self, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.folder / folder_name(step)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names at once, so that each is there at any instant; False where that cannot be."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except AttributeError:  # a C library without it
        return False
    result: int = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return result == 0


def _write(folder: Path, facts: Facts, pieces: Iterable[memoryview], document_bytes: int) -> Manifest:
    file = "state.bin"
    size_bytes, crc32s = _write_pieces(folder / file, pieces)
    manifest = make_manifest(facts, file, document_bytes, size_bytes, crc32s)
    _write_note(folder / MANIFEST, encode_manifest(manifest))
    sync_folder(folder)
    return manifest


def _write_pieces(path: Path, pieces: Iterable[memoryview]) -> tuple[int, list[int]]:
    crc32s: list[int] = []
    size_bytes = 0
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        set_direct(out, True)
        for piece in pieces:
            crc32s.append(zlib.crc32(piece))
            size_bytes += len(piece)
            _write_all(out, piece)
        os.fsync(out)
    finally:
        os.close(out)
    return size_bytes, crc32s


def _write_note(path: Path, data: bytes) -> None:
    with path.open("wb") as text:
        text.write(data)
        text.flush()
        os.fsync(text.fileno())


def _write_all(file: int, data: memoryview) -> None:
    """Write past the page cache; through it, where the file system or the length does not allow that."""
    while data:
        try:
            data = data[os.write(file, data) :]
        except OSError as error:
            if error.errno != errno.EINVAL or not is_direct(file):
                raise
            set_direct(file, False)


def is_direct(file: int) -> bool:
    """Return whether ``file`` is read and written past the page cache."""
    return bool(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_DIRECT)


def set_direct(file: int, is_past: bool) -> None:
    """Read and write past the page cache, or through it; where a file system has only that, through it."""
    flags = fcntl.fcntl(file, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(file, fcntl.F_SETFL, flags | os.O_DIRECT if is_past else flags & ~os.O_DIRECT)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
