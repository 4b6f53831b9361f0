"""Philly's jobs with deadlines and models, as Chronus published them (Gao et al., SoCC 2021).

Columns ``job_id``, ``user`` (the virtual cluster: the team), ``num_gpu``, ``submit_time``,
``iterations``, ``model_name``, ``duration``, ``expect_time_list`` (the deadline, counted from the
submission) and ``best_effort`` (1: no deadline). Times are in minutes: the file does not say so, but
its two weeks end at 20,151, and a median of 60 is what Philly's jobs of 20 minutes and more have in
minutes. Jobs for no GPU are left out and counted.
"""

from pathlib import Path

from artesian.model.job import Job, JobKind
from artesian.sim.jobs import SimJob
from artesian.sim.traces.table import BadRows, Row, Table
from artesian.sim.traces.trace import COMMAND, NO_ENV, Requests, Trace, collect

COLUMNS = (
    "job_id",
    "user",
    "num_gpu",
    "submit_time",
    "iterations",
    "model_name",
    "duration",
    "expect_time_list",
    "best_effort",
)

MINUTE_S = 60.0


def read(
    path: Path,
    *,
    bad_rows: BadRows = BadRows.REFUSE,
    limit: int | None = None,
    accelerator: str | None = None,
) -> Trace:
    """Return the jobs of a table with deadlines, on the clock of the trace. Raises TraceError."""
    table = Table(path, required=COLUMNS, bad_rows=bad_rows)
    requests = Requests(accelerator)
    seen: set[int] = set()

    def job(row: Row) -> SimJob:
        gang = row.count("num_gpu")
        if gang == 0:
            row.pass_over("the job asks for no device", "num_gpu")
        number = row.new("job_id", row.count("job_id", most=10**12), seen)
        submit_s = MINUTE_S * row.figure("submit_time")
        due_s = MINUTE_S * row.figure("expect_time_list")
        id = f"job-{number}"
        return SimJob(
            job=Job(
                id=id,
                name=id,
                command=COMMAND,
                devices=requests.devices(gang),
                workdir="/",
                kind=JobKind.TRAIN,
                team=row.text("user"),
                env=NO_ENV,
                profile=row.text("model_name"),
                total_steps=float(row.count("iterations", least=1, most=10**12)),
            ),
            submit_s=submit_s,
            duration_s=MINUTE_S * row.figure("duration"),
            deadline_s=None if row.count("best_effort", most=1) else submit_s + due_s,
        )

    return collect(path, table.rows(job), table.tally, limit=limit)
