"""Slurm's accounting: which rows are jobs, what they ask for, and what is left out and counted."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artesian.model.resources import DeviceRequest
from artesian.sim.traces import BadCell, BadRows, MissingColumn, Trace, sacct
from artesian.sim.traces.tres import NoTres, Tres, parse_tres
from trace_files import lines, place, written

COLUMNS = "JobID|JobName|State|Submit|Start|End|Elapsed|Timelimit|ReqTRES|AllocTRES|Account|User|Priority"


def a_row(id: str = "7", **changes: str) -> str:
    cells = {
        "JobID": id,
        "JobName": 'train "it"',
        "State": "COMPLETED",
        "Submit": "2026-01-05T10:00:00",
        "Start": "2026-01-05T10:01:00",
        "End": "2026-01-06T12:04:04",
        "Elapsed": "1-02:03:04",
        "Timelimit": "2-00:00:00",
        "ReqTRES": "billing=8,cpu=32,gres/gpu:a100=4,gres/gpu=4,mem=64G,node=1",
        "AllocTRES": "cpu=64,gres/gpu:h100=8,mem=1T",
        "Account": "vision",
        "User": "ada",
        "Priority": "4294901757",
    }
    return "|".join((cells | changes).values())


def read(folder: Path, *rows: str, bad_rows: BadRows = BadRows.REFUSE, header: str = COLUMNS) -> Trace:
    return sacct.read(written(folder, lines(header, *rows), "jobs.txt"), bad_rows=bad_rows)


def reasons(trace: Trace) -> dict[str, tuple[int, int]]:
    return {entry.reason: (entry.count, entry.row) for entry in trace.skipped}


def test_a_job_is_read_with_all_that_slurm_tells(tmp_path: Path) -> None:
    trace = read(tmp_path, a_row(), a_row("8_3", Submit="2026-01-05T10:00:30"))
    first, second = trace.jobs
    assert (first.submit_s, second.submit_s) == (0.0, 30.0)
    assert first.duration_s == 86400 + 2 * 3600 + 3 * 60 + 4
    job = first.job
    assert (job.id, second.job.id) == ("7", "8_3")
    assert job.devices == (DeviceRequest(min_milli=4000, max_milli=4000, accelerator="a100"),)
    assert (job.cpus_per_device, job.memory_bytes_per_device) == (8.0, 16 * 2**30)
    assert (job.team, job.user, job.priority) == ("vision", "ada", 4294901757)
    assert job.estimated_duration_s == 2 * 86400
    assert trace.skipped == ()


def test_what_is_no_job_for_devices_is_counted_with_its_first_row(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        a_row(),
        a_row("7.batch"),
        a_row("7.extern"),
        a_row("7.0"),
        a_row("9+1"),
        a_row("10_[1-50%4]", State="PENDING", Start="Unknown", End="Unknown", Elapsed="00:00:00"),
        a_row("11", State="PENDING", Start="Unknown", End="Unknown", Elapsed="00:00:00"),
        a_row("12", State="RUNNING", End="Unknown"),
        a_row("13", State="CANCELLED by 1000", Start="None", Elapsed="00:00:00"),
        a_row("14", ReqTRES="cpu=4,mem=8G", AllocTRES=""),
        a_row("15", ReqTRES="gres/gpu:a100=2,gres/gpu:v100=2"),
    )
    assert [job.job.id for job in trace.jobs] == ["7"]
    assert reasons(trace) == {
        "a step of a job": (3, 3),
        "a component of a heterogeneous job": (1, 6),
        "the tasks of an array that never started": (1, 7),
        "the job never started": (1, 8),
        "the job is not over": (1, 9),
        "the job never started, or ran for less than a second": (1, 10),
        "the job asks for no device": (1, 11),
        "the job asks for several types of device": (1, 12),
    }


def test_a_requeued_job_is_one_job_with_its_first_submission_and_its_last_run(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        a_row("6", Submit="2026-01-05T09:00:00"),
        a_row(State="NODE_FAIL", Elapsed="01:00:00"),
        a_row(State="REQUEUED", Submit="2026-01-05T11:30:00", Elapsed="02:00:00"),
        a_row(Submit="2026-01-05T14:00:00", Elapsed="03:00:00"),
        a_row("8", State="PREEMPTED"),
        a_row("8", State="RUNNING", End="Unknown"),
    )
    assert [(job.job.id, job.submit_s, job.duration_s) for job in trace.jobs] == [
        ("6", 0.0, 93784.0),
        ("7", 3600.0, 10800.0),
    ]
    assert reasons(trace) == {
        "the job is not over": (1, 7),
        "an earlier run of a job that was requeued": (2, 3),
        "the last run of a requeued job is not over": (1, 6),
    }


@pytest.mark.parametrize(
    "state", ["FAILED", "TIMEOUT", "CANCELLED by 0", "OUT_OF_MEMORY", "NODE_FAIL", "CANCELLED+"]
)
def test_a_job_takes_as_long_as_it_took_whatever_its_end(tmp_path: Path, state: str) -> None:
    (job,) = read(tmp_path, a_row(State=state)).jobs
    assert job.duration_s == 93784


def test_what_is_granted_stands_in_for_a_request_that_names_no_gpu(tmp_path: Path) -> None:
    (job,) = read(tmp_path, a_row(ReqTRES="cpu=1,mem=1G")).jobs
    assert str(job.job.devices[0]) == "h100:8"
    assert job.job.cpus_per_device == 8


def test_a_site_says_what_its_types_are(tmp_path: Path) -> None:
    path = written(tmp_path, lines(COLUMNS, a_row()))
    (job,) = sacct.read(path, accelerators={"A100": "A100-SXM4-80GB"}).jobs
    assert job.job.devices[0].accelerator == "A100-SXM4-80GB"


@pytest.mark.parametrize(
    ("header", "row", "duration_s"),
    [
        ("JobID|State|Submit|ElapsedRaw|AllocTRES", "7|COMPLETED|1767600000|90|gres/gpu=1", 90),
        (
            "JobID|State|Submit|Start|End|AllocTRES|",
            "7|COMPLETED|2026-01-05T10:00:00|2026-01-05T10:00:10|2026-01-05T10:01:00|gres/gpu=1|",
            50,
        ),
        ("JobID|State|Submit|Elapsed|ReqTRES", "7|COMPLETED|2026-01-05T10:00:00|02:03.123|gres/gpu=1", 123),
    ],
)
def test_fewer_columns_will_do(tmp_path: Path, header: str, row: str, duration_s: float) -> None:
    (job,) = read(tmp_path, row, header=header).jobs
    assert job.duration_s == duration_s
    assert (job.job.team, job.job.user, job.job.estimated_duration_s) == ("default", "", None)


@pytest.mark.parametrize("limit", ["UNLIMITED", "Partition_Limit", ""])
def test_no_time_limit_is_no_estimate(tmp_path: Path, limit: str) -> None:
    (job,) = read(tmp_path, a_row(Timelimit=limit)).jobs
    assert job.job.estimated_duration_s is None


@pytest.mark.parametrize(
    ("changes", "column", "words"),
    [
        ({"JobID": "x7"}, "JobID", "expected the id of a job, such as 7, 7_1 or 7.batch, got 'x7'"),
        ({"State": "DONE"}, "State", "expected a state of Slurm, such as COMPLETED, got 'DONE'"),
        ({"State": ""}, "State", "expected a value"),
        ({"Submit": "Unknown"}, "Submit", "expected a date and time that is known, got 'Unknown'"),
        ({"Submit": "soon"}, "Submit", "expected a date and time"),
        ({"Elapsed": "-01:00:00"}, "Elapsed", "expected a time such as 1-02:03:04"),
        ({"Elapsed": "1-02:03"}, "Elapsed", "got '1-02:03'"),
        ({"Elapsed": "999999-00:00:00"}, "Elapsed", "got '999999-00:00:00'"),
        ({"ReqTRES": "gpu"}, "ReqTRES", "each is name=amount, got 'gpu'"),
        ({"ReqTRES": "gres/gpu=-1"}, "ReqTRES", "a count is a whole number up to 1000000"),
        ({"ReqTRES": "gres/gpu=1,mem=lots"}, "ReqTRES", "memory is a number with K, M, G, T or P"),
        ({"Priority": "high"}, "Priority", "expected a whole number from 0"),
    ],
)
def test_a_bad_cell_is_refused_with_its_row_and_column(
    tmp_path: Path, changes: dict[str, str], column: str, words: str
) -> None:
    with pytest.raises(BadCell) as caught:
        read(tmp_path, a_row("1"), a_row("2", **changes))
    assert place(caught.value) == ("jobs.txt", 3, column)
    assert words in str(caught.value)
    trace = read(tmp_path, a_row("1"), a_row("2", **changes), bad_rows=BadRows.SKIP)
    assert [entry.row for entry in trace.skipped] == [3]


def test_an_end_before_its_start_is_refused(tmp_path: Path) -> None:
    header = "JobID|State|Submit|Start|End|AllocTRES"
    row = "7|COMPLETED|2026-01-05T10:00:00|2026-01-05T10:01:00|2026-01-05T10:00:59|gres/gpu=1"
    with pytest.raises(BadCell, match="expected a time that is not before Start"):
        read(tmp_path, row, header=header)


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("JobID|State|Elapsed|AllocTRES", "Submit"),
        ("JobID|State|Submit|Elapsed", "ReqTRES"),
        ("JobID|State|Submit|Start|AllocTRES", "Elapsed"),
    ],
)
def test_a_column_that_is_needed_is_asked_for(tmp_path: Path, header: str, column: str) -> None:
    with pytest.raises(MissingColumn) as caught:
        read(tmp_path, header=header)
    assert place(caught.value) == ("jobs.txt", 1, column)


def test_resources_are_parsed_as_slurm_writes_them() -> None:
    assert parse_tres("") == Tres(devices=0)
    assert parse_tres("gres/gpu:a100:0=0,gres/gpu=2,gres/gpumem=80G") == Tres(devices=2)
    assert parse_tres("gres/gpu:1g.5gb=2,mem=3000").type == "1g.5gb"
    assert parse_tres("gres/gpu=2,mem=3000").memory_bytes_per_device == 1500 * 2**20
    assert parse_tres("gres/gpu=2,mem=1.5T").memory_bytes_per_device == 3 * 2**38


@given(st.text(alphabet="gres/pu:=,0123456789KMGT.memcn-") | st.text())
def test_any_resources_are_parsed_or_refused(text: str) -> None:
    try:
        tres = parse_tres(text)
    except NoTres as error:
        reason = str(error)
    else:
        assert tres.devices >= 0
        return
    assert reason
