"""Tokens and sessions in the PostgreSQL database that several servers share: made at one, good at all."""

import secrets
from collections.abc import Hashable
from threading import Lock
from typing import Any, LiteralString

from artesian.server.token_store import SqlTokenStore
from artesian.store.migrations.postgres import migrate
from artesian.store.postgres_connection import PostgresConnection

_CHANGE: LiteralString = "UPDATE token_changes SET number = number + 1"
_BUSY_S = 5.0


class PostgresTokenStore(SqlTokenStore):
    """A ``TokenStore`` on PostgreSQL. ``stamp`` is a number that every change raises, in its own transaction."""

    is_remote = True

    def __init__(self, url: str) -> None:
        super().__init__(user="user_name")
        self._lock = Lock()
        self._connection = PostgresConnection(url, busy_timeout_s=_BUSY_S)
        migrate(self._connection)

    def stamp(self) -> Hashable:
        """Return the number of changes."""
        number: int = self._ask("SELECT number FROM token_changes")[0][0]
        return number

    def signing_key(self) -> str:
        """Return the key that signs the sessions of single sign-on, made where there is none."""
        self._ask(
            "INSERT INTO secrets VALUES ('session', %s) ON CONFLICT DO NOTHING", secrets.token_urlsafe(32)
        )
        return str(self._ask("SELECT value FROM secrets WHERE name = 'session'")[0][0])

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._connection.close()

    def _ask(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, parameters)

    def _change(self, query: LiteralString, *parameters: object) -> None:
        with self._lock, self._connection.transaction(_CHANGE):
            self._connection.execute(query, parameters)
