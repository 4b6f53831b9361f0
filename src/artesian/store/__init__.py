"""The store: the journal, which is the one truth, on disk. State = replay(journal).

``base``                 the seam: what a journal does (Journal, Transaction)
``opening``              opens one by its place: a file or a URL
``chained``              what every journal does with its rows, wherever it keeps them
``chain``                the checksums that find a changed, missing or exchanged record
``codec``                records as bytes
``snapshots``            states as bytes: a shortcut for replay, never the truth
``sqlite_journal``       the journal on SQLite, for one machine
``sqlite_file``          its file: made, opened, checked; SQLite's errors in our terms
``write_lock``           one writer at a time, checkpoints included
``layout``               the names of the files, in one place
``postgres_journal``     the journal on PostgreSQL, for several servers
``postgres_connection``  its connection: settings, passwords, PostgreSQL's errors in our terms
``postgres_bell``        tells that there is news
``postgres_lease``       one leader at a time, and never two
``migrations``           the schemas in numbered steps
``errors``               what can go wrong

Durable means: on the disk when ``append`` returns. A torn end costs what was never acknowledged, or
one record that is set aside and reported; damage anywhere else is refused with its position.
"""

from artesian.store.base import Journal, Transaction
from artesian.store.errors import (
    JournalCorrupt,
    JournalMissing,
    JournalTooNew,
    LeaseLost,
    NotAJournal,
    StoreError,
    StoreUnavailable,
    UnstorableRecord,
)
from artesian.store.layout import journal_file
from artesian.store.opening import is_url, open_journal
from artesian.store.sqlite_journal import SqliteJournal

__all__ = [
    "Journal",
    "JournalCorrupt",
    "JournalMissing",
    "JournalTooNew",
    "LeaseLost",
    "NotAJournal",
    "SqliteJournal",
    "StoreError",
    "StoreUnavailable",
    "Transaction",
    "UnstorableRecord",
    "is_url",
    "journal_file",
    "open_journal",
]
