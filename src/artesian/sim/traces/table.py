"""Tables from CSV, row by row: typed cells, and for every row that is not taken a reason that is counted.

A table is read once, as a stream: ten million rows take no more memory than ten. Bytes are UTF-8, with
or without a byte order mark; lines end as they like; cells may be quoted. Empty lines are no rows.
"""

import csv
import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

from msgspec import Struct

from artesian.model.fields import MAX_COUNT, MAX_DURATION_S
from artesian.sim.traces.errors import BadCell, MissingColumn, UnreadableTrace

T = TypeVar("T")

_LONGEST = 60
_MOST_DIGITS = 30
_LAST_S = 2.0**33


class BadRows(StrEnum):
    """What to do with a row that cannot be right: a negative duration, a NaN, a missing cell."""

    REFUSE = "refuse"
    """Raise BadCell: nothing is taken from the file."""
    SKIP = "skip"
    """Leave the row out, and count it."""


class Skipped(Struct, frozen=True, kw_only=True, gc=False):
    """Rows that were left out for one reason. ``row`` is the first of them, ``column`` and ``actual``
    what was there; None where the reason is not about a single cell."""

    reason: str
    count: int
    row: int
    column: str | None = None
    actual: str | None = None

    def __str__(self) -> str:
        """One line: ``12 rows skipped: expected …, first in row 7, column duration: '-1'``."""
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        where = f"row {self.row}" if self.column is None else f"row {self.row}, column {self.column}"
        first = where if self.actual is None else f"{where}: {self.actual!r}"
        return f"{rows} skipped: {self.reason}, first in {first}"


class Tally:
    """Counts what is left out, by reason."""

    def __init__(self) -> None:
        self._skipped: dict[tuple[str, str | None], tuple[int, int, str | None]] = {}

    def add(self, reason: str, row: int, *, column: str | None = None, actual: str | None = None) -> None:
        """Count one more row for ``reason``; the first one is remembered."""
        key = (reason, column)
        count, first, shown = self._skipped.get(key, (0, row, actual))
        self._skipped[key] = (count + 1, first, shown)

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out, in the order in which the reasons came up."""
        return tuple(
            Skipped(reason=reason, count=count, row=row, column=column, actual=actual)
            for (reason, column), (count, row, actual) in self._skipped.items()
        )


class Refused(Exception):  # noqa: N818 - a row that cannot be right, caught by the table
    """A cell is not what its column asks for. ``expected`` names no value, so that reasons are few."""

    def __init__(self, column: str, expected: str, actual: str, hint: str | None = None) -> None:
        super().__init__(column, expected, actual)
        self.column = column
        self.expected = expected
        self.actual = actual if len(actual) <= _LONGEST else actual[: _LONGEST - 1] + "…"
        self.hint = hint


class PassedOver(Exception):  # noqa: N818 - a row that is right and not for us, caught by the table
    """A row is as it should be, and is no job of ours. ``reason`` says why."""

    def __init__(self, reason: str, column: str | None = None, actual: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.column = column
        self.actual = actual


class Row:
    """One row; ``number`` is its first line in the file."""

    __slots__ = ("_cells", "_index", "number")

    def __init__(self, number: int, cells: Sequence[str], index: dict[str, int]) -> None:
        self.number = number
        self._cells = cells
        self._index = index

    def has(self, column: str) -> bool:
        """Return whether the table has the column and the row something in it."""
        return column in self._index and bool(self._cells[self._index[column]].strip())

    def has_column(self, column: str) -> bool:
        """Return whether the table has the column."""
        return column in self._index

    def text(self, column: str) -> str:
        """Return the cell as it is, without white space around it. Raises Refused when it is empty."""
        text = self._cells[self._index[column]].strip()
        if not text:
            self.refuse(column, "a value")
        return text

    def count(self, column: str, *, least: int = 0, most: int = MAX_COUNT) -> int:
        """Return a whole number from ``least`` to ``most``. Raises Refused."""
        text = self._cells[self._index[column]].strip()
        is_number = text.isdigit() and text.isascii() and len(text) <= _MOST_DIGITS
        if not is_number or not least <= (value := int(text)) <= most:
            self.refuse(column, f"a whole number from {least} to {most}")
        return value

    def figure(self, column: str, *, least: float = 0.0, most: float = MAX_DURATION_S) -> float:
        """Return a finite number from ``least`` to ``most``. Raises Refused."""
        text = self._cells[self._index[column]]
        value = number(text)
        if value is None or not least <= value <= most:
            self.refuse(column, f"a number from {least:g} to {most:g}")
        return value

    def time_s(self, column: str) -> float:
        """Return a date and time from 1970 to 2242 as seconds since 1970, UTC unless it says otherwise.

        Raises Refused.
        """
        text = self._cells[self._index[column]].strip()
        try:
            at = datetime.fromisoformat(text)
            at_s = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            at_s = -1.0
        if not 0 <= at_s < _LAST_S:
            self.refuse(column, "a date and time since 1970, such as 2017-10-09 07:01:55")
        return at_s

    def new(self, column: str, value: T, seen: set[T]) -> T:
        """Return ``value``, and note it in ``seen``. Raises Refused when it is there already."""
        if value in seen:
            self.refuse(column, "a value that no row before has")
        seen.add(value)
        return value

    def refuse(self, column: str, expected: str, *, hint: str | None = None) -> NoReturn:
        """Raise Refused: the cell cannot be right."""
        position = self._index.get(column)
        raise Refused(column, f"expected {expected}", "" if position is None else self._cells[position], hint)

    def pass_over(self, reason: str, column: str | None = None) -> NoReturn:
        """Raise PassedOver: nothing is wrong with the row, but it is not one to take."""
        raise PassedOver(reason, column, None if column is None else self._cells[self._index[column]])


class Table:
    """A table in a file. ``rows`` reads it."""

    def __init__(
        self,
        path: Path,
        *,
        required: Sequence[str],
        optional: Sequence[str] | None = None,
        delimiter: str = ",",
        is_quoted: bool = True,
        any_of: Sequence[Sequence[Sequence[str]]] = (),
        bad_rows: BadRows = BadRows.REFUSE,
    ) -> None:
        """``any_of``: for each item, the columns of one of its groups must come. ``optional`` None: other columns may come and are not looked at; else they are refused."""
        self.path = path
        self.tally = Tally()
        self.bad_rows = bad_rows
        self._required = tuple(required)
        self._any_of = any_of
        self._optional = None if optional is None else tuple(optional)
        self._delimiter = delimiter
        self._quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if is_quoted else csv.QUOTE_NONE

    def rows(self, convert: Callable[[Row], T]) -> Iterator[tuple[int, T]]:
        """Yield row number and converted row, for every row that is taken; the others are in ``tally``.

        Raises TraceError: at once for a file or a header that cannot be read, at its row for a bad cell
        when bad rows are refused.
        """
        for row in self._rows():
            try:
                if isinstance(row, Refused):
                    raise row
                value = convert(row)
            except PassedOver as passed:
                self.tally.add(passed.reason, self._line, column=passed.column, actual=passed.actual)
                continue
            except Refused as refused:
                self._refused(refused)
                continue
            yield self._line, value

    def _refused(self, refused: Refused) -> None:
        if self.bad_rows is BadRows.SKIP:
            self.tally.add(refused.expected, self._line, column=refused.column, actual=refused.actual)
            return
        raise BadCell(
            self.path,
            f"{refused.expected}, got {refused.actual!r}",
            row=self._line,
            column=refused.column,
            hint=refused.hint or "mend the row, or have bad rows skipped and counted (--skip-bad-rows)",
        ) from refused

    def _rows(self) -> Iterator[Row | Refused]:
        self._line = 1
        try:
            # "-sig" takes a byte order mark away, and needs none.
            with self.path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter, quoting=self._quoting)
                header = next((cells for cells in reader if cells), None)
                if header is None:
                    raise UnreadableTrace(
                        self.path, "expected a table with a header, got an empty file", hint=self._hint()
                    )
                names = self._names(header)
                index = {name: position for position, name in enumerate(names)}
                width = len(names)
                end = reader.line_num
                for cells in reader:
                    self._line, end = end + 1, reader.line_num
                    if not cells:
                        continue
                    if len(cells) != width:
                        short = len(cells) < width
                        column = names[len(cells)] if short else str(width + 1)
                        yield Refused(column, f"expected {width} cells", f"{len(cells)} cells")
                        continue
                    yield Row(self._line, cells, index)
                self._line = end
        except OSError as error:
            raise unreadable(self.path, error) from error
        except UnicodeDecodeError as error:
            raise UnreadableTrace(
                self.path,
                f"expected text in UTF-8, got the byte 0x{error.object[error.start]:02x} in or after this row",
                row=self._line,
                hint="convert it, for example with iconv -t utf-8; what is compressed, unpack first",
            ) from error
        except csv.Error as error:
            raise UnreadableTrace(
                self.path,
                f"expected a row of CSV, got: {error}",
                row=self._line,
                hint="is a quote left open in a row before?",
            ) from error

    def _names(self, header: Sequence[str]) -> list[str]:
        names = [name.strip() for name in header]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise UnreadableTrace(
                    self.path,
                    f"expected each column once, got {_cut(name)} twice",
                    row=1,
                    column=_cut(name),
                    hint="remove one of the two",
                )
        for name in self._required:
            if name not in names:
                near = difflib.get_close_matches(name, [_cut(known) for known in names], n=1)
                did = f"did you mean {near[0]}? " if near else ""
                raise MissingColumn(
                    self.path,
                    f"expected the column {name}, got {_cut(', '.join(names))}",
                    row=1,
                    column=name,
                    hint=did + self._hint(),
                )
        for groups in self._any_of:
            if not any(set(group) <= set(names) for group in groups):
                words = " or ".join(" and ".join(group) for group in groups)
                raise MissingColumn(
                    self.path,
                    f"expected {words}, got {_cut(', '.join(names))}",
                    row=1,
                    column=groups[0][0],
                    hint=f"add one to the columns that are printed; {self._hint()}",
                )
        if self._optional is not None:
            known = {*self._required, *self._optional}
            for name in names:
                if name not in known:
                    near = difflib.get_close_matches(_cut(name), known, n=1)
                    did = f"did you mean {near[0]}? " if near else ""
                    raise UnreadableTrace(
                        self.path,
                        f"expected a column that is known, got {_cut(name)!r}",
                        row=1,
                        column=_cut(name) or "''",
                        hint=did + self._hint(),
                    )
        return names

    def _hint(self) -> str:
        needed = f"columns that are needed: {', '.join(self._required)}"
        return f"{needed}; that may come: {', '.join(self._optional)}" if self._optional else needed


def number(text: str) -> float | None:
    """Return the finite number in ``text``; None when there is none, and for Python's own ``1_000``."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text and text.isascii() else None


def unreadable(path: Path, error: OSError) -> UnreadableTrace:
    """Return the error to raise when the file cannot be opened."""
    return UnreadableTrace(
        path,
        f"expected a file that can be read, got: {error.strerror or error}",
        hint="check its path and its permissions",
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
