"""Shared memory that holds snapshots: a folder per job, a few buffers per rank, whole or not there.

::

    /dev/shm/artesian-1000-JOB/         mode 0700, of the user 1000
        lock                            shared lock: of everyone who uses the folder
        rank-00000.writer               the process that writes this rank's buffers has it locked
        rank-00000.0, rank-00000.1 ...  the buffers

A buffer is one page of header, then an image (``image``). The header says which snapshot the image is; its
first word is zero from before the first byte of the image changes until after the last one has, so a
snapshot that was cut off is never taken for one. Several buffers, so that one is always whole.

Locks say who lives, because the kernel drops them when a process dies, kill -9 included, and because they hold
across the namespaces of processes, where numbers of processes do not. A reader holds a shared lock on
the buffer it reads; a writer takes only buffers that nobody reads.

Needs the standard library only: helper processes start without torch.
"""

import contextlib
import errno
import fcntl
import json
import mmap
import os
import re
import secrets
import shutil
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artesian.train.errors import CheckpointError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - it is the place; the folders in it are private  # nosec B108
HEADER_BYTES = 4096
_POPULATE_READ = 22
"""``MADV_POPULATE_READ`` of Linux 5.14, which Python has no name for."""
_MAGIC = b"artesian-memory1"
_SEQUENCE = struct.Struct("<Q")
_FIELDS = struct.Struct("<16sQqQQI")
_CHECK = struct.Struct("<I")
_JOB = re.compile(r"[A-Za-z0-9._-]{1,100}")
_GONE = "~"
"""Begins the name of a folder that is being removed; no job's does."""
_BUFFER = re.compile(r"rank-(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A whole image in a buffer. ``sequence`` counts the snapshots of this rank: the highest is the newest.

    The document takes ``document_bytes`` from the image's start, the whole image ``image_bytes``.
    """

    path: Path
    sequence: int
    step: int
    document_bytes: int
    image_bytes: int
    document_crc32: int


class JobFolder:
    """The shared memory of one job on one node; whoever holds one keeps it from being swept."""

    def __init__(self, job: str, *, base: Path = SHARED_MEMORY) -> None:
        """Enter the folder of ``job``, and make it where there is none.

        ``base`` is where the node's shared memory is mounted. Raises CheckpointError when the folder
        cannot be made or is another user's, ValueError for a name that cannot be part of a path.
        """
        if not _JOB.fullmatch(job):
            raise ValueError(f"a job is named by 1 to 100 of A-Z a-z 0-9 . _ -, got {job!r}")
        self.path = base / f"{_prefix()}{job}"
        self.lock: int | None = None
        while self.lock is None:
            self.lock = _enter(self.path)

    def buffers(self, rank: int) -> list[Path]:
        """Return the files of the rank's buffers, in order of their numbers."""
        found = [(int(match[2]), path) for match, path in self._buffers() if int(match[1]) == rank]
        return [path for _, path in sorted(found)]

    def ranks(self) -> list[int]:
        """Return the ranks that have buffers here, lowest first."""
        return sorted({int(match[1]) for match, _ in self._buffers()})

    def buffer(self, rank: int, number: int) -> Path:
        """Return the path of one buffer."""
        return self.path / f"rank-{rank:05d}.{number}"

    def snapshots(self, rank: int) -> list[Snapshot]:
        """Return the rank's whole snapshots, newest first."""
        found = [snapshot for path in self.buffers(rank) if (snapshot := peek(path)) is not None]
        return sorted(found, key=lambda snapshot: snapshot.sequence, reverse=True)

    def remove(self, rank: int) -> None:
        """Unlink the rank's buffers; whoever has them mapped keeps what they see until they let go."""
        for path in [*self.buffers(rank), self.path / f"rank-{rank:05d}.writer"]:
            path.unlink(missing_ok=True)

    def leave(self, *, keep: bool = True) -> None:
        """Let go of the folder. ``keep=False``: the last one out removes it, with everything in it."""
        if self.lock is None:
            return
        if not keep and _is_alone(self.lock):
            _discard(self.path)
        os.close(self.lock)
        self.lock = None

    def _buffers(self) -> Iterator[tuple[re.Match[str], Path]]:
        for path in self.path.iterdir():
            if match := _BUFFER.fullmatch(path.name):
                yield match, path


def sweep(base: Path = SHARED_MEMORY) -> list[str]:
    """Remove the folders of this user's jobs that nobody uses any more, and return the jobs' names.

    Enter your own job's folder first: what it left in memory, when all of it was killed, is then kept.
    """
    swept = []
    for path in base.glob(f"{_prefix()}*"):
        try:
            if path.name.startswith(_prefix() + _GONE):  # whoever was to remove it may have been killed
                _see_ours(path)
                shutil.rmtree(path, ignore_errors=True)
                continue
            lock = _open_lock(path, make=False)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # who has made it was killed before it had a lock
                path.rmdir()
            continue
        except (OSError, CheckpointError):
            continue  # not ours
        try:
            if _is_alone(lock):
                _discard(path)
                swept.append(path.name.removeprefix(_prefix()))
        finally:
            os.close(lock)
    return sorted(swept)


class Buffer:
    """One buffer, mapped for its writer."""

    def __init__(self, path: Path, image_bytes: int) -> None:
        """Map the buffer of ``path``, made anew unless it has room for ``image_bytes`` already.

        All of its memory is taken here, so that a write never meets a full /dev/shm, which would be a
        SIGBUS. Raises CheckpointError when it is full.
        """
        self.path = path
        self.image_bytes = image_bytes
        size = HEADER_BYTES + image_bytes
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            if os.fstat(self._file).st_size != size:
                os.close(self._file)
                self._file = _allocated(path, size)
        except OSError as error:
            raise _no_room(path, size, error) from error
        try:
            self.map = mmap.mmap(self._file, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        except OSError as error:
            os.close(self._file)
            raise _no_room(path, size, error) from error

    @property
    def image(self) -> memoryview:
        return memoryview(self.map)[HEADER_BYTES:]

    def try_open(self) -> bool:
        """Declare the buffer torn, so that its image may be written; False while somebody reads it."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _SEQUENCE.pack_into(self.map, 0, 0)
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return True

    def commit(self, sequence: int, step: int, document: bytes) -> Snapshot:
        """Declare the image whole: it starts with ``document``, and all of it is written."""
        assert sequence > 0
        check = zlib.crc32(document)
        fields = _FIELDS.pack(_MAGIC, sequence, step, len(document), self.image_bytes, check)
        self.map[8 : 8 + len(fields) + _CHECK.size] = fields + _CHECK.pack(zlib.crc32(fields))
        _SEQUENCE.pack_into(self.map, 0, sequence)
        return Snapshot(
            path=self.path,
            sequence=sequence,
            step=step,
            document_bytes=len(document),
            image_bytes=self.image_bytes,
            document_crc32=check,
        )

    def close(self) -> None:
        """Unmap it. What others took of ``image`` keeps the memory until they let go of it."""
        with contextlib.suppress(BufferError):
            self.map.close()
        os.close(self._file)


def peek(path: Path) -> Snapshot | None:
    """Return the snapshot that the buffer holds now; None where it holds none that is whole."""
    try:
        with path.open("rb", buffering=0) as file:
            return _snapshot(path, file.read(HEADER_BYTES), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return None


class Hold:
    """Keeps a snapshot from being overwritten, for whoever reads it, until it is let go."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.file: int | None = None
        """The buffer, which nobody writes to; None: it is gone, or was let go."""
        with contextlib.suppress(FileNotFoundError):
            self.file = os.open(snapshot.path, os.O_RDONLY | os.O_NOFOLLOW)
            # A writer holds its lock for an instant, to see that nobody reads.
            fcntl.flock(self.file, fcntl.LOCK_SH)

    def let_go(self) -> None:
        """Let the snapshot be overwritten. Calling it again does nothing."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


@contextmanager
def reading(snapshot: Snapshot) -> Iterator[memoryview | None]:
    """Yield the image of ``snapshot``, which stays as it is within the block; None if it is gone.

    Its document has been checked against its checksum.
    """
    hold = Hold(snapshot)
    try:
        if hold.file is None:
            yield None
            return
        size = os.fstat(hold.file).st_size
        if _snapshot(snapshot.path, os.pread(hold.file, HEADER_BYTES, 0), size) != snapshot:
            yield None
            return
        # Private to us: nobody's snapshot changes when a reader writes into what it got.
        mapped = mmap.mmap(hold.file, size, access=mmap.ACCESS_COPY)
        with contextlib.suppress(OSError):  # an older kernel maps page by page
            mapped.madvise(_POPULATE_READ)
        image = memoryview(mapped)[HEADER_BYTES:]
        try:
            is_whole = zlib.crc32(image[: snapshot.document_bytes]) == snapshot.document_crc32
            yield image if is_whole else None
        finally:
            with contextlib.suppress(BufferError):  # a view of it lives on: the mapping goes with the view
                image.release()
                mapped.close()
    finally:
        hold.let_go()


def meta_of(snapshot: Snapshot, image: memoryview) -> dict[str, Any]:
    """Return the plain data that went with the state of a snapshot, of which this is the image."""
    meta: dict[str, Any] = json.loads(bytes(image[: snapshot.document_bytes]))[1][0]
    return meta


class Writer:
    """The right to write a rank's buffers: one process at a time, until it ends."""

    def __init__(self, folder: JobFolder, rank: int) -> None:
        """Raises CheckpointError while another process has it."""
        self.path = folder.path / f"rank-{rank:05d}.writer"
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            # A record lock, which children that a data loader forks do not inherit, as they would a flock.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise CheckpointError(
                f"the memory of rank {rank} in {folder.path} is written by another process",
                hint="let it end first: one process at a time is a rank",
            ) from error

    def close(self) -> None:
        os.close(self._file)


def _snapshot(path: Path, header: bytes, size: int) -> Snapshot | None:
    if len(header) < HEADER_BYTES:
        return None
    (sequence,) = _SEQUENCE.unpack_from(header)
    fields = header[8 : 8 + _FIELDS.size]
    (check,) = _CHECK.unpack_from(header, 8 + _FIELDS.size)
    magic, counted, step, document_bytes, image_bytes, crc32 = _FIELDS.unpack(fields)
    if sequence == 0 or sequence != counted or magic != _MAGIC or zlib.crc32(fields) != check:
        return None
    if size != HEADER_BYTES + image_bytes or document_bytes > image_bytes:
        return None
    return Snapshot(
        path=path,
        sequence=sequence,
        step=step,
        document_bytes=document_bytes,
        image_bytes=image_bytes,
        document_crc32=crc32,
    )


def _prefix() -> str:
    return f"artesian-{os.getuid()}-"


def _enter(path: Path) -> int | None:
    """Return the lock of the folder, held; None when the folder was swept while we came in."""
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700, parents=True)
        lock = _open_lock(path, make=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot make {path}: {error.strerror}") from error
    fcntl.flock(lock, fcntl.LOCK_SH)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock), (path / "lock").lstat()):
            return lock
    os.close(lock)
    return None


def _discard(path: Path) -> None:
    """Remove a folder of which we have the lock alone.

    At once, by another name first: who enters meanwhile gets a new one, and what is left when we are killed is swept.
    """
    gone = path.with_name(f"{_prefix()}{_GONE}{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        os.rename(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _open_lock(path: Path, *, make: bool) -> int:
    _see_ours(path)
    return os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if make else 0), 0o600)


def _see_ours(path: Path) -> None:
    """Raises CheckpointError where others could have put things there, OSError where there is nothing."""
    facts = path.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise CheckpointError(
            f"{path} should be a folder of user {os.getuid()} that nobody else may enter",
            hint="somebody else has taken the name: remove it, or name the job differently",
        )


def _is_alone(lock: int) -> bool:
    """Say whether nobody else holds the lock; whoever wants it next waits until ours is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _allocated(path: Path, size: int) -> int:
    """Return a new file of ``size`` bytes in the place of the old one, which its readers keep."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        os.close(file)
        path.unlink(missing_ok=True)
        raise
    return file


def _no_room(path: Path, size: int, error: OSError) -> CheckpointError:
    if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT):
        return CheckpointError(f"cannot make the buffer {path}: {error.strerror}")
    free = shutil.disk_usage(path.parent).free
    return CheckpointError(
        f"{path.parent.parent} has no room for a snapshot: it takes {size:,} bytes, and {free:,} are free",
        hint="make it larger (mount -o remount,size=..., docker run --shm-size ...), or save to storage only",
    )
