"""The control plane as a command sees it: no server, the same state at the next command.

A request is an event in the journal: once it is there, it is accepted, whatever becomes of us. Then
the daemon is woken, or started where there is none.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

import msgspec

from artesian.census import discover
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.capacity import Capacity
from artesian.model.errors import ArtesianError
from artesian.model.events import CancelRequested, JobSubmitted
from artesian.model.job import Job
from artesian.model.plan import Reason
from artesian.model.quota import Teams
from artesian.policy import explain
from artesian.policy import registry as policies
from artesian.policy.outlook import Outlook
from artesian.server.bell import ring
from artesian.server.config import IDLE_EXIT_S, StateDir, private
from artesian.server.fleet import nodes_of
from artesian.store import SqliteJournal

_ID_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_ID_LENGTH = 5
_RESTARTS = 5
"""Daemons that may die under a follower, one after the other, before it gives up."""


class UnknownJob(ArtesianError, LookupError):  # noqa: N818 - reads as what it is
    """No job has this id."""


class JobImpossible(ArtesianError):  # noqa: N818 - reads as what it is
    """The whole fleet could not hold the job."""


class DaemonFailed(ArtesianError):  # noqa: N818 - reads as what it is
    """The daemon does not stay alive."""


class ControlPlane:
    """Submits, cancels and reads, on the state folder. Close it, or use it in ``with``."""

    def __init__(
        self,
        state_dir: StateDir,
        *,
        idle_exit_s: float = IDLE_EXIT_S,
        policy: str = policies.DEFAULT,
        teams: Teams | None = None,
        pools: Mapping[str, str] | None = None,
    ) -> None:
        state_dir.create()
        self.dir = state_dir
        self._journal = SqliteJournal.open(state_dir.journal)
        self._idle_exit_s = idle_exit_s
        self._policy = policy
        self._teams = teams or Teams()
        self._pools = dict(pools or {})
        self._state, self._seq = State(), 0
        self._is_loaded = False
        self._scheduler: Scheduler | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        self._restarts = 0

    def __enter__(self) -> "ControlPlane":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the journal. The daemon stays."""
        self._journal.close()

    # -- reading ------------------------------------------------------------------------------------

    def state(self) -> State:
        """Return the state as of now. It is the same object every time, brought up to date."""
        if not self._is_loaded:
            self._state, self._seq = self._journal.load()
        self._is_loaded = False  # a Ctrl-C in the middle of a record would leave half of it: then load again
        for seq, record in self._journal.read(after=self._seq):
            self._state.apply(record)
            self._seq = seq
        self._is_loaded = True
        return self._state

    def why(self, record: JobRecord) -> Reason | None:
        """Return why the job waits, in words; None where it does not, or would start in the next cycle."""
        scheduler = self._current()
        return None if scheduler is None else scheduler.why(record.job.id)

    def outlook(self, record: JobRecord) -> Outlook | None:
        """Return when the job is likely to start, and what would let it start now; None where it is not queued."""
        scheduler = self._current()
        return None if scheduler is None else scheduler.outlook(record.job.id, self._teams)

    def _current(self) -> Scheduler | None:
        state = self.state()
        if not state.nodes:
            return None  # no daemon has taken stock of this machine yet, let alone decided anything
        if self._scheduler is None or self._scheduler.state is not state:
            self._scheduler = Scheduler(policies.pooled(self._policy, self._pools, self._teams), state)
        return self._scheduler

    def job(self, job_id: str) -> JobRecord:
        """Return the job with this id, or with an id or name that only one job's id or name begins with.

        Of several jobs with exactly this name, the latest. Raises UnknownJob.
        """
        jobs = self.state().jobs
        if job_id in jobs:
            return jobs[job_id]
        named = [record for record in jobs.values() if record.job.name == job_id]
        if named:
            return max(named, key=lambda record: record.submitted_s)
        begin = [record for id_, record in jobs.items() if id_.startswith(job_id)]
        if len(begin) == 1:
            return begin[0]
        if begin:
            ids = ", ".join(sorted(record.job.id for record in begin)[:5])
            raise UnknownJob(
                f"job {job_id!r}: expected one job, got {len(begin)} that begin so",
                hint=f"name one of them: {ids}{', …' if len(begin) > 5 else ''}",
            )
        raise UnknownJob(f"job {job_id!r} is not known here", hint="artesian jobs lists the jobs")

    # -- requests -----------------------------------------------------------------------------------

    def new_job_id(self, name: str) -> str:
        """Return an id that no job has."""
        jobs = self.state().jobs
        while True:
            suffix = "".join(secrets.choice(_ID_LETTERS) for _ in range(_ID_LENGTH))
            if (job_id := f"{name}-{suffix}") not in jobs:
                return job_id

    def check(self, job: Job) -> None:
        """Raise JobImpossible where this machine could never hold the job."""
        capacity = Capacity(entry.node for entry in nodes_of(discover()))
        if (reason := explain.impossible(job, capacity)) is not None:
            raise JobImpossible(f"job {job.name} cannot run here: {reason.text}", hint=reason.unblock)

    def submit(self, job: Job) -> None:
        """Accept the job. Raises JobImpossible as ``check`` does."""
        self.check(job)
        self._journal.append([JobSubmitted(at_s=time.time(), job=job)])
        self.wake()

    def cancel(self, job_id: str, user: str) -> None:
        """Ask for the job to be stopped. Raises UnknownJob."""
        record = self.job(job_id)
        self._journal.append([CancelRequested(at_s=time.time(), job_id=record.job.id, user=user)])
        self.wake()

    # -- the daemon ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """See to it that the daemon reads the journal now."""
        if not ring(self.dir.bell):
            self._start_daemon()

    def revive(self) -> None:
        """Start a daemon if there is work and none that does it. For followers, every now and then.

        Raises DaemonFailed where one after the other dies.
        """
        state = self.state()
        has_work = bool(state.waiting or state.holding) or state.next_due_s is not None
        if not has_work or ring(self.dir.bell):
            return
        if self._daemon is not None:
            code = self._daemon.poll()
            if code is None:
                return  # it is starting
            if code != 0:
                self._restarts += 1
            if self._restarts >= _RESTARTS:
                self._give_up(code)
        self._start_daemon()

    def _start_daemon(self) -> None:
        # It inherits nothing that a job could come to depend on: jobs bring their environment along.
        environment = {key: os.environ[key] for key in ("HOME", "PATH", "LANG") if key in os.environ}
        try:
            with open(self.dir.daemon_log, "ab", opener=private) as log:
                self._daemon = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "artesian.server.daemon",
                        str(self.dir.path),
                        str(self._idle_exit_s),
                        self._policy,
                        msgspec.json.encode(self._teams.teams).decode(),
                        msgspec.json.encode(self._pools).decode(),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise DaemonFailed(
                f"the control plane's daemon cannot be started: {error}",
                hint="what was accepted stays so; artesian jobs starts the daemon again",
            ) from error

    def _give_up(self, code: int) -> NoReturn:
        latest = ""
        with suppress(OSError, IndexError):
            latest = self.dir.daemon_log.read_text(errors="replace").splitlines()[-1]
        raise DaemonFailed(
            f"the control plane's daemon ended {self._restarts} times, at last with code {code}: {latest}",
            hint=f"see {self.dir.daemon_log}; jobs that run go on meanwhile",
        )
