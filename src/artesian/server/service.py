"""What the API's routes do, for whoever calls: submit, find, cancel, explain. No HTTP here."""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.told import decision, job_view
from artesian.model.capacity import Capacity
from artesian.model.errors import ArtesianError
from artesian.model.events import CancelRequested, JobSubmitted, NodeExcluded, NodeReturned
from artesian.model.job import Job
from artesian.model.views import Decision, JobPage, JobView, MovesView, NodeView, QueueView
from artesian.server.board import KEYED_SUFFIX, Filter
from artesian.server.config import StateDir
from artesian.server.finding import (
    LETTERS,
    check_excluded,
    check_not_over,
    check_possible,
    known_node,
    new_job_id,
    no_such_job,
)
from artesian.server.fleet_board import FleetBoard
from artesian.server.limits import Limits
from artesian.server.mirror import Mirror, QueueFull
from artesian.server.report import ceilings_in
from artesian.server.tokens import Principal, Role

_RANDOM_LETTERS = 8
"""Of an id: several servers choose at the same time, and none of 10¹² is likely to be chosen twice."""


class NotYours(ArtesianError):  # noqa: N818 - reads as what it is
    """A job of somebody else, or a team that is not the caller's."""


class KeyReused(ArtesianError):  # noqa: N818 - reads as what it is
    """An idempotency key was used before, for another job."""


@dataclass(slots=True, kw_only=True)
class Service:
    """The control plane behind the routes."""

    mirror: Mirror
    dir: StateDir
    limits: Limits
    fleet: FleetBoard
    _whole: tuple[Capacity, Capacity] | None = None
    """The state's capacity, and that of the same nodes if all of them were in use."""

    # -- reading ------------------------------------------------------------------------------------

    def find(self, text: str, who: Principal) -> JobRecord:
        """Return the job with this id, name, or beginning of an id, of those that the caller may see.

        Raises UnknownJob.
        """
        board = self.mirror.board
        record = self.mirror.state.record(text) or board.named(text)
        if record is not None and _sees(who, record):
            return record
        found = [record for record in board.beginning(text) if _sees(who, record)]
        if len(found) == 1:
            return found[0]
        raise no_such_job(text, [record.job.id for record in found], len(found))

    def view(self, record: JobRecord) -> JobView:
        """Return what is told of one job, with why it waits."""
        return replace(job_view(record), waits_for=self.mirror.why(record))

    def page(
        self, wanted: Filter, who: Principal, *, limit: int, cursor: str | None, newest_first: bool
    ) -> JobPage:
        """Return a page of the jobs that the caller may see. Raises BadCursor, NotYours."""
        if who.team is not None:
            if wanted.team not in (None, who.team):
                raise NotYours(f"team: expected {who.team}, got {wanted.team!r}")
            wanted = replace(wanted, team=who.team)
        records, following = self.mirror.board.page(
            wanted, limit=limit, cursor=cursor, newest_first=newest_first
        )
        return JobPage(jobs=tuple(map(job_view, records)), next=following)

    async def node(self, id_: str, who: Principal) -> NodeView | None:
        """Return a node, each of its devices, and what a census has measured of them; None where it is not known."""
        ceilings = await asyncio.to_thread(ceilings_in, self.dir.census)
        found = self.fleet.node(id_, team=who.team)
        if found is None:
            return None
        return replace(found, ceilings={dtype: of for (node, dtype), of in ceilings.items() if node == id_})

    def decision(self, record: JobRecord) -> Decision:
        """Return the last decision about the job."""
        return decision(record, self.mirror.why(record), self.mirror.outlook(record))

    def moves(self, who: Principal) -> MovesView:
        """Return the moves with which waiting jobs can start; of a team, those that are for or of its own jobs."""
        found = self.mirror.moves()
        if who.team is None:
            return found
        jobs = self.mirror.state.jobs
        own = tuple(
            move for move in found.moves if any(_sees(who, jobs[id_]) for id_ in (move.job, move.lets_start))
        )
        return replace(found, moves=own)

    def queue(self) -> QueueView:
        """Return how many jobs are in each state."""
        board = self.mirror.board
        oldest = board.oldest(JobState.QUEUED)
        waits_s = None if oldest is None else max(0.0, time.time() - oldest.history[-1].at_s)
        return QueueView(jobs=board.counts(), seq=self.mirror.seq, oldest_waits_s=waits_s)

    # -- changing -----------------------------------------------------------------------------------

    def admit(self, job: Job, who: Principal) -> Job:
        """Return the job as the caller may submit it. Raises NotYours, JobImpossible."""
        if who.team is not None:
            if job.team not in ("default", who.team):
                raise NotYours(
                    f"job {job.name}: team: expected {who.team}, got {job.team!r}",
                    hint="ask for a token of that team",
                )
            job = replace(job, team=who.team)
        if self.mirror.state.nodes:  # else nobody knows yet what there is
            check_possible(job, self._whole_fleet())
        return job

    def _whole_fleet(self) -> Capacity:
        """Return what there is when no node is gone or excluded: a job may wait for one to come back."""
        now = self.mirror.state.capacity
        if self._whole is None or self._whole[0] is not now:
            self._whole = (now, Capacity(now.nodes))
        return self._whole[1]

    async def submit(self, jobs: Sequence[Job], who: Principal, *, key: str | None = None) -> list[JobRecord]:
        """Accept admitted jobs, all or none; under a ``key`` the same ones once, however often they come.

        Returns when that is durable. Raises QueueFull, KeyReused, StoreError.
        """
        waiting = len(self.mirror.state.waiting) + self.mirror.uncommitted
        if waiting + len(jobs) > self.limits.queued_jobs:
            raise QueueFull(
                f"queue: expected at most {self.limits.queued_jobs} jobs that wait, got {waiting + len(jobs)}",
                hint="submit again when some have started",
            )
        taken = self.mirror.state
        if key is None:
            named = [replace(job, id=new_job_id(job.name, taken, _RANDOM_LETTERS)) for job in jobs]
        else:
            suffixes = [_suffix(who, key, number) for number in range(len(jobs))]
            named = [replace(job, id=f"{job.name}-{end}") for job, end in zip(jobs, suffixes, strict=True)]
            before = [self.mirror.board.keyed(end) for end in suffixes]
            if any(before):
                return [_same(one, job, key) for one, job in zip(before, named, strict=True)]
        now_s = time.time()
        await self.mirror.append([JobSubmitted(at_s=now_s, job=job) for job in named])
        # Somebody may have used the key in the same instant, here or at another server: the first one counts.
        return [_same(taken.record(job.id), job, key or "") for job in named]

    async def cancel(self, record: JobRecord, who: Principal) -> None:
        """Ask for the job to be stopped. Raises AlreadyOver, NotYours."""
        if record.job.user != who.user and not who.role.includes(Role.OPERATOR):
            raise NotYours(
                f"job {record.job.id} belongs to {record.job.user or 'nobody'}: expected its user or an operator,"
                f" got {who.user}"
            )
        check_not_over(record)
        await self.mirror.append([CancelRequested(at_s=time.time(), job_id=record.job.id, user=who.user)])

    async def exclude(self, node: str, who: Principal, *, reason: str, is_stopping: bool) -> NodeView:
        """Have nothing more start on a node. Raises UnknownNode, NotYours."""
        _check_for_all(who)
        known_node(self.mirror.state, node)
        await self.mirror.append(
            [
                NodeExcluded(
                    at_s=time.time(), node_id=node, reason=reason, user=who.user, is_stopping=is_stopping
                )
            ]
        )
        return self._node(node)

    async def return_node(self, node: str, who: Principal) -> NodeView:
        """Have an excluded node used again. Raises UnknownNode, NotExcluded, NotYours."""
        _check_for_all(who)
        check_excluded(known_node(self.mirror.state, node))
        await self.mirror.append([NodeReturned(at_s=time.time(), node_id=node, user=who.user)])
        return self._node(node)

    def _node(self, id_: str) -> NodeView:
        found = self.fleet.node(id_, team=None)
        assert found is not None, id_
        return found


def _check_for_all(who: Principal) -> None:
    if who.team is not None:
        raise NotYours(
            f"nodes are every team's: expected an operator of no team, got {who.user} of team {who.team}",
            hint="ask for a token without a team",
        )


def _sees(who: Principal, record: JobRecord) -> bool:
    return who.team is None or record.job.team == who.team


def _suffix(who: Principal, key: str, number: int) -> str:
    """Return the end of the ids under the key: the same key of the same user gives the same ids."""
    digest = hashlib.sha256(f"{who.user}\0{who.team}\0{key}\0{number}".encode()).digest()
    return "".join(LETTERS[byte % len(LETTERS)] for byte in digest[:KEYED_SUFFIX])


def _same(record: JobRecord | None, job: Job, key: str) -> JobRecord:
    if record is None or record.job != job:
        raise KeyReused(
            f"Idempotency-Key: expected the same submit as before under {key!r}, got another one",
            hint="use a new key for another job",
        )
    return record
