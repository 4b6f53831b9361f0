"""Snapshots of a large state, in a process of their own: ``python -m artesian.server.snapshotting PLACE``.

To encode 100,000 jobs takes a second in which a server could neither answer nor schedule. The process replays
the journal itself, from the last snapshot on: it needs nothing of the server, and checks the records on its way.
"""

import logging
import os
import subprocess
import sys

from artesian.kernel.state import State
from artesian.model.errors import ArtesianError
from artesian.server.config import database_of
from artesian.store import open_journal
from artesian.wire import environment as names

_AT_ONCE = 5_000
"""Up to so many jobs a snapshot takes less time than a process to start."""

_log = logging.getLogger(__name__)


class SnapshotProcess:
    """Saves snapshots of the journal at ``place``, one at a time. Its ``save`` is a driver's ``save_snapshot``."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._process: subprocess.Popen[bytes] | None = None

    def save(self, state: State, seq: int) -> None:
        """Have a snapshot saved, of record ``seq`` or a later one. Raises StoreError where it is done at once."""
        if len(state.jobs) <= _AT_ONCE:
            journal = open_journal(self._place)
            try:
                journal.save_snapshot(state, seq)
            finally:
                journal.close()
        elif self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "artesian.server.snapshotting", "-"],
                env={**os.environ, names.DATABASE: self._place},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait for the process, if there is one."""
        if self._process is not None:
            self._process.wait()


def main(argv: list[str]) -> int:
    """Save a snapshot of the journal at ``argv[0]``."""
    try:
        journal = open_journal(database_of(argv[0]))
        try:
            state, seq = journal.load()
            journal.save_snapshot(state, seq)
        finally:
            journal.close()
    except ArtesianError as error:
        _log.error("no snapshot: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    os.nice(10)  # whoever answers or schedules goes first
    sys.exit(main(sys.argv[1:]))
