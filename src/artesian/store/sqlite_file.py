"""A journal's SQLite file: made whole or not at all, opened only when it is one, errors in our terms."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from artesian.store import layout, migrations
from artesian.store.errors import (
    JournalCorrupt,
    JournalMissing,
    JournalTooNew,
    NotAJournal,
    StoreError,
    StoreUnavailable,
)
from artesian.store.migrations.v0001_records import APPLICATION_ID
from artesian.store.write_lock import WriteLock

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space on the disk, then try again",
    sqlite3.SQLITE_BUSY: "another process holds the database; try again, or see with `fuser` which one",
    sqlite3.SQLITE_LOCKED: "another process holds the database; try again, or see with `fuser` which one",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and that you may write to it",
    sqlite3.SQLITE_READONLY: "check that you may write to the file and to its folder",
    sqlite3.SQLITE_PERM: "check that you may write to the file and to its folder",
    sqlite3.SQLITE_IOERR: "check the disk: the space left, your quota, and the system's log",
    sqlite3.SQLITE_PROTOCOL: "try again; keep the journal on a local disk, not on a network file system",
    sqlite3.SQLITE_NOMEM: "free some memory, then try again",
}


class SqliteFile:
    """An open journal file. Every call raises StoreError subclasses, and no sqlite3.Error."""

    def __init__(self, path: Path, *, read_only: bool, busy_timeout_s: float) -> None:
        self.path = path
        self.is_read_only = read_only
        self._lock: WriteLock | None = None
        try:
            if not read_only:
                self._lock = WriteLock(layout.lock_file(path), busy_timeout_s)
            self._connection = _connect(path, "ro" if read_only else "rw", busy_timeout_s)
        except OSError as error:
            raise _unusable(path, error) from error
        except sqlite3.Error as error:
            raise _translated(error, path) from error

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        """Run one statement and return its rows."""
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    def insert(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for every row."""
        try:
            self._connection.executemany(sql, rows)
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction in which nobody else writes: committed at the end, undone by an exception."""
        assert self._lock is not None, "a journal that was opened read_only is not written to"
        is_busy = self._connection.in_transaction
        assert not is_busy, "one transaction at a time"
        with self._lock.held():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk may have undone it already
                    self.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        with suppress(sqlite3.Error):  # what is committed is durable, whatever closing meets
            self._connection.close()
        if self._lock is not None:
            self._lock.close()


def open_file(path: Path, *, read_only: bool, busy_timeout_s: float) -> SqliteFile:
    """Return the journal at ``path``, made if it is not there (unless read_only), in the latest version.

    A journal of an older version is migrated even for a reader. Raises StoreError subclasses.
    """
    _find_or_create(path, read_only=read_only)
    file = SqliteFile(path, read_only=read_only, busy_timeout_s=busy_timeout_s)
    try:
        if _checked_version(file) == migrations.LATEST:
            return file
        if not read_only:
            _migrate(file)
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    open_file(path, read_only=False, busy_timeout_s=busy_timeout_s).close()
    return SqliteFile(path, read_only=True, busy_timeout_s=busy_timeout_s)


def _checked_version(file: SqliteFile) -> int:
    """Return the schema's version. Raises NotAJournal, JournalTooNew."""
    if file.execute("PRAGMA application_id")[0][0] != APPLICATION_ID:
        raise NotAJournal(file.path, "the database of another application")
    version: int = file.execute("PRAGMA user_version")[0][0]
    if version > migrations.LATEST:
        raise JournalTooNew(
            file.path, f"it has schema version {version}, known are versions up to {migrations.LATEST}"
        )
    return version


def _migrate(file: SqliteFile) -> None:
    with file.writing() as connection:
        try:
            migrations.migrate(connection)
        except sqlite3.Error as error:
            raise _translated(error, file.path) from error


def _find_or_create(path: Path, *, read_only: bool) -> None:
    try:
        # In this order: a -wal never precedes its file, so one without the other is no race.
        has_wal = layout.wal_file(path).exists()
        if path.exists():
            if path.stat().st_size == 0:
                raise JournalCorrupt(path, "the file is empty; a journal never is")
        elif has_wal:
            raise JournalCorrupt(path, "the file is gone, its -wal is still there")
        elif read_only:
            raise JournalMissing(path)
        else:
            _create(path)
    except OSError as error:
        raise _unusable(path, error) from error
    except sqlite3.Error as error:
        raise _translated(error, path) from error


def _create(path: Path) -> None:
    """Make the journal under another name and then give it its own, so that nobody finds half of one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
    os.close(fd)
    try:
        connection = _connect(Path(name), "rw", 0)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            migrations.migrate(connection)
            connection.execute("COMMIT")
        finally:
            connection.close()
        with suppress(FileExistsError):  # another process was first: its journal is as good
            os.link(name, path)
    finally:
        os.unlink(name)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _connect(path: Path, mode: str, busy_timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=busy_timeout_s, isolation_level=None
    )
    # Every commit reaches the disk before it is acknowledged; WAL's default would only promise order.
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _unusable(path: Path, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"journal {path} cannot be used: {error.strerror or error}",
        hint="check that its folder can be made, that you may write to it, and that the disk has space",
        path=path,
    )


def _translated(error: sqlite3.Error, path: Path) -> StoreError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extension
    if code in _DAMAGED:
        return JournalCorrupt(path, f"SQLite says: {error}")
    if code in _ADVICE:
        return StoreUnavailable(f"journal {path} cannot be used: {error}", hint=_ADVICE[code], path=path)
    return StoreError(f"journal {path}: {error}", path=path)
