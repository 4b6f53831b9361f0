"""A connection to PostgreSQL: settings that durability and failover rest on, errors in our terms.

The URL has no password. libpq finds it in ``PGPASSWORD``, in ``~/.pgpass``, or in the file that the URL
names (``?passfile=/path``, mode 0600): so it is in no argument, log or error.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

from artesian.store.errors import JournalCorrupt, StoreError, StoreUnavailable

if TYPE_CHECKING:  # imported when it is used: only who keeps the state in PostgreSQL has it installed
    import psycopg
    from psycopg import sql

SCHEMA = "artesian"
"""The schema that holds all of our tables, so that a database may be shared with others."""

TRANSACTION_LIMIT_S = 10.0
"""How long a process may stand still inside a transaction before the database ends it.

A writer that is paused or cut off would otherwise keep all others waiting, also who wants to lead.
"""

_CONNECT_TIMEOUT_S = 5
_SILENCE_S = 5
"""After so long without an answer a peer counts as gone."""

_PREPARE = f"""
    SET search_path TO {SCHEMA};
    SET client_min_messages TO warning;
    SET idle_in_transaction_session_timeout TO {int(TRANSACTION_LIMIT_S * 1000)};
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local')
"""

_LOGIN = "check the user's name, ~/.pgpass or PGPASSWORD, and the server's pg_hba.conf"
_CREATE = "create the database first: createdb NAME"

_HINTS = {
    "25P03": "the process stood still inside a transaction; nothing of it was written",
    "42501": "give the user the right to create and use the schema artesian in this database",
    "53": "the server is out of space, memory or connections; free some, then try again",
    "55P03": "another process holds the journal for long; see pg_stat_activity",
}


class PostgresConnection:
    """A connection that is made again at the next call after it was lost. Raises StoreError subclasses.

    Every statement is a transaction of its own, but for those in ``transaction``.
    """

    def __init__(self, url: str, *, busy_timeout_s: float) -> None:
        self._conninfo, self.place = _parsed(url)
        self._busy_timeout_s = busy_timeout_s
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._is_closed = False
        self._is_busy = False

    def execute(
        self, query: LiteralString | sql.Composed, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows. Of several, without parameters, return the last one's."""
        with self.translated():
            cursor = self.connected().execute(query, parameters or None)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def transaction(self, begin: LiteralString) -> Iterator[list[tuple[Any, ...]]]:
        """Hold a transaction that starts with ``BEGIN; begin``, and give that statement's rows.

        Committed at the end of the block, undone by an exception. A connection that is lost in it is an
        error: what was to be written is not, or, where the commit's answer was lost, may be.
        """
        is_busy = self._is_busy
        assert not is_busy, "one transaction at a time"
        self._is_busy = True
        try:
            with self.translated():
                self.connected()
            yield self.execute(f"BEGIN; {begin}")
            self.execute("COMMIT")
        except BaseException:
            self._undo()
            raise
        finally:
            self._is_busy = False

    def connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return the connection, made if there is none. Raises psycopg.Error: call it in ``translated``."""
        if self._is_closed:
            raise StoreError(f"journal {self.place} is closed")
        if self._connection is None or self._connection.closed:
            self._connection = self.another()
            self._connection.autocommit = True
        return self._connection

    def another(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection with the same settings. Raises psycopg.Error."""
        import psycopg

        connection = psycopg.connect(self._conninfo, autocommit=True)
        try:
            connection.execute(_PREPARE)
            connection.execute(
                "SELECT set_config('lock_timeout', %s, false)",
                (f"{max(1, int(self._busy_timeout_s * 1000))}",),
            )
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn psycopg's errors into the store's."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise _translated(error, self.place) from error

    def close(self) -> None:
        """Let go of the connection, for good. Calling it again does nothing."""
        self._is_closed = True
        self._drop()

    def _undo(self) -> None:
        connection = self._connection
        if connection is None or connection.closed:
            return
        try:
            connection.execute("ROLLBACK")
        except Exception:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None


def _parsed(url: str) -> tuple[str, str]:
    """Return what to connect with, and what to call the place. Raises StoreError."""
    try:
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    except ImportError as error:
        raise StoreError(
            f"the journal's URL needs psycopg, which is not installed: {error}",
            hint="pip install 'artesian[postgres]'",
        ) from error
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error as error:
        # Not the library's own words: they may quote the URL, and with it a password.
        raise StoreError(
            "the journal's URL cannot be read", hint="write it like postgresql://user@host:5432/database"
        ) from error
    host, port, user, name = (str(given.get(key) or "") for key in ("host", "port", "user", "dbname"))
    place = f"postgresql://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}/{name}"
    if given.get("password") is not None:
        raise StoreError(
            f"journal {place}: the URL has a password in it",
            hint="take it out; put it in ~/.pgpass, in PGPASSWORD, or in a file of mode 0600 named by ?passfile=",
        )
    if (passfile := given.get("passfile")) is not None:
        _check_private(Path(str(passfile)), place)
    defaults: dict[str, Any] = {
        "application_name": "artesian",
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "keepalives_idle": _SILENCE_S,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": _SILENCE_S * 1000,
    }
    return make_conninfo(**{**defaults, **given}), place


def _check_private(passfile: Path, place: str) -> None:
    try:
        mode = stat.S_IMODE(passfile.stat().st_mode)
    except OSError as error:
        raise StoreUnavailable(
            f"journal {place}: passfile {passfile} cannot be read: {error.strerror}",
            hint="a line of it is host:port:database:user:password",
        ) from error
    if mode & 0o077:
        raise StoreError(
            f"journal {place}: passfile {passfile}: expected mode 0600, got {mode:04o}",
            hint=f"chmod 600 {passfile}",
        )


_CONNECT_HINTS = {
    "password": _LOGIN,
    "authentication": _LOGIN,
    "pg_hba.conf": _LOGIN,
    "does not exist": _CREATE,
}
"""Who is not let in gets no code, only words."""


def _translated(error: psycopg.Error, place: str) -> StoreError:
    import psycopg

    code = error.sqlstate or ""
    said = str(error.diag.message_primary or error).strip().splitlines()
    text = f"journal {place} cannot be used: {said[0] if said else type(error).__name__}"
    if code.startswith("XX"):
        return JournalCorrupt(place, f"PostgreSQL says: {text}")
    hint = next((hint for begin, hint in _HINTS.items() if code.startswith(begin)), None)
    if hint is None and not code:
        hint = next((hint for word, hint in _CONNECT_HINTS.items() if word in text), None)
    if hint is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        hint = "check that the server runs and can be reached; what was written before is safe"
    return StoreUnavailable(text, hint=hint) if hint else StoreError(text)
