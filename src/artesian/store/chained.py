"""What every journal does with its rows: verify the chain, load from the newest sound snapshot.

A journal on some database has only to say how rows are fetched and stored.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from artesian.store import chain, codec
from artesian.store.base import Transaction
from artesian.store.chain import START, Link, Row
from artesian.store.errors import JournalCorrupt, JournalTooNew, StoreError

if TYPE_CHECKING:  # numpy comes with them; only who loads a state pays for it
    from artesian.kernel.state import Record, State
    from artesian.store.snapshots import SnapshotRow

KEPT_OVER = 10_000
"""Jobs that are over and stay as they are in a loaded state, before they are packed: see ``kernel.archive``."""

_LOG = logging.getLogger(__name__)

PAGE = 100
"""Rows read at once: few enough that plans of a megabyte each still fit in memory."""


class ChainedJournal(ABC):
    """A ``Journal`` but for its storage."""

    def __init__(self, place: Path | str) -> None:
        self.place = place
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- storage ------------------------------------------------------------------------------------

    @abstractmethod
    def _end_link(self) -> Link:
        """Return the last place of the chain. Raises JournalCorrupt."""

    @abstractmethod
    def _page(self, after: Link, end: Link) -> list[Row]:
        """Return the next rows in order, at least one and at most PAGE. Raises JournalCorrupt."""

    @abstractmethod
    def _crc(self, seq: int) -> int | None:
        """Return the checksum of record ``seq``; None where it is missing."""

    @abstractmethod
    def _insert(self, rows: Sequence[Row]) -> None:
        """Store rows that continue the chain, inside of a transaction."""

    @abstractmethod
    def _snapshot_places(self) -> list[int]:
        """Return after which records there are snapshots, the newest first."""

    @abstractmethod
    def _snapshot_row(self, seq: int) -> SnapshotRow | None:
        """Return the snapshot after record ``seq``; None where there is none by now."""

    @abstractmethod
    def _replace_snapshots(self, row: SnapshotRow) -> None:
        """Store a snapshot in a transaction of its own, and keep only the last two."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Transaction]:
        """Return a transaction: committed when its block is left, undone when an exception leaves it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the journal. Calling it again does nothing."""

    # -- the journal --------------------------------------------------------------------------------

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record; 0 when there is none."""
        return self._end_link().seq

    def append(self, records: Iterable[Record]) -> int:
        """Append ``records``, all or none, durably, and return the last one's sequence number."""
        given = list(records)  # whatever makes them makes them before anybody has to wait
        with self.transaction() as transaction:
            return transaction.append(given)

    def read(self, *, after: int = 0) -> Iterator[tuple[int, Record]]:
        """Yield the records behind ``after`` in order, each verified; see ``Journal.read``."""
        end = self._end_link()
        return self._read(self._link(after, end), end)

    def load(self) -> tuple[State, int]:
        """Return the state after the last record, and that record's sequence number."""
        from artesian.kernel.collector import collector_paused
        from artesian.kernel.state import State

        end = self._end_link()
        with collector_paused():
            state, link = self._newest_snapshot(end) or (State(keeps_over=KEPT_OVER), START)
            for _, record in self._read(link, end):
                state.apply(record)
        return state, end.seq

    def save_snapshot(self, state: State, seq: int) -> None:
        """Save ``state``, which must be the one after record ``seq``. The last two are kept."""
        from artesian.store import snapshots

        if seq == 0:
            return  # nothing happened yet: there is no record to tie the snapshot to, and nothing to save
        self._replace_snapshots(snapshots.encode(state, self._link(seq, self._end_link())))

    def verify(self) -> int:
        """Check every record; return their number. Raises JournalCorrupt."""
        return sum(1 for _ in self.read())

    # -- reading ------------------------------------------------------------------------------------

    def _read(self, link: Link, end: Link) -> Iterator[tuple[int, Record]]:
        while link.seq < end.seq:
            for row in self._page(link, end):
                if (fault := chain.fault(row, link)) is not None:
                    raise JournalCorrupt(self.place, fault, seq=link.seq + 1)
                link = row.link
                try:
                    record = codec.decode(row.type, row.body)
                except codec.UnknownRecord as error:
                    # Its checksum is right: somebody wrote it so.
                    raise JournalTooNew(self.place, str(error), seq=row.seq) from error
                yield row.seq, record

    def _link(self, seq: int, end: Link) -> Link:
        """Return the place of record ``seq`` in the chain."""
        if seq == 0:
            return START
        if seq == end.seq:
            return end
        if not 0 < seq < end.seq:
            raise ValueError(f"journal {self.place}: expected a record from 0 to {end.seq}, got {seq}")
        crc = self._crc(seq)
        if crc is None:
            raise JournalCorrupt(self.place, "it is missing", seq=seq)
        return Link(seq, crc)

    def _newest_snapshot(self, end: Link) -> tuple[State, Link] | None:
        from artesian.store import snapshots

        try:
            places = self._snapshot_places()
        except JournalCorrupt as error:
            self._report(f"no snapshot is used: {error}")
            return None
        for seq in places:
            try:
                link = self._link(seq, end)
                row = self._snapshot_row(seq)
                state = None if row is None else snapshots.decode(row, link)
            except (snapshots.UnusableSnapshot, JournalCorrupt, ValueError) as error:
                self._report(f"the snapshot at record {seq} is not used: {error}")
            else:
                if state is not None:
                    return state, link
        return None

    def _report(self, problem: str) -> None:
        sentence = f"journal {self.place}: {problem}"
        if sentence not in self.problems:
            self.problems.append(sentence)
            _LOG.warning("%s", sentence)


class ChainedTransaction:
    """A ``Transaction`` of a ChainedJournal that has made sure that nobody else appends."""

    def __init__(self, journal: ChainedJournal, end: Link) -> None:
        self._journal = journal
        self.end = end
        self.is_open = True
        self.failure: StoreError | None = None
        """An append that failed half-way: whoever catches it inside the block cannot commit that half."""

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record, own ones included; 0 when there is none."""
        return self.end.seq

    def read(self, *, after: int) -> list[tuple[int, Record]]:
        """Return the records behind sequence number ``after``, own ones included, in order."""
        assert self.is_open
        return list(self._journal._read(self._journal._link(after, self.end), self.end))

    def append(self, records: Iterable[Record]) -> int:
        """Append ``records`` and return ``last_seq``. Durable once the ``with`` block is left."""
        assert self.is_open
        rows = chain.extend(self.end, records)
        if rows:
            try:
                self._journal._insert(rows)
            except StoreError as error:
                self.failure = error
                raise
            self.end = rows[-1].link
        return self.end.seq
