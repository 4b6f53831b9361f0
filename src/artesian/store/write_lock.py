"""The lock of whoever writes a journal, beside SQLite's own.

SQLite before 3.51.3 can lose committed pages when one connection commits while another runs a checkpoint
(https://sqlite.org/wal.html#walresetbug), and most systems still carry such a version. A commit brings
its automatic checkpoint with it, so one lock around all of a write transaction keeps the two apart.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artesian.store.errors import StoreUnavailable

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.000_5, 0.02


class WriteLock:
    """A lock between processes. A process that dies gives it back."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock. Raises StoreUnavailable when others keep it for longer than the timeout."""
        self._acquire()
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _acquire(self) -> None:
        give_up_s = time.monotonic() + self._timeout_s
        wait_s = _FIRST_WAIT_S
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left_s = give_up_s - time.monotonic()
            except OSError as error:
                raise StoreUnavailable(
                    f"{self._path} cannot be locked: {error.strerror}",
                    hint="keep the journal on a file system that knows locks, such as a local disk",
                ) from error
            else:
                return
            if left_s <= 0:
                raise StoreUnavailable(
                    f"{self._path}: expected the lock within {self._timeout_s:g} s, another process still holds it",
                    hint="try again; `fuser` on this file shows the process that holds it",
                )
            time.sleep(min(wait_s, left_s))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
