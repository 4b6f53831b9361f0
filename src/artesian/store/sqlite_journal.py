"""The journal on SQLite: for one machine, with any number of processes on it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from artesian.store import chain, codec
from artesian.store.chain import START, Link, Row
from artesian.store.errors import JournalCorrupt, JournalTooNew, StoreError
from artesian.store.sqlite_file import SqliteFile, open_file

if TYPE_CHECKING:  # numpy comes with them; only who loads a state pays for it
    from artesian.kernel.collector import collector_paused
from artesian.kernel.state import Record, State

_LOG = logging.getLogger(__name__)

_PAGE = 100
"""Rows read at once: few enough that plans of a megabyte each still fit in memory."""

_COLUMNS = "seq, at_s, type, body, crc"


class SqliteJournal:
    """A ``Journal`` in one SQLite file, in WAL mode with ``synchronous = FULL``."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self.problems: list[str] = []

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

    def __enter__(self) -> SqliteJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The journal's main file."""
        return self._file.path

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record; 0 when there is none."""
        return self._end()[0].seq

    def append(self, records: Iterable[Record]) -> int:
        """Append ``records``, all or none, durably, and return the last one's sequence number."""
        given = list(records)  # whatever makes them makes them before anybody has to wait
        with self.transaction() as transaction:
            return transaction.append(given)

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        """Return a transaction: committed when its block is left, undone when an exception leaves it."""
        with self._file.writing():
            end, damage = self._end()
            if damage is not None:
                self._set_aside(end, damage)
            transaction = SqliteTransaction(self, end)
            try:
                yield transaction
            finally:
                transaction.is_open = False
            if transaction.failure is not None:
                raise transaction.failure

    def read(self, *, after: int = 0) -> Iterator[tuple[int, Record]]:
        """Yield the records behind ``after`` in order, each verified; see ``Journal.read``."""
        end, _ = self._end()
        return self._read(self._link(after, end), end)

    def load(self) -> tuple[State, int]:
        """Return the state after the last record, and that record's sequence number."""
        from artesian.kernel.state import State

        end, _ = self._end()
        with collector_paused():
            state, link = self._newest_snapshot(end) or (State(), START)
            for _, record in self._read(link, end):
                state.apply(record)
        return state, end.seq

    def save_snapshot(self, state: State, seq: int) -> None:
        """Save ``state``, which must be the one after record ``seq``. The last two are kept."""
        from artesian.store import snapshots

        if seq == 0:
            return  # nothing happened yet: there is no record to tie the snapshot to, and nothing to save
        row = snapshots.encode(state, self._link(seq, self._end()[0]))
        with self._file.writing():
            self._file.execute("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?)", row)
            self._file.execute(
                "DELETE FROM snapshots WHERE seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT 2)"
            )

    def verify(self) -> int:
        """Check every record and the file around it; return the number of records. Raises JournalCorrupt."""
        findings = [row[0] for row in self._file.execute("PRAGMA integrity_check(3)")]
        if findings != ["ok"]:
            raise JournalCorrupt(self.path, f"SQLite's check says: {'; '.join(map(str, findings))}")
        return sum(1 for _ in self.read())

    def close(self) -> None:
        """Let go of the journal. Calling it again does nothing."""
        self._file.close()

    # -- reading ------------------------------------------------------------------------------------

    def _read(self, link: Link, end: Link) -> Iterator[tuple[int, Record]]:
        while link.seq < end.seq:
            for row in self._page(link, end):
                if (fault := chain.fault(row, link)) is not None:
                    raise JournalCorrupt(self.path, fault, seq=link.seq + 1)
                link = row.link
                try:
                    record = codec.decode(row.type, row.body)
                except codec.UnknownRecord as error:
                    # Its checksum is right: somebody wrote it so.
                    raise JournalTooNew(self.path, str(error), seq=row.seq) from error
                yield row.seq, record

    def _page(self, after: Link, end: Link) -> list[Row]:
        """Return the next rows, at least one."""
        sql = f"SELECT {_COLUMNS} FROM records WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"  # noqa: S608
        try:
            rows = self._file.execute(sql, (after.seq, end.seq, _PAGE))
        except JournalCorrupt:
            # A page of the file is torn. Row by row the position shows.
            try:
                rows = self._file.execute(sql, (after.seq, end.seq, 1))
            except JournalCorrupt as error:
                raise JournalCorrupt(self.path, str(error.__cause__), seq=after.seq + 1) from error
        if not rows:
            raise JournalCorrupt(self.path, "it is missing", seq=after.seq + 1)
        return [Row._make(row) for row in rows]

    def _link(self, seq: int, end: Link) -> Link:
        """Return the place of record ``seq`` in the chain."""
        if seq == 0:
            return START
        if not 0 < seq <= end.seq:
            raise ValueError(f"journal {self.path}: expected a record from 0 to {end.seq}, got {seq}")
        rows = self._file.execute("SELECT seq, crc FROM records WHERE seq = ?", (seq,))
        if not rows:
            raise JournalCorrupt(self.path, "it is missing", seq=seq)
        return Link._make(rows[0])

    def _newest_snapshot(self, end: Link) -> tuple[State, Link] | None:
        from artesian.store.snapshots import UnusableSnapshot

        try:
            places = [row[0] for row in self._file.execute("SELECT seq FROM snapshots ORDER BY seq DESC")]
        except JournalCorrupt as error:
            self._report(f"no snapshot is used: {error}")
            return None
        for seq in places:
            try:
                link = self._link(seq, end)
                state = self._snapshot(link)
            except (UnusableSnapshot, JournalCorrupt, ValueError) as error:
                self._report(f"the snapshot at record {seq} is not used: {error}")
            else:
                if state is not None:
                    return state, link
        return None

    def _snapshot(self, at: Link) -> State | None:
        """Return the state after the record at ``at``; None when no snapshot of this version is there."""
        from artesian.store import snapshots

        found = self._file.execute(
            "SELECT seq, record_crc, version, body, crc FROM snapshots WHERE seq = ?", (at.seq,)
        )
        if not found:
            return None  # replaced by a newer one since the list was read
        return snapshots.decode(snapshots.SnapshotRow._make(found[0]), at)

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

    def _report(self, problem: str) -> None:
        sentence = f"journal {self.path}: {problem}"
        if sentence not in self.problems:
            self.problems.append(sentence)
            _LOG.warning("%s", sentence)


class SqliteTransaction:
    """A ``Transaction`` of a SqliteJournal."""

    def __init__(self, journal: SqliteJournal, end: Link) -> None:
        self._journal = journal
        self._end = end
        self.is_open = True
        self.failure: StoreError | None = None
        """An append that failed half-way: whoever catches it inside the block cannot commit that half."""

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record, own ones included; 0 when there is none."""
        return self._end.seq

    def read(self, *, after: int) -> list[tuple[int, Record]]:
        """Return the records behind sequence number ``after``, own ones included, in order."""
        assert self.is_open
        return list(self._journal._read(self._journal._link(after, self._end), self._end))

    def append(self, records: Iterable[Record]) -> int:
        """Append ``records`` and return ``last_seq``. Durable once the ``with`` block is left."""
        assert self.is_open
        rows = chain.extend(self._end, records)
        if rows:
            try:
                self._journal._file.insert("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
            except StoreError as error:
                self.failure = error
                raise
            self._end = rows[-1].link
        return self._end.seq
