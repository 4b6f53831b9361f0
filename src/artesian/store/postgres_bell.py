"""The bell on PostgreSQL: LISTEN. It rings when somebody appended, or gave leadership back."""

from __future__ import annotations

from artesian.store.errors import StoreUnavailable
from artesian.store.postgres_connection import PostgresConnection

JOURNAL, LEASE = "artesian_journal", "artesian_lease"


class PostgresBell:
    """A connection that listens: ``fd`` becomes readable when there is news, or the connection is gone."""

    def __init__(self, url: str) -> None:
        self._connection = PostgresConnection(url, busy_timeout_s=5.0)
        try:
            with self._connection.translated():
                raw = self._connection.connected()
                raw.execute(f"LISTEN {JOURNAL}; LISTEN {LEASE}")
                self.fd: int = raw.fileno()
        except BaseException:
            self._connection.close()
            raise
        self._raw = raw

    def answer(self) -> bool:
        """Take in what was rung; return whether leadership was given back.

        Raises StoreUnavailable when the connection is gone: make another bell, and expect to have missed some.
        """
        with self._connection.translated():
            if self._raw.closed:
                raise StoreUnavailable(
                    f"journal {self._connection.place}: the connection that listens is lost"
                )
            channels = {notice.channel for notice in self._raw.notifies(timeout=0)}
            if not channels:
                self._raw.execute("SELECT 1")  # what was there to read may have been the connection's end
            return LEASE in channels

    def close(self) -> None:
        """Listen no more."""
        self._connection.close()
