"""The Slurm engine: commands in, batch jobs submitted and watched, events out.

What an attempt is can be read from its folder and from Slurm, not here: a new engine on the same folder,
told the same commands, goes on where the last one was killed. How it is watched: ``engines.watching``.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from artesian.engines import watching
from artesian.engines.base import Clock, Report
from artesian.engines.instance import instance_of
from artesian.engines.local.engine import attempt_folder
from artesian.engines.local.outcome import first_failure, restarts
from artesian.engines.slurm import attempts, parse, script
from artesian.engines.slurm.attempts import Attempt, Seen, UserUnknown
from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.outcome import BY_SLURM, NODE_STATES, outcome_of_job
from artesian.engines.slurm.parse import SlurmJob
from artesian.engines.slurm.settings import SlurmSettings
from artesian.engines.slurm.stock import Stock, Taken
from artesian.engines.slurm.submit import Submitter
from artesian.engines.watching import Refused, Unreachable, WatchingEngine
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.plan import Start

_FAST_S = 0.25
"""How often Slurm is asked just after a command, when something is about to change."""
_FAST_FOR_S = 2.0
_LOOK_S = 0.1
"""How often the files of the attempts are looked at."""
_RECORD_WAIT_S = 10.0
"""How long a record may take through the shared folder after Slurm has said that the job is over."""
_STOP_MARGIN_S = 30.0
"""How long after the grace Slurm itself is told to end the job: a supervisor that hangs must not keep it."""

_log = logging.getLogger(__name__)


class SlurmEngine(WatchingEngine[Attempt]):
    """Runs attempts as batch jobs; their files are below ``root``, or below the folder of the settings."""

    def __init__(
        self, root: Path, settings: SlurmSettings, client: SlurmClient, clock: Clock, name: str = "slurm"
    ) -> None:
        super().__init__(name, root, clock, scheduler="Slurm", look_s=_LOOK_S)
        self._settings = settings
        self._client = client
        self._stock = Stock(root / f"{name}-nodes.json", settings, client)
        self._submitter: Submitter
        self._opened_s = self._asked_s = self._fast_until_s = self._stocked_s = 0.0
        self._interval_floor_s = 0.0

    async def open(self, report: Report) -> Sequence[Node]:
        """Begin: return Slurm's nodes; those of the last time, closed for all that is new, where nobody answers.

        Raises SlurmUnreachable where there was no last time.
        """
        self._report = report
        instance = await asyncio.to_thread(instance_of, self._root)
        self._submitter = Submitter(self._root, self._settings, self._client, f"{instance}.{self.name}")
        try:
            nodes = await self._stock.open(await self._remembered())
        except (Unreachable, Refused) as error:
            nodes = await self._stock.open_blind(error)
            _log.warning("%s; going on with the nodes of the last time, closed for new attempts", error)
        self._opened_s = self._stocked_s = time.monotonic()
        self._watch()
        return nodes

    # -- commands -----------------------------------------------------------------------------------

    def _new_attempt(self, command: Start, job: Job) -> Attempt:
        folder = attempt_folder(self._root, command.job_id, command.epoch)
        return Attempt(start=command, job=job, folder=folder)

    async def _bring_up(self, attempt: Attempt) -> bool:
        """Submit the attempt unless it is in Slurm already."""
        try:
            attempt.slurm_id = await self._submitter.find(attempt)
            if attempt.slurm_id is None:
                if await _is_fenced(attempt):
                    self._end(attempt, _stopped_early(attempt))
                    return True
                attempt.slurm_id = await self._submitter.submit(attempt, self._stock.offers)
            attempt.submitted_s = time.monotonic()
            await asyncio.to_thread(attempts.write_submission, attempt.folder, attempt.submission)
            self._hurry()
        except script.NodesGone as error:
            self._end(attempt, Outcome(cause=Cause.NODE_LOST, message=str(error)))
        except (Refused, UserUnknown, script.Unsuitable, OSError) as error:
            self._end(attempt, Outcome(cause=Cause.START_FAILED, message=str(error)))
        return True

    async def _bring_down(self, attempt: Attempt) -> bool:
        assert attempt.stop is not None
        grace_s = attempt.stop.grace_s
        if await _is_fenced(attempt):
            # Nothing can start any more. Slurm's own word that the job is gone ends the attempt.
            if attempt.slurm_id is not None:
                await self._client.cancel(attempt.slurm_id)
                self._hurry()
                return True
        elif attempt.slurm_id is not None:
            with suppress(OSError):  # without the file, the supervisor takes the job's own grace
                await asyncio.to_thread(attempt.folder.request_stop, grace_s)
            await self._client.signal_batch(attempt.slurm_id, "TERM")
            self._hurry()
            await asyncio.sleep(grace_s + _STOP_MARGIN_S)
            await self._client.cancel(attempt.slurm_id)
            return True
        await asyncio.sleep(_LOOK_S)  # it is on its way into Slurm
        return False

    # -- what becomes of it -------------------------------------------------------------------------

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        is_fast = now_s < self._fast_until_s
        interval_s = max(self._interval_floor_s, _FAST_S if is_fast else self._settings.poll_interval_s)
        return now_s - self._asked_s >= interval_s

    def _hurry(self) -> None:
        """Ask Slurm often for a while: something is about to change."""
        self._fast_until_s = time.monotonic() + _FAST_FOR_S
        self._kick.set()

    async def _look(self) -> None:
        """See who has started, and whose end is written down: then Slurm is asked at once."""
        waiting = [a for a in self._attempts.values() if a.slurm_id is not None and not a.has_ended_record]

        def read() -> list[tuple[Attempt, float | None, bool]]:
            return [
                (a, None if a.is_started else a.folder.started_s(), a.folder.ended() is not None)
                for a in waiting
            ]

        for attempt, started_s, has_ended in await asyncio.to_thread(read):
            if attempt.key not in self._attempts:
                continue
            self._note_start(attempt, started_s)
            if has_ended:
                attempt.has_ended_record = True
                self._hurry()
                self._asked_s = min(self._asked_s, time.monotonic() - self._settings.poll_interval_s)

    async def _ask(self) -> None:
        """Ask Slurm about all jobs, and at its own pace about the nodes."""
        began_s = time.monotonic()
        jobs = await self._client.jobs()
        by_id = {job.id: job for job in jobs}
        watched = [a for a in self._attempts.values() if a.slurm_id is not None and a.submitted_s < began_s]
        for attempt in watched:
            attempt.state = None if attempt.slurm_id is None else by_id.get(attempt.slurm_id)
        # Nodes first: whoever hears that an attempt's node is lost must not start the next one there.
        is_node_lost = any(a.state is not None and a.state.state in NODE_STATES for a in watched)
        if is_node_lost or began_s - self._stocked_s >= self._settings.poll_interval_s:
            self._stocked_s = began_s
            for event in await self._stock.changes(self._taken(), self._now_s):
                self._say(event)
        for attempt in watched:
            if attempt.key in self._attempts:
                await self._take_in(attempt, attempt.state, jobs)
        if began_s - self._opened_s > watching.ORPHANS_AFTER_S:
            await self._end_orphans(jobs)
        self._asked_s = time.monotonic()
        self._interval_floor_s = (self._asked_s - began_s) / watching.MOST_LOAD

    async def _take_in(self, attempt: Attempt, job: SlurmJob | None, jobs: Sequence[SlurmJob]) -> None:
        """Take in what Slurm says about one attempt; None: it has forgotten the job."""
        assert attempt.slurm_id is not None
        waited_s, limit_s = time.monotonic() - attempt.submitted_s, self._settings.pending_limit_s
        if job is None or parse.is_over(job.state):
            await self._conclude(attempt, job, jobs)
        elif job.state == "PENDING" and attempt.is_started:
            await self._client.cancel(attempt.slurm_id)  # requeued by hand; the next attempt is ours to start
        elif (
            job.state == "PENDING"
            and not attempt.is_taken_back
            and attempt.stop is None
            and waited_s > limit_s
        ):
            attempt.is_taken_back = True
            _log.info("%s: pending for too long (%s)", attempt.start.id, job.reason)
            await self._client.cancel(attempt.slurm_id)

    async def _conclude(self, attempt: Attempt, job: SlurmJob | None, jobs: Sequence[SlurmJob]) -> None:
        """Report the end of an attempt whose Slurm job is over."""
        seen = await asyncio.to_thread(attempts.look, attempt.folder)
        other = seen.runs_as
        if other not in (None, attempt.slurm_id) and self._submitter.is_ours(attempt.key, other, jobs):
            attempt.slurm_id = other  # submitted twice by an accident: this one left it to the other
            return
        state = "NO_SUCH_JOB" if job is None else job.state
        now_s = time.monotonic()
        attempt.over_since_s = attempt.over_since_s or now_s
        is_record_due = seen.is_claimed and seen.ended is None and state not in BY_SLURM
        if is_record_due and now_s - attempt.over_since_s < _RECORD_WAIT_S:
            self._hurry()
            return
        self._note_start(attempt, seen.started_s)
        self._end(
            attempt, _outcome(attempt, state, job, seen), None if seen.ended is None else seen.ended.at_s
        )

    async def _end_orphans(self, jobs: Sequence[SlurmJob]) -> None:
        """Cancel the jobs of ours that no command speaks of: what they belong to is over for the control plane."""
        for job in jobs:
            key = self._submitter.key_of(job.comment)
            if key is not None and key not in self._attempts and not parse.is_over(job.state):
                _log.warning("Slurm job %d is %s, which is over: cancelling it", job.id, job.comment)
                await self._client.cancel(job.id)

    # -- small things -------------------------------------------------------------------------------

    def _taken(self) -> list[Taken]:
        return [
            Taken(
                submission=attempt.submission,
                is_granted=attempt.state is not None and parse.is_granted(attempt.state.state),
            )
            for attempt in self._attempts.values()
        ]

    async def _remembered(self) -> list[Taken]:
        """Return what our jobs take that are in Slurm before any command has spoken of them, by their files."""
        # By attempt: the components of a job on unlike nodes all bear its name.
        alive = {
            key: job
            for job in await self._client.jobs()
            if not parse.is_over(job.state) and (key := self._submitter.key_of(job.comment)) is not None
        }

        def read() -> list[Taken]:
            return [
                Taken(submission=known, is_granted=parse.is_granted(job.state))
                for key, job in alive.items()
                if (known := attempts.read_submission(attempt_folder(self._root, *key))) is not None
            ]

        return await asyncio.to_thread(read)


def _outcome(attempt: Attempt, state: str, job: SlurmJob | None, seen: Seen) -> Outcome:
    if attempt.is_taken_back and not seen.is_claimed:
        reason = attempt.state.reason if attempt.state is not None else ""
        return Outcome(
            cause=Cause.PREEMPTED, message=f"Slurm did not start it in time ({reason or 'no reason given'})"
        )
    if attempt.stop is not None and not seen.is_claimed:
        return _stopped_early(attempt)
    failure = first_failure(attempt.folder.progress)
    found = outcome_of_job(state, job, seen.ended, failure, is_claimed=seen.is_claimed, log=seen.log)
    return replace(found, restarts=restarts(attempt.folder.progress))


def _stopped_early(attempt: Attempt) -> Outcome:
    cause = Cause.CANCELLED if attempt.stop is None else attempt.stop.cause
    return Outcome(cause=cause, message="stopped before it started")


async def _is_fenced(attempt: Attempt) -> bool:
    """Whether no supervisor can start the attempt any more; one that is to stop is fenced here."""

    def fence() -> bool:
        claim = attempt.folder.claim()
        if claim is None and attempt.stop is not None and attempt.folder.path.exists():
            with suppress(OSError):
                attempt.folder.fence()
            claim = attempt.folder.claim()
        return claim is not None and claim.pid == 0

    return await asyncio.to_thread(fence)
