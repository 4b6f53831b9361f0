"""Where tokens and the dashboard's sessions are kept: a file beside the journal, or the database that servers share.

Neither holds anything that lets somebody in: of a token an argon2 hash, of a session's cookie, which is random and
long, a SHA-256. What is in the journal may be shown, so they are not in there.
"""

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, Protocol

from artesian.model.views import TokenView
from artesian.store.opening import is_url

COLUMNS = ("id", "user", "role", "team", "created_s", "expires_s", "revoked_s", "note")
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS tokens (
  id TEXT PRIMARY KEY, hash TEXT NOT NULL, user TEXT NOT NULL, role TEXT NOT NULL, team TEXT,
  created_s REAL NOT NULL, expires_s REAL, revoked_s REAL, note TEXT NOT NULL) WITHOUT ROWID, STRICT""",
    """CREATE TABLE IF NOT EXISTS sessions (
  cookie_hash TEXT PRIMARY KEY, token_id TEXT NOT NULL REFERENCES tokens, begun_s REAL NOT NULL)
  WITHOUT ROWID, STRICT""",
)


class TokenStore(Protocol):
    """Keeps tokens and sessions. May be used from several threads. Raises StoreError where it cannot be reached."""

    is_remote: bool
    """Whether to ask it, for its ``stamp`` as well, takes longer than the event loop can wait."""

    def stamp(self) -> Hashable:
        """Return something that is another one when a token was made or revoked, or a session ended, by anybody."""
        ...

    def add(self, token: TokenView, hashed: str) -> None:
        """Keep a new token."""
        ...

    def revoke(self, id_: str, at_s: float) -> None:
        """Note that a token is worthless from a time on, unless it is already."""
        ...

    def all(self) -> tuple[TokenView, ...]:
        """Return the tokens, the oldest first."""
        ...

    def find(self, id_: str) -> tuple[TokenView, str] | None:
        """Return a token and its hash; None where there is none with this id."""
        ...

    def begin_session(self, cookie_hash: str, token_id: str, at_s: float, *, oldest_s: float) -> None:
        """Keep a session of a token, and forget those that began before ``oldest_s``."""
        ...

    def end_session(self, cookie_hash: str) -> None:
        """Forget a session."""
        ...

    def session(self, cookie_hash: str, *, oldest_s: float) -> TokenView | None:
        """Return the token of a session that began at ``oldest_s`` at the earliest."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def token_store(place: Path | str) -> TokenStore:
    """Return the store in a file, or in the PostgreSQL database of a URL. Raises StoreError."""
    if is_url(place):
        from artesian.server.postgres_tokens import PostgresTokenStore

        return PostgresTokenStore(str(place))
    return FileTokenStore(Path(place))


class SqlTokenStore(ABC):
    """A ``TokenStore`` in SQL, which says ``%s`` where a parameter stands; who makes one says how it is carried out.

    ``user`` is what its table calls the column of the user.
    """

    is_remote: bool

    def __init__(self, *, user: LiteralString) -> None:
        self._select: LiteralString = f"SELECT id, {user}, role, team, created_s, expires_s, revoked_s, note"

    @abstractmethod
    def _ask(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """Carry a statement out, and return its rows."""

    @abstractmethod
    def _change(self, query: LiteralString, *parameters: object) -> None:
        """Carry a statement out after which ``stamp`` is another one."""

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
        return tuple(map(_token_of, self._ask(self._select + " FROM tokens ORDER BY created_s, id")))

    def find(self, id_: str) -> tuple[TokenView, str] | None:
        """Return a token and its hash."""
        found = self._ask(self._select + ", hash FROM tokens WHERE id = %s", id_)
        return (_token_of(found[0][:-1]), str(found[0][-1])) if found else None

    def begin_session(self, cookie_hash: str, token_id: str, at_s: float, *, oldest_s: float) -> None:
        """Keep a session. Nobody can know its cookie yet, so that it is no change."""
        self._ask("DELETE FROM sessions WHERE begun_s < %s", oldest_s)
        self._ask("INSERT INTO sessions VALUES (%s, %s, %s)", cookie_hash, token_id, at_s)

    def end_session(self, cookie_hash: str) -> None:
        """Forget a session."""
        self._change("DELETE FROM sessions WHERE cookie_hash = %s", cookie_hash)

    def session(self, cookie_hash: str, *, oldest_s: float) -> TokenView | None:
        """Return the token of a session."""
        found = self._ask(
            self._select
            + " FROM sessions JOIN tokens ON id = token_id WHERE cookie_hash = %s AND begun_s >= %s",
            cookie_hash,
            oldest_s,
        )
        return _token_of(found[0]) if found else None


def _token_of(row: Sequence[object]) -> TokenView:
    return TokenView(**dict(zip(COLUMNS, row, strict=True)))  # type: ignore[arg-type]  # the tables have types


class FileTokenStore(SqlTokenStore):
    """Tokens and sessions in a SQLite file, mode 0600, which is made when the first token is."""

    is_remote = False

    def __init__(self, path: Path) -> None:
        super().__init__(user="user")
        self._path = path

    def stamp(self) -> Hashable:
        """Return when the file was changed, and its size; see ``TokenStore``."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return (status.st_mtime_ns, status.st_size)

    def add(self, token: TokenView, hashed: str) -> None:
        """Keep a new token, and make the file where there is none."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        super().add(token, hashed)

    def close(self) -> None:
        """Nothing is held open."""

    def _ask(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        if not self._path.exists():
            return []  # no token was ever made, and so there is no session either
        with self._connection() as connection:
            return connection.execute(query.replace("%s", "?"), parameters).fetchall()

    def _change(self, query: LiteralString, *parameters: object) -> None:
        self._ask(query, *parameters)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """Open the file, in a transaction."""
        connection = sqlite3.connect(self._path, timeout=5.0)
        try:
            # Not WAL: every commit is to change the file itself, by which other processes see it.
            connection.execute("PRAGMA synchronous = FULL")
            for statement in _SCHEMA:
                connection.execute(statement)
            with connection:
                yield connection
        finally:
            connection.close()
