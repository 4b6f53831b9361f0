"""The store: the journal, which is the one truth, on disk. State = replay(journal).

``base``            the seam: what a journal does (Journal, Transaction)
``sqlite_journal``  the journal on SQLite, for one machine
``sqlite_file``     its file: made, opened, checked; SQLite's errors in our terms
``write_lock``      one writer at a time, checkpoints included
``chain``           the checksums that find a changed, missing or exchanged record
``codec``           records as bytes
``snapshots``       states as bytes: a shortcut for replay, never the truth
``migrations``      the schema in numbered steps
``layout``          the names of the files, in one place
``errors``          what can go wrong

Durable means: on the disk when ``append`` returns. A torn end costs what was never acknowledged, or
one record that is set aside and reported; damage anywhere else is refused with its position.
"""

from artesian.store.base import Journal, Transaction
from artesian.store.errors import (
    JournalCorrupt,
    JournalMissing,
    JournalTooNew,
    NotAJournal,
    StoreError,
    StoreUnavailable,
    UnstorableRecord,
)
from artesian.store.layout import journal_file
from artesian.store.sqlite_journal import SqliteJournal

__all__ = [
    "Journal",
    "JournalCorrupt",
    "JournalMissing",
    "JournalTooNew",
    "NotAJournal",
    "SqliteJournal",
    "StoreError",
    "StoreUnavailable",
    "Transaction",
    "UnstorableRecord",
    "journal_file",
]
