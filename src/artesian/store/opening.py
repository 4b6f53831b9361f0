"""One way to open a journal, wherever it is."""

from pathlib import Path

from artesian.store.base import Journal
from artesian.store.sqlite_journal import SqliteJournal


def is_url(place: str | Path) -> bool:
    """Return whether the place of a journal is the URL of a database, rather than a file."""
    return str(place).startswith(("postgresql://", "postgres://"))


def open_journal(place: str | Path, *, busy_timeout_s: float = 5.0) -> Journal:
    """Return the journal at ``place``: the URL of a PostgreSQL database, or a file for SQLite.

    It is made where there is none. ``busy_timeout_s`` is how long any call waits for other processes.
    Raises StoreError subclasses.
    """
    if is_url(place):
        from artesian.store.postgres_journal import PostgresJournal

        return PostgresJournal.open(str(place), busy_timeout_s=busy_timeout_s)
    return SqliteJournal.open(Path(place), busy_timeout_s=busy_timeout_s)
