"""The control plane as a command sees it: no server, the same state at the next command.

A request is an event in the journal: once it is there, it is accepted, whatever becomes of us. Then
the daemon is woken, or started where there is none.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import count

from msgspec.structs import replace

from artesian.census import discover
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.kernel.told import job_view, moves_view, node_view
from artesian.kernel.training import JobReport, TrainingSummary
from artesian.model.capacity import Capacity
from artesian.model.events import (
    CancelRequested,
    JobSubmitted,
    NodeExcluded,
    NodeReturned,
    ResizeRequested,
)
from artesian.model.fleet import NO_CENTER
from artesian.model.job import Job
from artesian.model.jobfile import parse_job
from artesian.model.ledger import Waterfall
from artesian.model.plan import Reason
from artesian.model.resources import resized
from artesian.model.views import Decision, Happening, JobFile, JobList, JobView, MovesView, NodeView, Over
from artesian.policy import explain
from artesian.policy.outlook import Outlook
from artesian.server import report
from artesian.server.board import recent
from artesian.server.config import IDLE_EXIT_S, StateDir
from artesian.server.finding import (
    check_excluded,
    check_not_over,
    check_possible,
    known_attempt,
    known_node,
    new_job_id,
    no_such_job,
)
from artesian.server.fleet import nodes_of
from artesian.server.fleet_board import held_milli, jobs_by_node
from artesian.server.follow import Follower, log_file, read_piece
from artesian.server.rules import Rules
from artesian.server.waking import Waker
from artesian.store import SqliteJournal

_ID_LETTERS = 5
_LOOK_S = 0.1
"""Between two looks of a follower."""
_REVIVE_EVERY = 10
"""Looks between two checks that the daemon lives."""
_SHOWN_ACTIVE, _SHOWN_OVER = 200, 10
_STOCK_S = 20.0
"""How long a daemon may take to find the nodes."""


class ControlPlane:
    """Submits, cancels and reads, on the state folder. Close it, or use it in ``with``.

    ``user`` is in whose name. What commands ask, a server's ``client.Client`` answers the same way.
    """

    is_local = True

    def __init__(
        self,
        state_dir: StateDir,
        *,
        user: str = "",
        idle_exit_s: float = IDLE_EXIT_S,
        rules: Rules | None = None,
    ) -> None:
        state_dir.create()
        self.dir = state_dir
        self._journal = SqliteJournal.open(state_dir.journal)
        self._user = user
        self._rules = rules or Rules()
        self._waker = Waker(state_dir, self._rules, idle_exit_s=idle_exit_s)
        self._state, self._seq = State(), 0
        self._is_loaded = False
        self._scheduler: Scheduler | None = None

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
        return None if scheduler is None else scheduler.outlook(record.job.id, self._rules.teams)

    def _current(self) -> Scheduler | None:
        state = self.state()
        if not state.nodes:
            return None  # no daemon has taken stock of this machine yet, let alone decided anything
        if self._scheduler is None or self._scheduler.state is not state:
            self._scheduler = Scheduler(self._rules.make_policy(), state)
        return self._scheduler

    def record(self, job: str) -> JobRecord:
        """Return the job with this id, or with an id or name that only one job's id or name begins with.

        Of several jobs with exactly this name, the latest. Raises UnknownJob.
        """
        state = self.state()
        if (found := state.record(job)) is not None:
            return found
        named = [record for record in state.records() if record.job.name == job]
        if named:
            return max(named, key=lambda record: record.number)
        begin = [record for record in state.records() if record.job.id.startswith(job)]
        if len(begin) == 1:
            return begin[0]
        raise no_such_job(job, [record.job.id for record in begin], len(begin))

    def view(self, record: JobRecord) -> JobView:
        """Return what is told of a job."""
        return replace(job_view(record), waits_for=self.why(record))

    # -- questions, as ``client.Client`` answers them ---------------------------------------------------

    def jobs(self, *, is_all: bool = False) -> JobList:
        """Return the jobs in the order of their submits: the latest, or all of them."""
        state, more = self.state(), 0
        if is_all:
            records = sorted(state.records(), key=lambda record: record.number)
        else:
            records, more = recent(state.jobs.values(), active=_SHOWN_ACTIVE, over=_SHOWN_OVER)
            more += len(state.archive)
        self.revive()
        return JobList(jobs=tuple(map(job_view, records)), more=more)

    def job(self, job: str) -> JobView:
        """Return a job. Raises UnknownJob."""
        found = self.view(self.record(job))
        self.revive()
        return found

    def decision(self, job: str) -> Decision:
        """Return what was last decided about a job. Raises UnknownJob."""
        record = self.record(job)
        found = report.decided(self, record)
        self.revive()
        return found

    def moves(self) -> MovesView:
        """Return the moves of running jobs with which waiting ones can start. Nobody is moved by that."""
        found = moves_view(self._current(), time.time())
        self.revive()
        return found

    def training(self, job: str) -> TrainingSummary:
        """Return what a job has trained. Raises UnknownJob."""
        return report.training(self, self.record(job))

    def report(self, job: str) -> JobReport:
        """Return a job, what it has trained, and where the compute went meanwhile. Raises UnknownJob."""
        return report.job_report(self, self.record(job))

    def waterfall(self, *, job: str | None = None, since_s: float | None = None) -> Waterfall:
        """Return where the compute went: ever, while a job was there, or in the last seconds."""
        now_s = time.time()
        state = self.state()
        if job is not None:
            found = report.job_report(self, self.record(job)).waterfall
        else:
            first_s = now_s if state.first_s is None else state.first_s
            start_s = first_s if since_s is None else now_s - since_s
            found = report.waterfall_between(self, start_s, now_s)
        self.revive()
        return found

    def output(
        self, job: str, *, attempt: int | None = None, worker: int | None = None, is_err: bool = False
    ) -> Iterator[bytes]:
        """Yield what an attempt has printed so far. Raises UnknownJob, AttemptUnknown."""
        record = self.record(job)
        epoch = known_attempt(record, attempt)
        path = log_file(self.dir.jobs, record.job.id, epoch, worker=worker, is_err=is_err)
        offset = 0
        while data := read_piece(path, offset):
            offset += len(data)
            yield data

    def follow(self, job: str) -> Iterator[Happening]:
        """Yield what happens to a job until it is over, and what it prints. Raises UnknownJob."""
        job_id = self.record(job).job.id
        follower = Follower(self.dir.jobs)
        for look in count(1):
            record = self.record(job_id)
            for happening in follower.look(record, self.why(record)):
                yield happening
                if isinstance(happening, Over):
                    return
            if look % _REVIVE_EVERY == 0:
                self.revive()
            time.sleep(_LOOK_S)

    def ids(self, beginning: str) -> list[str]:
        """Return the ids that begin so, the latest first."""
        state = self.state()
        return [
            id_ for id_ in (*reversed(state.jobs), *reversed(state.archive.ids)) if id_.startswith(beginning)
        ]

    def iter_nodes(self, *, pool: str | None = None, center: str | None = None) -> Iterator[NodeView]:
        """Yield the nodes in the order of their ids. Where no daemon has taken stock yet, one does so now."""
        state = self._state_with_nodes()
        views = self._node_views(state)
        for id_ in sorted(state.nodes):
            of_pool = state.nodes[id_].node.pool
            if pool in (None, of_pool) and center in (None, self._center(of_pool)):
                yield views(id_)

    def _node_views(self, state: State) -> Callable[[str], NodeView]:
        """Return what gives the view of a node, by its id, as the state is now."""
        held, jobs = held_milli(state.capacity), jobs_by_node(state)

        def view(id_: str) -> NodeView:
            record = state.nodes[id_]
            return node_view(
                record,
                held_milli=int(held[state.capacity.row[id_]]),
                jobs=tuple(jobs.get(id_, ())),
                center=self._center(record.node.pool),
            )

        return view

    def _center(self, pool: str) -> str:
        return self._rules.centers.get(pool, NO_CENTER)

    def _state_with_nodes(self) -> State:
        until_s = time.monotonic() + _STOCK_S
        state = self.state()
        if not state.nodes:
            self.wake()
        while not state.nodes and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
            state = self.state()
        return state

    def _node(self, id_: str) -> NodeView:
        return self._node_views(self.state())(id_)

    # -- requests -----------------------------------------------------------------------------------

    def check(self, file: JobFile) -> None:
        """Raise JobFileError or JobImpossible where the job could not be submitted."""
        self._read(file)

    def _capacity_for(self, job: Job) -> Capacity:
        """Return what the engines' nodes have, to see whether they could ever hold the job."""
        if not self._rules.engines:
            return Capacity(entry.node for entry in nodes_of(discover()))
        # Asking an engine takes time; what the journal knows is enough where it can hold the job.
        known = Capacity(record.node for record in self.state().nodes.values())
        if explain.impossible(job, known) is None:
            return known
        return Capacity(asyncio.run(self._rules.nodes(self.dir.jobs, nodes_of(discover()), time.time)))

    def submit(self, file: JobFile) -> JobView:
        """Accept the job. Raises as ``check`` does."""
        job = self._read(file)
        job = replace(job, id=new_job_id(job.name, self.state(), _ID_LETTERS))
        self._journal.append([JobSubmitted(at_s=time.time(), job=job)])
        self.wake()
        return self.view(self.record(job.id))

    def cancel(self, job: str) -> JobView:
        """Ask for the job to be stopped; return it as it was then. Raises UnknownJob, AlreadyOver."""
        record = self.record(job)
        check_not_over(record)
        before = self.view(record)
        id_ = record.job.id
        self._journal.append([CancelRequested(at_s=time.time(), job_id=id_, user=self._user)])
        self.wake()
        return before

    def resize(self, job: str, devices: str) -> JobView:
        """Have a job ask for so many devices, and return it as it is then.

        Raises UnknownJob, AlreadyOver, UnitError, JobImpossible.
        """
        record = self.record(job)
        check_not_over(record)
        wanted = replace(record.job, devices=resized(record.job.devices, devices))
        if wanted.devices != record.job.devices:
            check_possible(wanted, self._capacity_for(wanted))
            self._journal.append(
                [ResizeRequested(at_s=time.time(), job_id=wanted.id, devices=wanted.devices, user=self._user)]
            )
            self.wake()
        return self.view(self.record(wanted.id))

    def exclude(self, node: str, *, reason: str, is_stopping: bool = False) -> NodeView:
        """Have nothing more start on a node. Raises UnknownNode."""
        known_node(self._state_with_nodes(), node)
        self._journal.append(
            [
                NodeExcluded(
                    at_s=time.time(), node_id=node, reason=reason, user=self._user, is_stopping=is_stopping
                )
            ]
        )
        self.wake()
        return self._node(node)

    def return_node(self, node: str) -> NodeView:
        """Have an excluded node used again. Raises UnknownNode, NotExcluded."""
        check_excluded(known_node(self._state_with_nodes(), node))
        self._journal.append([NodeReturned(at_s=time.time(), node_id=node, user=self._user)])
        self.wake()
        return self._node(node)

    def _read(self, file: JobFile) -> Job:
        job = parse_job(
            file.text,
            source=file.source,
            job_id="new",
            base_dir=file.base_dir,
            user=self._user,
            env=file.env,
            home=file.home,
        )
        check_possible(job, self._capacity_for(job))
        return job

    # -- the daemon ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """See to it that the daemon reads the journal now."""
        self._waker.wake()

    def revive(self) -> None:
        """Start a daemon if there is work and none that does it. For followers, every now and then.

        Raises DaemonFailed where one after the other dies.
        """
        state = self.state()
        if state.waiting or state.holding or state.next_due_s is not None:
            self._waker.revive()
