"""Tokens and sessions in the PostgreSQL database that several servers share: made at one, good at all."""

import secrets
from collections.abc import Hashable
from threading import Lock
from typing import Any, LiteralString

from artesian.model.views import TokenView
from artesian.server.token_store import token_of
from artesian.store.migrations.postgres import migrate
from artesian.store.postgres_connection import PostgresConnection

_SELECT: LiteralString = "SELECT id, user_name, role, team, created_s, expires_s, revoked_s, note"
_ALL: LiteralString = _SELECT + " FROM tokens ORDER BY created_s, id"
_ONE: LiteralString = _SELECT + ", hash FROM tokens WHERE id = %s"
_OF_SESSION: LiteralString = (
    _SELECT + " FROM sessions JOIN tokens ON id = token_id WHERE cookie_hash = %s AND begun_s >= %s"
)
_CHANGE: LiteralString = "UPDATE token_changes SET number = number + 1"
_BUSY_S = 5.0


class PostgresTokenStore:
    """A ``TokenStore`` on PostgreSQL. ``stamp`` is a number that every change raises, in its own transaction."""

    is_remote = True

    def __init__(self, url: str) -> None:
        self._lock = Lock()
        self._connection = PostgresConnection(url, busy_timeout_s=_BUSY_S)
        migrate(self._connection)

    def stamp(self) -> Hashable:
        """Return the number of changes."""
        number: int = self._ask("SELECT number FROM token_changes")[0][0]
        return number

    def add(self, token: TokenView, hashed: str) -> None:
        """Keep a new token."""
        self._change(
            "INSERT INTO tokens VALUES (%s, %s, %s, %s, %s, %s, %s, NULL, %s)",
            token.id,
            hashed,
            token.user,
            token.role,
            token.team,
            token.created_s,
            token.expires_s,
            token.note,
        )

    def revoke(self, id_: str, at_s: float) -> None:
        """Note that a token is worthless."""
        self._change("UPDATE tokens SET revoked_s = coalesce(revoked_s, %s) WHERE id = %s", at_s, id_)

    def all(self) -> tuple[TokenView, ...]:
        """Return the tokens."""
        return tuple(map(token_of, self._ask(_ALL)))

    def find(self, id_: str) -> tuple[TokenView, str] | None:
        """Return a token and its hash."""
        found = self._ask(_ONE, id_)
        return (token_of(found[0][:-1]), str(found[0][-1])) if found else None

    def begin_session(self, cookie_hash: str, token_id: str, at_s: float, *, oldest_s: float) -> None:
        """Keep a session. Nobody can know its cookie yet, so that it is no change."""
        self._ask("DELETE FROM sessions WHERE begun_s < %s", oldest_s)
        self._ask("INSERT INTO sessions VALUES (%s, %s, %s)", cookie_hash, token_id, at_s)

    def end_session(self, cookie_hash: str) -> None:
        """Forget a session."""
        self._change("DELETE FROM sessions WHERE cookie_hash = %s", cookie_hash)

    def session(self, cookie_hash: str, *, oldest_s: float) -> TokenView | None:
        """Return the token of a session."""
        found = self._ask(_OF_SESSION, cookie_hash, oldest_s)
        return token_of(found[0]) if found else None

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
