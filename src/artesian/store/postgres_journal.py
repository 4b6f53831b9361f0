"""The journal on PostgreSQL: for several servers, any number of processes on any number of machines.

Appends stand in line for the one row of ``head``: so sequence numbers have no gaps, and nobody ever
reads a record before the ones ahead of it. Readers take no lock. Each commit rings the bell
(``postgres_bell``). A journal opened with a ``fence`` only writes while its epoch leads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from artesian.store.chain import Link, Row
from artesian.store.chained import PAGE, ChainedJournal, ChainedTransaction
from artesian.store.errors import JournalCorrupt, LeaseLost
from artesian.store.migrations.postgres import migrate
from artesian.store.postgres_connection import PostgresConnection

if TYPE_CHECKING:
    from artesian.store.snapshots import SnapshotRow


class PostgresJournal(ChainedJournal):
    """A ``Journal`` in the schema ``artesian`` of a PostgreSQL database."""

    place: str

    def __init__(self, connection: PostgresConnection, fence: int | None) -> None:
        super().__init__(connection.place)
        self._connection = connection
        self._fence = fence

    @classmethod
    def open(cls, url: str, *, fence: int | None = None, busy_timeout_s: float = 5.0) -> PostgresJournal:
        """Return the journal in the database at ``url``; its schema is made or migrated if need be.

        With a ``fence``, an epoch of ``PostgresLease``, a transaction raises LeaseLost unless that epoch
        still leads, and nobody else comes to lead before the transaction is over. ``busy_timeout_s``
        is how long a call waits for other processes. A connection that is lost is made again at the next
        call. Raises StoreError subclasses.
        """
        connection = PostgresConnection(url, busy_timeout_s=busy_timeout_s)
        try:
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return cls(connection, fence)

    @contextmanager
    def transaction(self) -> Iterator[ChainedTransaction]:
        """Return a transaction: committed when its block is left, undone when an exception leaves it."""
        with self._connection.transaction("SELECT seq, crc FROM head FOR UPDATE") as rows:
            begin = self._head(rows)
            if self._fence is not None:
                self._check_fence(self._fence)
            transaction = ChainedTransaction(self, begin)
            try:
                yield transaction
            finally:
                transaction.is_open = False
            if transaction.failure is not None:
                raise transaction.failure
            if transaction.end != begin:
                self._connection.execute("UPDATE head SET seq = %s, crc = %s", transaction.end)
                self._connection.execute("NOTIFY artesian_journal")

    def verify(self) -> int:
        """Check every record and the end of the chain; return their number. Raises JournalCorrupt."""
        ((last,),) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM records")
        # In this order: what others append meanwhile moves the head only.
        if last > (head := self._end_link()).seq:
            raise JournalCorrupt(self.place, f"there is a record {last} behind the end", seq=head.seq + 1)
        return super().verify()

    def close(self) -> None:
        """Let go of the journal. Calling it again does nothing."""
        self._connection.close()

    def _check_fence(self, fence: int) -> None:
        # Whoever takes over changes the key ``epoch``, which has to wait for this lock; the leader's own
        # renewals, which do not touch the key, need not.
        if not self._connection.execute("SELECT 1 FROM lease WHERE epoch = %s FOR KEY SHARE", (fence,)):
            raise LeaseLost(self.place, f"epoch {fence} is over")

    # -- rows ---------------------------------------------------------------------------------------

    def _head(self, rows: list[tuple[int, int]]) -> Link:
        if len(rows) != 1:
            raise JournalCorrupt(self.place, f"expected one row in table head, got {len(rows)}")
        return Link._make(rows[0])

    def _end_link(self) -> Link:
        return self._head(self._connection.execute("SELECT seq, crc FROM head"))

    def _page(self, after: Link, end: Link) -> list[Row]:
        rows = self._connection.execute(
            "SELECT seq, at_s, type, body, crc FROM records WHERE seq > %s AND seq <= %s ORDER BY seq LIMIT %s",
            (after.seq, end.seq, PAGE),
        )
        if not rows:
            raise JournalCorrupt(self.place, "it is missing", seq=after.seq + 1)
        return [Row._make(row) for row in rows]

    def _crc(self, seq: int) -> int | None:
        rows = self._connection.execute("SELECT crc FROM records WHERE seq = %s", (seq,))
        return rows[0][0] if rows else None

    def _insert(self, rows: Sequence[Row]) -> None:
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._connection.execute(
            "INSERT INTO records SELECT * FROM"
            " unnest(%s::bigint[], %s::double precision[], %s::text[], %s::bytea[], %s::bigint[])",
            columns,
        )

    # -- snapshots ----------------------------------------------------------------------------------

    def _snapshot_places(self) -> list[int]:
        return [seq for (seq,) in self._connection.execute("SELECT seq FROM snapshots ORDER BY seq DESC")]

    def _snapshot_row(self, seq: int) -> SnapshotRow | None:
        from artesian.store.snapshots import SnapshotRow

        found = self._connection.execute(
            "SELECT seq, record_crc, version, body, crc FROM snapshots WHERE seq = %s", (seq,)
        )
        return SnapshotRow._make(found[0]) if found else None

    def _replace_snapshots(self, row: SnapshotRow) -> None:
        # Not in line with the appends: nobody has to wait for a large one.
        with self._connection.transaction("LOCK TABLE snapshots IN SHARE ROW EXCLUSIVE MODE"):
            self._connection.execute("DELETE FROM snapshots WHERE seq = %s", (row.seq,))
            self._connection.execute("INSERT INTO snapshots VALUES (%s, %s, %s, %s, %s)", row)
            self._connection.execute(
                "DELETE FROM snapshots WHERE seq NOT IN (SELECT seq FROM snapshots ORDER BY seq DESC LIMIT 2)"
            )
