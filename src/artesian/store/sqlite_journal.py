"""The journal on SQLite: for one machine, with any number of processes on it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from artesian.store import chain
from artesian.store.chain import START, Link, Row
from artesian.store.chained import PAGE, ChainedJournal, ChainedTransaction
from artesian.store.errors import JournalCorrupt
from artesian.store.sqlite_file import SqliteFile, open_file

if TYPE_CHECKING:
    from artesian.store.snapshots import SnapshotRow

_COLUMNS = "seq, at_s, type, body, crc"


class SqliteJournal(ChainedJournal):
    """A ``Journal`` in one SQLite file, in WAL mode with ``synchronous = FULL``."""

    def __init__(self, file: SqliteFile) -> None:
        super().__init__(file.path)
        self._file = file

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, busy_timeout_s: float = 5.0) -> SqliteJournal:
        """Return the journal at ``path``; made with its folder if it is not there, migrated if it is older.

        A damaged last record is set aside in the quarantine table, with a sentence in ``problems``; a
        reader leaves it where it is and ends before it. ``busy_timeout_s`` is how long any call waits
        for other processes. Raises StoreError subclasses.
        """
        journal = cls(open_file(path, read_only=read_only, busy_timeout_s=busy_timeout_s))
        try:
            _, damage = journal._end()
            if damage is not None:
                if read_only:
                    journal._report(f"{damage}; it is not read")
                else:
                    with journal.transaction():
                        pass
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def path(self) -> Path:
        """The journal's main file."""
        return self._file.path

    @contextmanager
    def transaction(self) -> Iterator[ChainedTransaction]:
        """Return a transaction: committed when its block is left, undone when an exception leaves it."""
        with self._file.writing():
            end, damage = self._end()
            if damage is not None:
                self._set_aside(end, damage)
            transaction = ChainedTransaction(self, end)
            try:
                yield transaction
            finally:
                transaction.is_open = False
            if transaction.failure is not None:
                raise transaction.failure

    def verify(self) -> int:
        """Check every record and the file around it; return the number of records. Raises JournalCorrupt."""
        findings = [row[0] for row in self._file.execute("PRAGMA integrity_check(3)")]
        if findings != ["ok"]:
            raise JournalCorrupt(self.path, f"SQLite's check says: {'; '.join(map(str, findings))}")
        return super().verify()

    def close(self) -> None:
        """Let go of the journal. Calling it again does nothing."""
        self._file.close()

    # -- rows ---------------------------------------------------------------------------------------

    def _end_link(self) -> Link:
        return self._end()[0]

    def _page(self, after: Link, end: Link) -> list[Row]:
        sql = f"SELECT {_COLUMNS} FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"  # noqa: S608
        try:
            rows = self._file.execute(sql, (after.seq, end.seq, PAGE))
        except JournalCorrupt:
            # A page of the file is torn. Row by row the position shows.
            try:
                rows = self._file.execute(sql, (after.seq, end.seq, 1))
            except JournalCorrupt as error:
                raise JournalCorrupt(self.path, str(error.__cause__), seq=after.seq + 1) from error
        if not rows:
            raise JournalCorrupt(self.path, "it is missing", seq=after.seq + 1)
        return [Row._make(row) for row in rows]

    def _crc(self, seq: int) -> int | None:
        rows = self._file.execute("SELECT crc FROM records WHERE seq = ?", (seq,))
        return rows[0][0] if rows else None

    def _insert(self, rows: Sequence[Row]) -> None:
        self._file.insert("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)

    # -- snapshots ----------------------------------------------------------------------------------

    def _snapshot_places(self) -> list[int]:
        return [row[0] for row in self._file.execute("SELECT seq FROM snapshots ORDER BY seq DESC")]

    def _snapshot_row(self, seq: int) -> SnapshotRow | None:
        from artesian.store.snapshots import SnapshotRow

        found = self._file.execute(
            "SELECT seq, record_crc, version, body, crc FROM snapshots WHERE seq = ?", (seq,)
        )
        return SnapshotRow._make(found[0]) if found else None

    def _replace_snapshots(self, row: SnapshotRow) -> None:
        with self._file.writing():
            self._file.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)", row)
            self._file.execute(
                "DELETE FROM snapshots WHERE seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT 2)"
            )

    # -- the end, where a crash leaves its mark -----------------------------------------------------

    def _end(self) -> tuple[Link, str | None]:
        """Return the last sound place of the chain, and what is wrong with one record behind it.

        Only the last record may be wrong. Raises JournalCorrupt when the one before it is, too, or is
        missing: that is no torn end.
        """
        rows = [
            Row._make(row)
            for row in self._file.execute(f"SELECT {_COLUMNS} FROM records ORDER BY seq DESC LIMIT 3")  # noqa: S608
        ]
        if not rows:
            return START, None
        links = [*(row.link for row in rows), START]
        last = rows[0]
        if (fault := chain.fault(last, links[1])) is None:
            return last.link, None
        if last.seq != links[1].seq + 1:
            raise JournalCorrupt(self.path, fault, seq=links[1].seq + 1)
        if len(rows) > 1 and (earlier := chain.fault(rows[1], links[2])) is not None:
            raise JournalCorrupt(self.path, earlier, seq=rows[1].seq)
        return links[1], f"record {last.seq}, the last, is damaged: {fault}"

    def _set_aside(self, end: Link, damage: str) -> None:
        """Move what is behind ``end`` to the quarantine, with the snapshots that know of it."""
        self._file.execute(
            f"INSERT INTO quarantine (found_s, fault, {_COLUMNS}) SELECT ?, ?, {_COLUMNS} FROM records WHERE seq > ?",  # noqa: S608
            (time.time(), damage, end.seq),
        )
        self._file.execute("DELETE FROM records WHERE seq > ?", (end.seq,))
        self._file.execute("DELETE FROM snapshots WHERE seq > ?", (end.seq,))
        self._report(f"{damage}; it was moved to the quarantine table, the {end.seq} before it are kept")
