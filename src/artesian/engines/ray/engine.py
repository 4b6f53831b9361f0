"""The Ray engine: commands in, Ray jobs submitted and watched, events out.

What an attempt is can be read from its folder and from Ray, not here: a new engine on the same folder,
told the same commands, goes on where the last one was killed. How it is watched: ``engines.watching``.
"""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from artesian.engines import watching
from artesian.engines.base import Clock, Report
from artesian.engines.instance import instance_of
from artesian.engines.local.engine import attempt_folder
from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray import attempts
from artesian.engines.ray.attempts import Attempt, Seen
from artesian.engines.ray.client import RayClient, RayJob
from artesian.engines.ray.inventory import Stock
from artesian.engines.ray.outcome import outcome_of_verdict, outcome_without_verdict
from artesian.engines.ray.request import (
    LABEL_SELECTOR,
    NodesGone,
    Unsuitable,
    entrypoint,
    place_alone,
    unplaced,
    write_request,
)
from artesian.engines.ray.settings import RaySettings
from artesian.engines.watching import Refused, Unreachable, WatchingEngine
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, Outcome
from artesian.model.plan import Start

_LOOK_S = 0.05
"""How often the files of the attempts are looked at while there are few."""
_QUIET_WAIT_S = 10.0
"""How long the supervisors of a driver that is gone may take to end their part, and records to reach us."""
_STOP_MARGIN_S = 30.0
"""How long after the grace Ray itself kills the driver: one that hangs must not keep the attempt."""
_STOP_AGAIN_S = 2.0

_log = logging.getLogger(__name__)


class RayEngine(WatchingEngine[Attempt]):
    """Runs attempts as Ray jobs; their files are below ``root``, or below the folder of the settings."""

    def __init__(
        self, root: Path, settings: RaySettings, client: RayClient, clock: Clock, name: str = "ray"
    ) -> None:
        super().__init__(name, root.absolute(), clock, scheduler="Ray", look_s=_LOOK_S)
        self._settings = settings
        self._client = client
        self._stock = Stock(self._root / f"{name}-nodes.json", settings.pool, settings.accelerators)
        self._instance = ""
        self._places_alone = True
        self._opened_s = self._ask_at_s = 0.0

    async def open(self, report: Report) -> Sequence[Node]:
        """Begin: return Ray's nodes, or those of the last time where nobody answers."""
        self._report = report
        self._instance = await asyncio.to_thread(instance_of, self._root)
        try:
            nodes = await asyncio.to_thread(self._client.nodes)
            self._stock.take_in(nodes, self._now_s)
        except (Unreachable, Refused) as error:
            self._stock.remember()
            _log.warning("%s; going on with the nodes of the last time", error)
        self._opened_s = time.monotonic()
        self._watch()
        return self._stock.nodes

    # -- from the command to the Ray job ------------------------------------------------------------

    def _new_attempt(self, command: Start, job: Job) -> Attempt:
        return Attempt(
            start=command,
            job=job,
            folder=attempt_folder(self._root, command.job_id, command.epoch),
            submission_id=f"{self._prefix}{command.job_id}-{command.epoch}",
        )

    async def _bring_up(self, attempt: Attempt) -> bool:
        """Submit the attempt unless Ray has it already."""
        try:
            if not await self._is_in_ray(attempt):
                if attempt.stop is not None and await asyncio.to_thread(attempts.fence, attempt.folder):
                    self._end(attempt, Outcome(cause=attempt.stop.cause, message="stopped before it started"))
                    return True
                # What was begun ran under a Ray that has forgotten it, or is fenced off: its files tell.
                if not await asyncio.to_thread(attempts.was_begun, attempt.folder):
                    await asyncio.to_thread(self._submit, attempt)
        except NodesGone as error:
            self._end(attempt, Outcome(cause=Cause.NODE_LOST, message=str(error)))
        except (Refused, Unsuitable, OSError) as error:
            self._end(attempt, Outcome(cause=Cause.START_FAILED, message=str(error)))
        attempt.known_s = time.monotonic()
        attempt.is_known = True
        self._hurry()
        return True

    async def _is_in_ray(self, attempt: Attempt) -> bool:
        """Whether Ray has the job. One that was never made ready to be submitted cannot be there."""
        if not await asyncio.to_thread(attempts.is_requested, attempt.folder):
            return False
        return await asyncio.to_thread(self._client.job, attempt.submission_id) is not None

    def _submit(self, attempt: Attempt) -> None:
        job_id, epoch = attempt.key
        folder = self._on_the_nodes(attempt)
        checkpoints = folder.path.parent / "checkpoints"
        folder.create()
        checkpoints.mkdir(exist_ok=True, mode=0o700)
        placement = attempt.start.placement
        place = place_alone(attempt.job, placement, self._stock.offers) if self._places_alone else None
        write_request(
            attempt.job,
            epoch,
            placement,
            self._stock.offers,
            folder,
            checkpoints,
            self._settings.python,
            self._settings.group_timeout_s,
            is_alone=place is not None,
        )
        try:
            self._client.submit(
                attempt.submission_id,
                entrypoint(self._settings.python, folder.path, is_alone=place is not None),
                {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(attempt.job.grace_s + _STOP_MARGIN_S))},
                {"artesian_job": job_id, "artesian_epoch": str(epoch), "artesian_name": attempt.job.name},
                place,
            )
        except Refused as error:
            if place is None or LABEL_SELECTOR not in str(error):
                raise
            self._places_alone = False  # an older Ray: an actor in a placement group does the same, later
            self._submit(attempt)

    def _on_the_nodes(self, attempt: Attempt) -> AttemptFolder:
        """Return the attempt's folder as the nodes see it; where that is elsewhere, the state has a link to it."""
        job_folder = attempt.folder.path.parent
        if self._settings.folder is not None and not job_folder.exists():
            shared = self._settings.folder / job_folder.name
            shared.mkdir(parents=True, exist_ok=True, mode=0o700)
            job_folder.symlink_to(shared)
        return AttemptFolder(job_folder.resolve() / attempt.folder.path.name)

    # -- from the command to the end ----------------------------------------------------------------

    async def _bring_down(self, attempt: Attempt) -> bool:
        """Have Ray stop the attempt's driver; again until it has ended, whoever is restarted meanwhile."""
        assert attempt.stop is not None
        if not attempt.is_known:
            await asyncio.sleep(_LOOK_S)  # it is on its way into Ray, or fenced off instead
            return False
        with suppress(OSError):  # without the file, the driver takes the job's own grace
            await asyncio.to_thread(attempt.folder.request_stop, attempt.stop.grace_s)
        await asyncio.to_thread(self._client.stop, attempt.submission_id)
        self._hurry()
        await asyncio.sleep(_STOP_AGAIN_S)
        return False

    # -- what becomes of it -------------------------------------------------------------------------

    def _is_due(self) -> bool:
        return time.monotonic() >= self._ask_at_s

    def _hurry(self) -> None:
        """Ask Ray at once, unless it does not answer just now: something has changed."""
        self._ask_at_s = 0.0
        self._kick.set()

    async def _look(self) -> None:
        """See who has started, and whose verdict is there."""
        known = [attempt for attempt in self._attempts.values() if attempt.is_known]
        if not known:
            return

        def read() -> list[tuple[Attempt, Seen | None, float | None]]:
            found: list[tuple[Attempt, Seen | None, float | None]] = []
            for attempt in known:
                is_judged = attempts.read_verdict(attempt.folder) is not None
                seen = (
                    attempts.look(attempt.folder, len(attempt.start.placement.shares)) if is_judged else None
                )
                started_s = None if attempt.is_started or is_judged else attempt.folder.started_s()
                found.append((attempt, seen, started_s))
            return found

        found = await asyncio.to_thread(read)
        if any(seen is not None and attempts.blames_node(seen.verdict) for _, seen, _ in found):
            # First the node: or the next attempt would be placed on it.
            with suppress(Unreachable, Refused):
                await self._take_stock()
        for attempt, seen, started_s in found:
            if attempt.key not in self._attempts:
                continue
            self._note_start(attempt, started_s if seen is None else seen.started_s)
            if seen is not None and seen.verdict is not None:
                self._end_by_verdict(attempt, seen)

    async def _ask(self) -> None:
        """Ask Ray about all jobs, and about the nodes."""
        began_s = time.monotonic()
        jobs = await asyncio.to_thread(self._client.jobs)
        await self._take_stock()
        for attempt in list(self._attempts.values()):
            if attempt.is_known and attempt.known_s < began_s:
                job = jobs.get(attempt.submission_id)
                if job is None or job.is_over:
                    await self._conclude(attempt, job)
                elif job.is_pending:
                    await self._look_for_place(attempt)
        if began_s - self._opened_s > watching.ORPHANS_AFTER_S:
            await self._end_orphans(jobs)
        now_s = time.monotonic()
        self._ask_at_s = now_s + max(self._settings.poll_interval_s, (now_s - began_s) / watching.MOST_LOAD)

    async def _take_stock(self) -> None:
        for event in self._stock.take_in(await asyncio.to_thread(self._client.nodes), self._now_s):
            self._say(event)

    async def _conclude(self, attempt: Attempt, job: RayJob | None) -> None:
        """Report the end of an attempt whose driver is gone, once its verdict is there or nothing runs any more."""
        seen = await asyncio.to_thread(attempts.look, attempt.folder, len(attempt.start.placement.shares))
        if attempt.key not in self._attempts:
            return
        self._note_start(attempt, seen.started_s)
        if seen.verdict is not None:
            self._end_by_verdict(attempt, seen)
            return
        now_s = time.monotonic()
        attempt.over_since_s = attempt.over_since_s or now_s
        if not seen.is_quiet and now_s - attempt.over_since_s < _QUIET_WAIT_S:
            return
        outcome = outcome_without_verdict(
            job, seen.ended, attempt.folder, attempt.stop, is_claimed=seen.is_claimed
        )
        self._end(attempt, outcome)

    async def _look_for_place(self, attempt: Attempt) -> None:
        """End an attempt whose entrypoint waits for a place in vain: Ray would let it wait on."""
        waited_s = time.monotonic() - attempt.known_s
        outcome = unplaced(
            attempt.job,
            attempt.start.placement,
            self._stock.offers,
            attempt.stop,
            waited_s=waited_s,
            timeout_s=self._settings.group_timeout_s,
        )
        if outcome is None or not await asyncio.to_thread(attempts.is_alone, attempt.folder):
            return
        # Fenced off it never starts, whatever Ray does about it from now on.
        if await asyncio.to_thread(attempts.fence, attempt.folder) and attempt.key in self._attempts:
            self._end(attempt, outcome)
            await asyncio.to_thread(self._client.stop, attempt.submission_id)

    async def _end_orphans(self, jobs: dict[str, RayJob]) -> None:
        """Stop the jobs of ours that no command speaks of: what they belong to is over for the control plane."""
        for id_, job in jobs.items():
            job_id, _, epoch = id_.removeprefix(self._prefix).rpartition("-")
            if not id_.startswith(self._prefix) or not epoch.isdigit() or job.is_over:
                continue
            # One that has just ended may still be there for Ray, whose driver is on its way out.
            if (key := (job_id, int(epoch))) not in self._attempts and key not in self._ended:
                _log.warning("Ray job %s belongs to an attempt that is over: stopping it", id_)
                await asyncio.to_thread(self._client.stop, id_)

    def _end_by_verdict(self, attempt: Attempt, seen: Seen) -> None:
        assert seen.verdict is not None
        outcome = outcome_of_verdict(seen.verdict, attempt.folder, attempt.stop)
        # The clocks of two nodes need not agree: an end is never before its start.
        self._end(attempt, outcome, max(float(seen.verdict["at_s"]), seen.started_s or 0.0))

    # -- small things -------------------------------------------------------------------------------

    @property
    def _prefix(self) -> str:
        return f"artesian-{self._instance}.{self.name}-"
