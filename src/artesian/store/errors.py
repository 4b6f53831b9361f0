"""Errors of the store.

::

    ArtesianError
    └── StoreError
        ├── JournalCorrupt       damaged where it cannot be mended: refused, with the position
        ├── JournalTooNew        whole, and written by an artesian that says what this one does not know
        ├── NotAJournal          a database, but somebody else's
        ├── UnstorableRecord     a record that would not come back as it went in (also a ValueError)
        └── StoreUnavailable     the file system, the database or another process stands in the way
            ├── JournalMissing   there is nothing to read yet
            └── LeaseLost        another process leads by now: what this one decided is not written

No error of a database library leaves the store.
"""

from pathlib import Path

from artesian.model.errors import ArtesianError


class StoreError(ArtesianError):
    """Base of the store's errors. ``path`` is the journal's file, None where no file is concerned.

    Where a journal is, ``place``, is its file, or the URL of its database without a password.
    """

    def __init__(self, message: str, *, hint: str | None = None, path: Path | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class JournalCorrupt(StoreError):  # noqa: N818 - reads as what it is
    """The journal is damaged in a place that recovery may not touch.

    ``seq`` is the first record that is not what was written; None where the file cannot even be opened.
    """

    def __init__(self, place: Path | str, actual: str, *, seq: int | None = None) -> None:
        if seq is None:
            intact = ""
        elif seq == 1:
            intact = "no record before it is left; "
        else:
            intact = f"records 1 to {seq - 1} are intact; "
        aside = "file aside with its -wal file" if isinstance(place, Path) else "database aside"
        super().__init__(
            f"{_where(place, seq)} is damaged: {actual}",
            hint=f"{intact}keep the damaged {aside}, and restore a backup or start a new journal",
            path=_file(place),
        )
        self.seq = seq


class JournalTooNew(StoreError):  # noqa: N818 - reads as what it is
    """A newer artesian wrote what this one does not know. ``seq`` is the record, None for the whole file."""

    def __init__(self, place: Path | str, actual: str, *, seq: int | None = None) -> None:
        super().__init__(
            f"{_where(place, seq)} needs another version of artesian: {actual}",
            hint="use the version that wrote it, or a later one; this one would misread it",
            path=_file(place),
        )
        self.seq = seq


class NotAJournal(StoreError):  # noqa: N818 - reads as what it is
    """A database is there that artesian did not make."""

    def __init__(self, place: Path | str, actual: str) -> None:
        kind = "file" if isinstance(place, Path) else "database"
        super().__init__(
            f"{place}: expected a journal of artesian, got {actual}",
            hint=f"name another {kind}; this one is left as it is",
            path=_file(place),
        )


class UnstorableRecord(StoreError, ValueError):  # noqa: N818 - reads as what it is
    """A record holds a value that cannot be written and read back unchanged. Nothing was written."""


class StoreUnavailable(StoreError):  # noqa: N818 - reads as what it is
    """The journal cannot be used now: an unwritable folder, a full disk, a lock held for too long.

    What the call was to write is not written; what was written before is safe. It may be tried again.
    """


class JournalMissing(StoreUnavailable):
    """There is no journal at this place, and the caller only wanted to read one."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"journal {path} does not exist",
            hint="it is made by the first command that writes, such as a submit",
            path=path,
        )


class LeaseLost(StoreUnavailable):
    """This process does not lead any more. Nothing was written, and it must carry nothing out."""

    def __init__(self, place: Path | str, actual: str) -> None:
        super().__init__(
            f"journal {place}: expected to lead, but {actual}",
            hint="nothing is lost: who leads now goes on from the journal",
            path=_file(place),
        )


def _where(place: Path | str, seq: int | None) -> str:
    return f"journal {place}" if seq is None else f"journal {place}: record {seq}"


def _file(place: Path | str) -> Path | None:
    return place if isinstance(place, Path) else None
