"""The ledger of the embedded control plane: waterfalls and training summaries with this machine's ceilings."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from artesian.census import Census, CensusError
from artesian.engines.local.engine import attempt_folder
from artesian.kernel.accounting import Ceilings, waterfall
from artesian.kernel.detections import Detections, detected_now
from artesian.kernel.goodput import Goodput, goodput_text, job_goodput
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.progress import Progress, read_log
from artesian.kernel.told import decision
from artesian.kernel.training import JobReport, TrainingSummary, training_summary
from artesian.model.ledger import Ceiling, Waterfall
from artesian.model.views import Decision
from artesian.server.fleet import ceilings_of
from artesian.server.node_census import NodeCensuses
from artesian.wire import ProgressReader

if TYPE_CHECKING:
    from artesian.server.embedded import ControlPlane


def job_report(plane: "ControlPlane", record: JobRecord) -> JobReport:
    """Return the report of one job, from its submit to its end, or to now."""
    end_s = time.time() if record.ended_s is None else record.ended_s
    progress = read_progress(plane.dir.jobs, [record])
    goodput = job_goodput(plane.state(), record, progress, at_s=end_s)
    found = waterfall_between(plane, record.submitted_s, end_s)
    summary = training_summary(record, progress, at_s=end_s, ceilings=known_ceilings(plane))
    return JobReport(
        job=plane.view(record),
        training=summary,
        goodput=goodput,
        waterfall=with_notes(found, goodput, summary),
    )


def with_notes(found: Waterfall, goodput: Goodput, summary: TrainingSummary) -> Waterfall:
    """Return the waterfall with one job's goodput among its notes, and the workers that held it up."""
    notes = [f"goodput of {goodput.job_id}: {goodput_text(goodput)}"]
    notes += [
        f"{goodput.job_id}: {found}" for found in (*(summary.stragglers or ()), *(summary.divergences or ()))
    ]
    return replace(found, notes=(*found.notes, *notes))


def decided(plane: "ControlPlane", record: JobRecord) -> Decision:
    """Return what was last decided about a job; of one that runs also what its workers have found."""
    found = decision(record, plane.why(record), plane.outlook(record))
    return replace(found, **detections(plane.dir.jobs, record)._asdict())


def detections(jobs: Path, record: JobRecord) -> Detections:
    """Return what the workers have found about one another that holds now; unknown of a job that does not run."""
    if not record.state.holds_devices:
        return Detections()
    return detected_now(read_log(record, read_progress(jobs, [record])))


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
        for record in state.records(ended_after_s=start_s)
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
    """Return the ceilings that the census in this file tells of, and those of engines' nodes beside it."""
    found: dict[tuple[str, str], Ceiling] = {}
    with suppress(CensusError):
        found |= NodeCensuses(path.with_suffix("")).ceilings()
    with suppress(FileNotFoundError, CensusError):
        found |= ceilings_of(Census.load(path))
    return found
