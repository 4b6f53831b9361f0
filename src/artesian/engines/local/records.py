"""The files of an attempt as the engine reads them, and who of its processes is alive."""

import errno
import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artesian.engines.local import supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The supervisor that runs the attempt; ``pid`` is 0 where the engine fenced it off."""

    pid: int
    start_ticks: int
    boot_id: str

    @property
    def is_alive(self) -> bool:
        """Whether this very process runs: same pid, same start time, same boot."""
        found = supervisor.identity(self.pid) if self.pid else None
        return found == {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the command ended, as its supervisor wrote it down."""

    at_s: float
    exit_code: int | None = None
    signal: int | None = None
    is_oom_kill: bool = False
    was_stopped: bool = False
    start_error: str | None = None


class AttemptFolder:
    """The folder of one attempt."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stdout = path / "stdout.log"
        self.stderr = path / "stderr.log"
        self.progress = path / "progress"
        self.logs = path / "logs"
        """Output of the workers but the first."""

    def create(self) -> None:
        """Make the folder and the job's around it, for the user only. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.mkdir(exist_ok=True, mode=0o700)
        self.progress.mkdir(exist_ok=True, mode=0o700)
        self.logs.mkdir(exist_ok=True, mode=0o700)

    def claim(self) -> Claim | None:
        """Return who runs the attempt; None where nobody has claimed it.

        A claim that a power failure left without content names a process that cannot exist.
        """
        if not (self.path / supervisor.CLAIM).exists():
            return None
        record = self._read(supervisor.CLAIM) or {"pid": 0, "start_ticks": 0, "boot_id": ""}
        return Claim(**record)

    def fence(self) -> bool:
        """Claim the attempt for nobody: no supervisor can start it any more. False where one has it."""
        return supervisor.claim(str(self.path), {"pid": 0, "start_ticks": 0, "boot_id": ""})

    def started_s(self) -> float | None:
        """Return when the command started; None while it has not."""
        record = self._read(supervisor.STARTED)
        return None if record is None else float(record["at_s"])

    def ended(self) -> Ended | None:
        """Return how the command ended; None while nobody has written it down."""
        record = self._read(supervisor.ENDED)
        return None if record is None else Ended(**record)

    def request_stop(self, grace_s: float) -> None:
        """Leave the grace for the supervisor to find; the signal comes separately. Raises OSError."""
        write_whole(self.path / supervisor.STOP, str(grace_s).encode())

    def stop_grace_s(self) -> float | None:
        """Return the grace that was left for the supervisor; None where there is none, or half of one."""
        try:
            return float((self.path / supervisor.STOP).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def survivors(self) -> list[int]:
        """Return the processes that were started with this attempt's environment and are alive."""
        marker = f"ARTESIAN_PROGRESS_DIR={self.progress}".encode()
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    environment = Path(f"/proc/{name}/environ").read_bytes()
                except OSError:
                    continue  # gone, or another user's
                if marker in environment.split(b"\0") and supervisor.identity(int(name)) is not None:
                    found.append(int(name))
        return found

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = json.loads(read_regular(self.path / name))
        except (OSError, ValueError):
            return None
        return record


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, for the owner of its folder only; it is on the disk then. Raises OSError.

    The folder may be another user's, whose job runs there while we are root: whatever they put in the place of
    the file is replaced, and never followed or written to.
    """
    folder = os.stat(path.parent)
    private = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(private, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if folder.st_uid != os.geteuid():
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            os.fsync(descriptor)
        private.rename(path)
    except BaseException:
        private.unlink(missing_ok=True)
        raise


def read_regular(path: Path) -> bytes:
    """Return what is in a file. Raises OSError, also where a link or a pipe has its name: see ``write_whole``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        return file.read()
