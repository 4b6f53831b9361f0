"""Where the store's files are: the one place that knows their names.

Below the state directory (made with mode 0700, files with mode 0600)::

    journal.sqlite3        records, snapshots, and what was set aside as damaged
    journal.sqlite3-wal    SQLite's: transactions that are committed, and not yet in the main file
    journal.sqlite3-shm    SQLite's: an index of the -wal, rebuilt at need
    journal.sqlite3-lock   empty; whoever writes holds a lock on it

A copy of the journal is the first two together, taken while nobody writes.
"""

from pathlib import Path

JOURNAL = "journal.sqlite3"


def journal_file(state_dir: Path) -> Path:
    """Return the journal's file below ``state_dir``."""
    return state_dir / JOURNAL


def wal_file(journal: Path) -> Path:
    """Return the file of committed transactions that are not yet in ``journal`` itself."""
    return journal.with_name(f"{journal.name}-wal")


def lock_file(journal: Path) -> Path:
    """Return the file that whoever writes ``journal`` holds a lock on."""
    return journal.with_name(f"{journal.name}-lock")
