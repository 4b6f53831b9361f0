"""The ledger of the embedded control plane: waterfalls and training summaries with this machine's ceilings."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from artesian.census import Census, CensusError
from artesian.engines.local.engine import attempt_folder
from artesian.kernel.accounting import Ceilings, waterfall
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.progress import Progress
from artesian.kernel.training import JobReport, TrainingSummary, training_summary
from artesian.model.ledger import Waterfall
from artesian.server.fleet import ceilings_of
from artesian.wire import ProgressReader

if TYPE_CHECKING:
    from artesian.server.embedded import ControlPlane


def job_report(plane: "ControlPlane", record: JobRecord) -> JobReport:
    """Return the report of one job, from its submit to its end, or to now."""
    end_s = time.time() if record.ended_s is None else record.ended_s
    return JobReport(
        job=plane.view(record),
        training=training(plane, record),
        waterfall=waterfall_between(plane, record.submitted_s, end_s),
    )


def training(plane: "ControlPlane", record: JobRecord) -> TrainingSummary:
    """Return what a job has trained so far."""
    return training_summary(
        record,
        read_progress(plane.dir.jobs, [record]),
        at_s=time.time() if record.ended_s is None else record.ended_s,
        ceilings=known_ceilings(plane),
    )


def waterfall_between(plane: "ControlPlane", start_s: float, end_s: float) -> Waterfall:
    """Return where the machine's device-seconds went between two times."""
    state = plane.state()
    present = [
        record
        for record in state.jobs.values()
        if record.submitted_s < end_s and (record.ended_s is None or record.ended_s > start_s)
    ]
    return waterfall(
        state,
        read_progress(plane.dir.jobs, present),
        start_s=start_s,
        end_s=end_s,
        ceilings=known_ceilings(plane),
        is_simulated=False,
    )


def read_progress(jobs: Path, records: Iterable[JobRecord]) -> Progress:
    """Return the messages of all attempts of the jobs; an attempt that said nothing has none."""
    return {
        (record.job.id, attempt.epoch): ProgressReader(
            attempt_folder(jobs, record.job.id, attempt.epoch).progress
        ).read()
        for record in records
        for attempt in record.attempts
    }


def known_ceilings(plane: "ControlPlane") -> Ceilings:
    """Return the ceilings of this machine's devices: measured, or the nameplate where it is trusted."""
    return ceilings_in(plane.dir.census)


def ceilings_in(path: Path) -> Ceilings:
    """Return the ceilings that the census in this file tells of; none where there is none."""
    try:
        return ceilings_of(Census.load(path))
    except (FileNotFoundError, CensusError):
        return {}
