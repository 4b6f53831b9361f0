"""Deadlines of a simulation: how many were met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.sim.figures import Summary, summary_of
from artesian.sim.jobs import SimJob


class Deadlines(Struct, frozen=True, kw_only=True, gc=False):
    """Of the jobs with a deadline: ``met`` succeeded by then, ``missed`` did not.

    The others still had time when the simulation ended. ``late`` is by how much those were late that
    succeeded after it, in seconds; None where there are none.
    """

    jobs: int
    met: int
    missed: int
    late: Summary | None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        late = None if self.late is None else asdict(self.late)
        return {"jobs": self.jobs, "met": self.met, "missed": self.missed, "late": late}


def due_s(record: JobRecord, told: Mapping[str, SimJob]) -> float | None:
    """Return when the job was to be done; None for one without a deadline."""
    known = told.get(record.job.id)
    if known is not None and known.deadline_s is not None:
        return known.deadline_s
    return None if record.job.deadline_s is None else record.submitted_s + record.job.deadline_s


def deadlines_of(
    records: Iterable[JobRecord], told: Mapping[str, SimJob], end_s: float
) -> tuple[Deadlines | None, dict[str, bool]]:
    """Return the figures (None: no job has a deadline), and of each job whose deadline is decided whether it was met."""
    dated = [(record, due) for record in records if (due := due_s(record, told)) is not None]
    if not dated:
        return None, {}
    is_met: dict[str, bool] = {}
    late: list[float] = []
    for record, due in dated:
        ended_s = record.ended_s
        if record.state is JobState.SUCCEEDED and ended_s is not None:
            is_met[record.job.id] = ended_s <= due
            if ended_s > due:
                late.append(ended_s - due)
        elif record.state.is_final or end_s > due:
            is_met[record.job.id] = False
    met = sum(is_met.values())
    return Deadlines(jobs=len(dated), met=met, missed=len(is_met) - met, late=summary_of(late)), is_met
