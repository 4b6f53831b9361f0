"""Errors of traces: every one names the file, and the row and column where there is one.

::

    ArtesianError
    └── TraceError
        ├── UnreadableTrace    no such file, no permission, not UTF-8, not CSV, not JSON
        ├── UnknownFormat      a file that no reader knows, or a format that there is not
        ├── MissingColumn      a header without a column that the format needs
        ├── BadCell            a value that cannot be what its column says
        ├── TooLarge        more rows than were asked to be held in memory
        ├── MissingOption      a trace that leaves open what the caller has to say
        └── BadDocument        a YAML file with mistakes: all of them

A row is a line of the file, counted from 1, so that an editor finds it: the header is row 1.
"""

from collections.abc import Iterable
from pathlib import Path

from artesian.model.document import DocumentError, Mistake
from artesian.model.errors import ArtesianError


class TraceError(ArtesianError):
    """Base of what goes wrong with a trace. ``row`` counts lines from 1; None where no single one is meant."""

    def __init__(
        self,
        path: Path,
        text: str,
        *,
        row: int | None = None,
        column: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = str(path)
        if row is not None:
            where += f": row {row}"
        if column is not None:
            where += f", column {column}" if row is not None else f": column {column}"
        super().__init__(f"{where}: {text}", hint=hint)
        self.path = path
        self.row = row
        self.column = column


class UnreadableTrace(TraceError):  # noqa: N818 - reads as what it is
    """The file cannot be opened, or is not of the kind that it should be."""


class UnknownFormat(TraceError):  # noqa: N818 - reads as what it is
    """No reader knows the file, or the name of a format. ``known`` has the names that there are."""

    def __init__(self, path: Path, text: str, *, known: Iterable[str], hint: str | None = None) -> None:
        self.known = tuple(known)
        names = f"known formats: {', '.join(self.known)}"
        super().__init__(path, text, hint=f"{hint}; {names}" if hint else names)


class MissingColumn(TraceError):  # noqa: N818 - reads as what it is
    """The header lacks a column."""


class BadCell(TraceError):  # noqa: N818 - reads as what it is
    """A value cannot be what its column says."""


class TooLarge(TraceError):  # noqa: N818 - reads as what it is
    """The trace has more jobs, nodes or hours than a reading holds in memory."""


class MissingOption(TraceError):  # noqa: N818 - reads as what it is
    """The trace leaves open what only the caller can say."""


class BadDocument(TraceError):  # noqa: N818 - reads as what it is
    """A YAML file with mistakes. ``mistakes`` has every one, in the order of lines."""

    def __init__(self, path: Path, error: DocumentError) -> None:
        super().__init__(path, "expected a trace in YAML, got mistakes in it", hint=error.hint)
        self.args = (str(error),)  # it names file, line and column of each mistake already
        self.mistakes: tuple[Mistake, ...] = error.mistakes
        self.row = error.mistakes[0].at.line
        self.column = error.mistakes[0].subject
