"""The bell by which commands wake the daemon, and the lock by which they know that only one lives."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path


class Bell:
    """The daemon's end of the FIFO; see ``StateDir.bell``."""

    def __init__(self, path: Path) -> None:
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        # For reading *and* writing: so it never comes to its end when a writer closes.
        self.fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def answer(self) -> None:
        """Take out what was rung."""
        with suppress(BlockingIOError):
            while os.read(self.fd, 4096):
                pass

    def close(self) -> None:
        """From here on, whoever rings hears that nobody is there."""
        os.close(self.fd)


def ring(path: Path) -> bool:
    """Wake the daemon behind the bell; False where there is none."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # no bell, or nobody who reads it
        return False
    try:
        os.write(fd, b"!")
    except BlockingIOError:
        return True  # so many rings wait already that this one is not missed
    except BrokenPipeError:
        return False
    finally:
        os.close(fd)
    return True


def lock(path: Path, wait_s: float) -> int | None:
    """Return the lock's descriptor, to be kept for life; None where another daemon has it for longer."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                os.close(fd)
                return None
            time.sleep(0.02)  # the old one is about to leave, or another one was started with us
        else:
            os.truncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd
