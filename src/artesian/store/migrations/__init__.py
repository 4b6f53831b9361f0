"""The journal's schema, in numbered steps: one file per version, each ``upgrade`` from the one before.

A step that was released is never changed; a new one is added to ``STEPS``. The version is SQLite's
``user_version``; steps are applied in one transaction, so that a journal has a version or the next
one, and nothing between.
"""

import sqlite3
from collections.abc import Callable, Sequence

from artesian.store.migrations import v0001_records, v0002_snapshots

Step = Callable[[sqlite3.Connection], None]

STEPS: tuple[Step, ...] = (v0001_records.upgrade, v0002_snapshots.upgrade)
LATEST = len(STEPS)


def version(connection: sqlite3.Connection) -> int:
    """Return the version of the schema; 0 for a database without one."""
    number: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return number


def migrate(connection: sqlite3.Connection, steps: Sequence[Step] = STEPS) -> None:
    """Apply the steps that are missing. The caller holds the transaction, and undoes it if one fails."""
    assert connection.in_transaction
    for number in range(version(connection), len(steps)):
        steps[number](connection)
        connection.execute(f"PRAGMA user_version = {number + 1}")
