"""Errors of the store.

::

    ArtesianError
    └── StoreError
        ├── JournalCorrupt       damaged where it cannot be mended: refused, with the position
        ├── JournalTooNew        whole, and written by an artesian that says what this one does not know
        ├── NotAJournal          a database, but somebody else's
        ├── UnstorableRecord     a record that would not come back as it went in (also a ValueError)
        └── StoreUnavailable     the file system or another process stands in the way
            └── JournalMissing   there is nothing to read yet

No error of the database library leaves the store.
"""

from pathlib import Path

from artesian.model.errors import ArtesianError


class StoreError(ArtesianError):
    """Base of the store's errors. ``path`` is the journal's file, None where no file is concerned."""

    def __init__(self, message: str, *, hint: str | None = None, path: Path | None = None) -> None:
        super().__init__(message, hint=hint)
        self.path = path


class JournalCorrupt(StoreError):  # noqa: N818 - reads as what it is
    """The journal is damaged in a place that recovery may not touch.

    ``seq`` is the first record that is not what was written; None where the file cannot even be opened.
    """

    def __init__(self, path: Path, actual: str, *, seq: int | None = None) -> None:
        where = f"journal {path}" if seq is None else f"journal {path}: record {seq}"
        if seq is None:
            intact = "keep the damaged file aside"
        elif seq == 1:
            intact = "no record before it is left; keep the damaged file aside"
        else:
            intact = f"records 1 to {seq - 1} are intact; keep the damaged file aside"
        super().__init__(
            f"{where} is damaged: {actual}",
            hint=f"{intact} with its -wal file, and restore a backup or start a new journal",
            path=path,
        )
        self.seq = seq


class JournalTooNew(StoreError):  # noqa: N818 - reads as what it is
    """A newer artesian wrote what this one does not know. ``seq`` is the record, None for the whole file."""

    def __init__(self, path: Path, actual: str, *, seq: int | None = None) -> None:
        where = f"journal {path}" if seq is None else f"journal {path}: record {seq}"
        super().__init__(
            f"{where} needs another version of artesian: {actual}",
            hint="use the version that wrote it, or a later one; this one would misread it",
            path=path,
        )
        self.seq = seq


class NotAJournal(StoreError):  # noqa: N818 - reads as what it is
    """The file is a database that artesian did not make."""

    def __init__(self, path: Path, actual: str) -> None:
        super().__init__(
            f"{path}: expected a journal of artesian, got {actual}",
            hint="name another file; this one is left as it is",
            path=path,
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
