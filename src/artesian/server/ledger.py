"""The waterfall and the training summaries of a live server, worked out on a thread of their own.

The event loop only cuts out what the window needs, in one go, so that it is one consistent moment; the
messages of the workers are read, and all is added up, beside it.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from artesian.kernel.accounting import waterfall
from artesian.kernel.detections import Detections
from artesian.kernel.goodput import Goodput, job_goodput
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.state import State
from artesian.kernel.told import job_view
from artesian.kernel.training import TrainingSummary, training_summary
from artesian.model.ledger import Waterfall
from artesian.server.config import StateDir
from artesian.server.mirror import Mirror
from artesian.server.report import ceilings_in, detections, read_progress, with_notes

_KEPT_S = 2.0
"""How long an answer is given again: many dashboards ask for the same one."""


@dataclass(slots=True)
class _Answer:
    at_s: float
    task: asyncio.Task[Waterfall]


@dataclass(slots=True)
class Ledger:
    """Adds up what became of the compute."""

    mirror: Mirror
    dir: StateDir
    _answers: dict[tuple[float, float | None], _Answer] = field(default_factory=dict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def waterfall(self, *, start_s: float | None, end_s: float | None) -> Waterfall:
        """Return where the compute went between two times; None: from the first record, up to now.

        An answer about now may be two seconds old.
        """
        now_s = time.time()
        if start_s is None:
            first_s = self.mirror.state.first_s
            start_s = now_s if first_s is None else first_s
        key = (round(start_s), end_s)
        for old in [key for key, answer in self._answers.items() if now_s - answer.at_s > _KEPT_S]:
            del self._answers[old]
        if key not in self._answers:
            task = asyncio.create_task(
                self._waterfall(start_s, max(start_s, now_s if end_s is None else end_s))
            )
            self._answers[key] = _Answer(now_s, task)
        return await asyncio.shield(self._answers[key].task)

    async def _waterfall(self, start_s: float, end_s: float) -> Waterfall:
        async with self._one_at_a_time:
            state, board = self.mirror.state, self.mirror.board
            part = _part(state, list(_present(board.attempted.values(), start_s, end_s)))
            archived = state.archive.records(ended_after_s=start_s)
            return await asyncio.to_thread(self._add_up, part, archived, tuple(board.waited), start_s, end_s)

    def _add_up(
        self,
        part: State,
        archived: Iterable[JobRecord],
        waited: tuple[tuple[float, float | None], ...],
        start_s: float,
        end_s: float,
    ) -> Waterfall:
        for record in _present(archived, start_s, end_s):
            part.jobs[record.job.id] = record
        try:
            return waterfall(
                part,
                read_progress(self.dir.jobs, part.jobs.values()),
                start_s=start_s,
                end_s=end_s,
                ceilings=ceilings_in(self.dir.census),
                is_simulated=False,
                waited=waited,
            )
        finally:
            # A state refers to itself: without this, its copies of 10,000 nodes and jobs would stay, some
            # megabytes, until the collector comes by, which is rare in a server.
            part.nodes.clear()
            part.jobs.clear()

    async def report(self, record: JobRecord) -> dict[str, Any]:
        """Return a job, what it has trained, and the waterfall from its submit to its end, as JSON types."""
        view = replace(job_view(record), waits_for=self.mirror.why(record))
        summary = await self.training(record)
        goodput = await self.goodput(record)
        found = await self.waterfall(start_s=record.submitted_s, end_s=record.ended_s)
        return {
            "job": msgspec.to_builtins(view),
            "training": msgspec.to_builtins(summary),
            "goodput": msgspec.to_builtins(goodput),
            "waterfall": with_notes(found, goodput, summary).to_dict(),
        }

    async def goodput(self, record: JobRecord) -> Goodput:
        """Return which share of the job's device time became progress."""
        part = _part(self.mirror.state, [record])
        return await asyncio.to_thread(self._goodput, part, record.job.id)

    def _goodput(self, part: State, job_id: str) -> Goodput:
        record = part.jobs[job_id]
        return job_goodput(part, record, read_progress(self.dir.jobs, [record]), at_s=time.time())

    async def training(self, record: JobRecord) -> TrainingSummary:
        """Return what the job has trained."""
        copy = copied(record)
        return await asyncio.to_thread(self._sum_up, copy)

    async def detections(self, record: JobRecord) -> Detections:
        """Return what the workers have found about one another that holds now; unknown of a job that does not run."""
        return await asyncio.to_thread(detections, self.dir.jobs, copied(record))

    def _sum_up(self, record: JobRecord) -> TrainingSummary:
        end_s = time.time() if record.ended_s is None else record.ended_s
        progress = read_progress(self.dir.jobs, [record])
        return training_summary(record, progress, at_s=end_s, ceilings=ceilings_in(self.dir.census))


def _present(records: Iterable[JobRecord], start_s: float, end_s: float) -> Iterator[JobRecord]:
    """Yield those that had an attempt and were there between two times."""
    for record in records:
        is_there = record.submitted_s < end_s and (record.ended_s is None or record.ended_s > start_s)
        if is_there and record.attempts:
            yield record


def _part(state: State, records: list[JobRecord]) -> State:
    """Return a copy of the nodes and of these jobs, for another thread to read."""
    part = State()
    part.at_s, part.first_s = state.at_s, state.first_s
    part.nodes = {
        id_: replace(
            node,
            outages=[replace(outage) for outage in node.outages],
            exclusions=[replace(exclusion) for exclusion in node.exclusions],
        )
        for id_, node in state.nodes.items()
    }
    part.jobs = {record.job.id: copied(record) for record in records}
    return part


def copied(record: JobRecord) -> JobRecord:
    """Return a copy for another thread to read."""
    return replace(record, attempts=tuple(replace(attempt) for attempt in record.attempts))
