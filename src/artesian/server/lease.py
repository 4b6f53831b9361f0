"""Leadership as the server sees it: claimed, kept by a thread of its own, given back.

On one machine it is the lock file that the embedded daemon holds as well; on PostgreSQL it is a row with an
epoch (``store.postgres_lease``), which fences what a former leader may still want to write.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from artesian.server.bell import lock
from artesian.store import LeaseLost, StoreError

_log = logging.getLogger(__name__)


class Lease(Protocol):
    """A process's claim to lead; see ``PostgresLease``."""

    @property
    def epoch(self) -> int | None:
        """The epoch in which this process leads; None where it does not."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether this process leads for sure."""
        ...

    def acquire(self) -> int | None:
        """Lead, if nobody does; return the epoch, None where another leads."""
        ...

    def renew(self) -> None:
        """Lead for another while. Raises LeaseLost."""
        ...

    def release(self) -> None:
        """Give leadership back."""
        ...

    def close(self) -> None:
        """Let go of everything, leadership included."""
        ...


class FileLease:
    """Leadership on one machine, for as long as the process lives: a lock that no pause takes away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    @property
    def epoch(self) -> int | None:
        """Always 1 while it leads: there is nothing to fence."""
        return None if self._fd is None else 1

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock."""
        return self._fd is not None

    def acquire(self) -> int | None:
        """Take the lock, if nobody has it."""
        assert self._fd is None
        self._fd = lock(self._path, 0.0)
        return self.epoch

    def renew(self) -> None:
        """Do nothing: a lock does not run out."""

    def release(self) -> None:
        """Give the lock back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def close(self) -> None:
        """Give the lock back."""
        self.release()


class Renewal:
    """Renews a lease every ``every_s`` seconds until ``stop``; calls ``lost`` once, from its thread, if that fails.

    A thread of its own: a long cycle of the scheduler is no reason to lose the lease.
    """

    def __init__(self, lease: Lease, lost: Callable[[], None], every_s: float = 1.0) -> None:
        self._lease = lease
        self._lost = lost
        self._every_s = every_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more. When this returns the lease is the caller's thread's to use."""
        self._is_over.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._is_over.wait(self._every_s):
            try:
                self._lease.renew()
            except LeaseLost as error:
                _log.warning("%s", error)
                self._lost()
                return
            except StoreError as error:
                _log.warning("the lease is not renewed: %s", error)
            if not self._lease.is_held:
                _log.warning("the lease has run out before it could be renewed")
                self._lost()
                return
