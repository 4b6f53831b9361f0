"""The seam: what a journal does, wherever it keeps its records.

Commands that submit or cancel append events and are gone; one driver reads what is new, adds what its
engines reported, lets the scheduler decide, and appends the plan, all in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from artesian.kernel.state import Record, State


class Transaction(Protocol):
    """Reads and appends during which nobody else appends. Only valid inside its ``with`` block."""

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record, own ones included; 0 when there is none."""
        ...

    def read(self, *, after: int) -> list[tuple[int, Record]]:
        """Return the records behind sequence number ``after``, own ones included, in order."""
        ...

    def append(self, records: Iterable[Record]) -> int:
        """Append ``records`` and return ``last_seq``. Durable once the ``with`` block is left."""
        ...


class Journal(Protocol):
    """Records in one order: sequence numbers 1, 2, 3, … without a gap. Raises StoreError subclasses only.

    An instance belongs to the thread that opened it.
    """

    @property
    def problems(self) -> list[str]:
        """What was found damaged and could be mended, as sentences for a person; also logged."""
        ...

    @property
    def last_seq(self) -> int:
        """Sequence number of the last record; 0 when there is none."""
        ...

    def append(self, records: Iterable[Record]) -> int:
        """Append ``records``, all or none, and return the last one's sequence number.

        Durable when it returns: neither a crash of the process nor of the machine loses them.
        """
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Return a transaction: committed when its block is left, undone when an exception leaves it."""
        ...

    def read(self, *, after: int = 0) -> Iterator[tuple[int, Record]]:
        """Yield what is behind ``after`` and was there when the reading began, each record verified.

        Holds neither a lock nor more than a few records. Raises ValueError when ``after`` is behind the
        last record, JournalCorrupt and JournalTooNew with the position of the record that is not read.
        """
        ...

    def load(self) -> tuple[State, int]:
        """Return the state after the last record, and that record's sequence number.

        Goes on from the newest snapshot that is whole, was saved by this version, and still stands at
        its place in the chain. Records before it are not looked at again: ``verify`` does that.
        """
        ...

    def save_snapshot(self, state: State, seq: int) -> None:
        """Save ``state``, which must be the one after record ``seq``. The last two are kept."""
        ...

    def verify(self) -> int:
        """Check every record and the file around it; return the number of records. Raises JournalCorrupt."""
        ...

    def close(self) -> None:
        """Let go of the journal. Calling it again does nothing."""
        ...
