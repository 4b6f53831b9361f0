"""Microsoft's Philly trace (Jeon et al., USENIX ATC 2019), as the table of jobs that others derived from it.

Columns ``timestamp`` (local date and time of submission), ``duration`` (seconds), ``num_gpus`` (the
gang), ``cluster`` (the virtual cluster: the team). ``gpu_time``, their product, is not looked at. The
rows are in no order of time. The trace says nothing of the fleet: ``fleet_for_load`` makes one.
"""

from pathlib import Path

from artesian.model.job import Job, JobKind
from artesian.sim.traces.sizing import fleet_for_load
from artesian.sim.traces.table import BadRows, Row, Table
from artesian.sim.traces.trace import COMMAND, NO_ENV, Dated, Requests, Trace, collect_dated

__all__ = ["COLUMNS", "fleet_for_load", "read"]

COLUMNS = ("timestamp", "duration", "num_gpus", "cluster")


def read(
    path: Path,
    *,
    bad_rows: BadRows = BadRows.REFUSE,
    limit: int | None = None,
    accelerator: str | None = None,
) -> Trace:
    """Return the jobs of a Philly table; the first one is submitted at 0.

    They are training jobs for whole devices, of any kind unless ``accelerator`` is given. No job has an
    estimate of its duration: the trace has none (``estimates.with_estimates`` makes some up). Raises TraceError.
    """
    table = Table(path, required=COLUMNS, bad_rows=bad_rows)
    requests = Requests(accelerator)

    def job(row: Row) -> Dated:
        id = f"philly-{row.number}"
        gang = row.count("num_gpus", least=1)
        job = Job(
            id=id,
            name=id,
            command=COMMAND,
            devices=requests.devices(gang),
            workdir="/",
            kind=JobKind.TRAIN,
            team=row.text("cluster"),
            env=NO_ENV,
        )
        return row.time_s("timestamp"), row.figure("duration"), job

    return collect_dated(path, table.rows(job), table.tally, limit=limit)
