"""What a replica keeps its state in: journal, lease and bell of one place, a folder or a database."""

from typing import Protocol

from artesian.server.bell import Bell
from artesian.server.config import StateDir
from artesian.server.lease import FileLease, Lease
from artesian.store import Journal, SqliteJournal


class Ears(Protocol):
    """Something that becomes readable when there is news."""

    fd: int

    def answer(self) -> object:
        """Take in what was rung; true where leadership may be free. Raises StoreUnavailable when it is broken."""
        ...

    def close(self) -> None:
        """Listen no more."""
        ...


class Storage(Protocol):
    """Where the state of the control plane is. Raises StoreError subclasses."""

    place: str
    """What to call it: a file or a URL, for people."""

    def journal(self, *, fence: int | None = None) -> Journal:
        """Open the journal; with a ``fence``, one that only writes while that epoch leads."""
        ...

    def lease(self, holder: str) -> Lease:
        """Make a claim to lead, in the name of ``holder``."""
        ...

    def bell(self, *, is_leader: bool) -> Ears | None:
        """Listen for news; None where only the leader can, and this process is none."""
        ...


class SqliteStorage:
    """A state folder on this machine."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        self.place = str(state.journal)

    def journal(self, *, fence: int | None = None) -> Journal:  # noqa: ARG002 - see below
        """Open the journal. Nobody leads who does not have the lock, so there is nothing to fence."""
        return SqliteJournal.open(self._state.journal)

    def lease(self, holder: str) -> Lease:  # noqa: ARG002 - the lock file holds the pid
        """Make a claim to the lock of the folder, which the embedded daemon takes as well."""
        return FileLease(self._state.lock)

    def bell(self, *, is_leader: bool) -> Ears | None:
        """Listen at the FIFO: one process only, or they would take each other's rings."""
        return Bell(self._state.bell) if is_leader else None


class PostgresStorage:
    """A PostgreSQL database."""

    def __init__(self, url: str) -> None:
        from artesian.store.postgres_connection import PostgresConnection

        self._url = url
        self.place = PostgresConnection(url, busy_timeout_s=0).place

    def journal(self, *, fence: int | None = None) -> Journal:
        """Open the journal."""
        from artesian.store.postgres_journal import PostgresJournal

        return PostgresJournal.open(self._url, fence=fence)

    def lease(self, holder: str) -> Lease:
        """Make a claim to the row that says who leads."""
        from artesian.store.postgres_lease import PostgresLease

        return PostgresLease(self._url, holder)

    def bell(self, *, is_leader: bool) -> Ears | None:  # noqa: ARG002 - everybody can
        """Listen to what is committed, by whomever."""
        from artesian.store.postgres_bell import PostgresBell

        return PostgresBell(self._url)
