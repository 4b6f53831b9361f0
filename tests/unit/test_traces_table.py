"""Tables: what is refused with its row and column, what is counted, and that memory does not grow."""

import tracemalloc
from pathlib import Path

import pytest

from artesian.sim.traces import (
    BadCell,
    BadRows,
    MissingColumn,
    TooLarge,
    TraceError,
    UnreadableTrace,
    azure,
    own,
    philly,
)
from artesian.sim.traces.table import Row, Skipped, Table, number
from trace_files import lines, place, written

HEADER = "timestamp,duration,num_gpus,cluster"
GOOD = "2017-10-09 07:01:55,66.0,1,11cb48"


def philly_of(*rows: str) -> str:
    return lines(HEADER, *rows)


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("2017-10-09 07:01:55,-1,1,a", "duration", "expected a number from 0 to 3.1536e+09, got '-1'"),
        ("2017-10-09 07:01:55,nan,1,a", "duration", "got 'nan'"),
        ("2017-10-09 07:01:55,inf,1,a", "duration", "got 'inf'"),
        ("2017-10-09 07:01:55,1e400,1,a", "duration", "got '1e400'"),
        ("2017-10-09 07:01:55,1_0,1,a", "duration", "got '1_0'"),
        ("2017-10-09 07:01:55,,1,a", "duration", "got ''"),
        ("2017-10-09 07:01:55,1,0,a", "num_gpus", "expected a whole number from 1 to 1000000, got '0'"),
        ("2017-10-09 07:01:55,1,1.5,a", "num_gpus", "got '1.5'"),
        ("2017-10-09 07:01:55,1,-1,a", "num_gpus", "got '-1'"),
        ("2017-10-09 07:01:55,1,²,a", "num_gpus", "got '²'"),
        ("2017-10-09 07:01:55,1," + "9" * 5000 + ",a", "num_gpus", "9…'"),
        ("2017-13-09 07:01:55,1,1,a", "timestamp", "expected a date and time since 1970, such as"),
        ("yesterday,1,1,a", "timestamp", "got 'yesterday'"),
        ("0001-01-01T00:00+23:59,1,1,a", "timestamp", "got '0001-01-01T00:00+23:59'"),
        ("2017-10-09 07:01:55,1,1, ", "cluster", "expected a value, got ' '"),
        ("2017-10-09 07:01:55,1,1", "cluster", "expected 4 cells, got '3 cells'"),
        ("2017-10-09 07:01:55,1,1,a,b", "5", "expected 4 cells, got '5 cells'"),
    ],
)
def test_a_bad_cell_is_refused_with_file_row_and_column(
    tmp_path: Path, row: str, column: str, words: str
) -> None:
    with pytest.raises(BadCell) as caught:
        philly.read(written(tmp_path, philly_of(GOOD, "", row, GOOD)))
    assert place(caught.value) == ("trace.csv", 4, column)
    assert words in str(caught.value)
    assert caught.value.hint is not None


def test_bad_rows_are_skipped_on_demand_and_counted_by_reason_with_the_first_of_each(tmp_path: Path) -> None:
    text = philly_of(GOOD, GOOD.replace("66.0", "-5"), GOOD.replace("66.0", "nan"), "x", GOOD)
    trace = philly.read(written(tmp_path, text), bad_rows=BadRows.SKIP)
    assert [job.job.id for job in trace.jobs] == ["philly-2", "philly-6"]
    assert trace.rows == (2, 6)
    assert trace.skipped_rows == 3
    assert trace.skipped == (
        Skipped(
            reason="expected a number from 0 to 3.1536e+09", count=2, row=3, column="duration", actual="-5"
        ),
        Skipped(reason="expected 4 cells", count=1, row=5, column="duration", actual="1 cells"),
    )
    assert str(trace.skipped[0]) == (
        "2 rows skipped: expected a number from 0 to 3.1536e+09, first in row 3, column duration: '-5'"
    )


@pytest.mark.parametrize(
    ("text", "kind", "row", "column", "words"),
    [
        ("", UnreadableTrace, None, None, "expected a table with a header, got an empty file"),
        ("\n\n", UnreadableTrace, None, None, "got an empty file"),
        ("a,b\n", MissingColumn, 1, "timestamp", "expected the column timestamp, got a, b"),
        (HEADER.replace("duration", "duratoin") + "\n", MissingColumn, 1, "duration", "duratoin"),
        (HEADER + ",duration\n", UnreadableTrace, 1, "duration", "got duration twice"),
        (philly_of(GOOD).encode() + b"\xff\xfe\n", UnreadableTrace, 2, None, "got the byte 0xff"),
        (
            philly_of(GOOD, '"2017' + "x" * 200_000),
            UnreadableTrace,
            2,
            None,
            "field larger than field limit",
        ),
    ],
)
def test_what_is_no_such_table_is_refused(
    tmp_path: Path, text: str | bytes, kind: type[TraceError], row: int | None, column: str | None, words: str
) -> None:
    with pytest.raises(kind) as caught:
        philly.read(written(tmp_path, text), bad_rows=BadRows.SKIP)
    assert words in str(caught.value)
    assert place(caught.value)[1:] == (row, column) or row == 2  # decoding and quoting fail by the block
    assert caught.value.hint


def test_a_column_that_is_nearly_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingColumn) as caught:
        philly.read(written(tmp_path, HEADER.replace("duration", "duratoin") + "\n"))
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean duratoin? columns that are needed: timestamp,")


def test_a_file_that_is_not_there_is_an_error_of_traces(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(UnreadableTrace) as caught:
            philly.read(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_byte_order_marks_line_ends_quotes_and_other_columns_do_not_matter(
    tmp_path: Path, prefix: str, end: str
) -> None:
    rows = ['cluster,"extra",timestamp, duration ,num_gpus', '"a, ""b""",x,2017-10-09 07:01:55,66.0,1', ""]
    trace = philly.read(written(tmp_path, prefix + end.join(rows)))
    (job,) = trace.jobs
    assert (job.job.team, job.duration_s, trace.skipped) == ('a, "b"', 66.0, ())


def test_a_row_is_numbered_by_its_first_line(tmp_path: Path) -> None:
    text = philly_of('2017-10-09 07:01:55,1,1,"two\nlines"', GOOD, GOOD.replace("66.0", "-1"))
    with pytest.raises(BadCell) as caught:
        philly.read(written(tmp_path, text))
    assert caught.value.row == 5


def test_a_header_alone_gives_no_jobs(tmp_path: Path) -> None:
    trace = philly.read(written(tmp_path, HEADER))
    assert (trace.jobs, trace.rows, trace.skipped) == ((), (), ())


def test_more_jobs_than_the_limit_are_an_error_with_the_row(tmp_path: Path) -> None:
    path = written(tmp_path, philly_of(GOOD, GOOD, GOOD))
    assert len(philly.read(path, limit=3).jobs) == 3
    with pytest.raises(TooLarge) as caught:
        philly.read(path, limit=2)
    assert place(caught.value) == ("trace.csv", 4, None)


def test_a_column_that_our_own_format_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableTrace) as caught:
        own.read(written(tmp_path, "submit_s,duration_s,devices,taem\n"))
    assert place(caught.value) == ("trace.csv", 1, "taem")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean team?")


def peak_bytes(path: Path) -> int:
    tracemalloc.start()
    try:
        azure.read_load(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_ten_times_the_rows_take_no_more_memory(tmp_path: Path) -> None:
    row = "2023-11-16 18:15:46.6805900,374,44\n"
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    few = written(tmp_path, header + row * 3_000, "few.csv")
    many = written(tmp_path, header + row * 30_000, "many.csv")
    peak_bytes(few)  # what is imported and cached once is not the table's
    assert peak_bytes(many) < 1.2 * peak_bytes(few)
    assert azure.read_load(many).requests == (30_000,)


def test_reasons_do_not_grow_with_the_values_that_are_wrong(tmp_path: Path) -> None:
    text = philly_of(*(f"2017-10-09 07:01:55,-{number},1,a" for number in range(1, 500)))
    trace = philly.read(written(tmp_path, text), bad_rows=BadRows.SKIP)
    assert [entry.count for entry in trace.skipped] == [499]


def test_numbers_are_what_people_write() -> None:
    texts = ["1", " 2.5 ", "1e3", "-0", "1_0", "٣", "nan", "-inf", "", "0x1"]
    assert [number(text) for text in texts] == [1, 2.5, 1000, 0, None, None, None, None, None, None]


def test_a_table_tells_a_missing_column_from_an_empty_cell(tmp_path: Path) -> None:
    table = Table(written(tmp_path, "a,b\n1, \n"), required=("a",))

    def seen(row: Row) -> tuple[bool, bool, bool, bool]:
        return row.has("a"), row.has("b"), row.has_column("b"), row.has_column("c")

    assert list(table.rows(seen)) == [(2, (True, False, True, False))]
