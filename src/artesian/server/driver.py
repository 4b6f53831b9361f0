"""The live driver: what happened goes into the journal, the scheduler decides, the engine acts.

Journal before step: events are committed before they are acted on, and a plan before it is carried out.
Others append while a policy thinks, so its plan is a draft until it is compared with what they did.

A driver may be killed at any instant. The next one replays the journal, repeats the commands whose end nobody
reported (which does nothing where they were carried out), and goes on.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from artesian.engines.base import Clock, Engine
from artesian.kernel.scheduler import Scheduler
from artesian.kernel.state import State
from artesian.model.errors import ArtesianError
from artesian.model.events import ClockTicked, Event, NodeJoined, NodeLost
from artesian.model.fleet import Node
from artesian.model.plan import Command, Plan, Start
from artesian.store import Journal, LeaseLost, StoreError, Transaction

_SNAPSHOT_EVERY = 10_000
"""Records between two snapshots, at the least: replaying so many takes a tenth of a second.

Of many jobs, half as many records as jobs: a snapshot takes longer then, and so does loading it.
"""

_log = logging.getLogger(__name__)


class SecondDriver(ArtesianError):  # noqa: N818 - reads as what it is
    """Somebody else writes plans into this driver's journal."""


class Driver:
    """Drives one scheduler with one engine. ``seq`` is the last record that the scheduler's state has.

    Where there are several processes, ``leads`` says whether this one may still act; ``advanced`` hears of
    every record that the state has, committed. ``save_snapshot`` is for who does it in another way than
    ``journal`` does: at once, which is long for many jobs. ``cycled`` gets the seconds of each cycle of the policy, and
    whether its plan came with a notice.
    """

    def __init__(
        self,
        journal: Journal,
        scheduler: Scheduler,
        seq: int,
        engine: Engine,
        clock: Clock,
        *,
        leads: Callable[[], bool] = lambda: True,
        advanced: Callable[[int], None] | None = None,
        save_snapshot: Callable[[State, int], None] | None = None,
        cycled: Callable[[float, bool], object] = lambda *_: None,
    ) -> None:
        self._journal = journal
        self._scheduler = scheduler
        self._seq = self._snapshot_seq = seq
        self._engine = engine
        self._now_s = clock
        self._leads = leads
        self._advanced = advanced
        self._save = save_snapshot or journal.save_snapshot
        self._cycled = cycled
        self._reported: list[Event] = []
        self._has_notice = False
        self.is_in_order = True
        """Whether the scheduler's state is the one after record ``seq``: not in the middle of a step, nor after
        one that failed."""
        self._is_discarded = False
        """Whether the last draft came to nothing, for what others appended meanwhile."""
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Have a look at the journal soon. To be called on the event loop's thread."""
        self._woken.set()

    @property
    def seq(self) -> int:
        """Number of the last record that the scheduler has seen."""
        return self._seq

    async def open(self) -> None:
        """Open the engine, find out what became of the commands decided before, and take stock of its nodes."""
        nodes = await self._engine.open(self._report)
        self._carry_out(self._scheduler.outstanding())
        # The tick makes the scheduler look at what the journal took in while nobody drove: without an event
        # it would take nothing for changed, and a job that waits would wait for the next one's submit.
        self._reported += [*self._inventory(nodes), ClockTicked(at_s=self._now_s())]

    async def run(self, *, idle_exit_s: float | None) -> None:
        """Go on until there has been nothing to do for ``idle_exit_s`` seconds; None: until cancelled."""
        while True:
            self._step()
            is_idle = not (self._scheduler.state.waiting or self._scheduler.state.running)
            is_idle = is_idle and self._scheduler.next_due_s is None
            if not await self._next_occasion(idle_exit_s if is_idle else None):
                return

    async def close(self) -> None:
        """Let go of the engine, whose attempts run on, and leave a snapshot for a quick start."""
        await self._engine.close()
        self.leave_snapshot()

    def leave_snapshot(self) -> None:
        """Save a snapshot where there is something new, and the state is what the journal says."""
        if self.is_in_order and self._seq > self._snapshot_seq:
            self._save_snapshot()

    def _inventory(self, nodes: Sequence[Node]) -> list[Event]:
        """Return what is new about the engine's nodes since the journal's last word."""
        now_s = self._now_s()
        known = self._scheduler.state.nodes
        offered = {node.id for node in nodes}
        lost = [
            NodeLost(at_s=now_s, node_id=id_)
            for id_, record in known.items()
            if record.is_up and id_ not in offered
        ]
        joined = [
            NodeJoined(at_s=now_s, node=node)
            for node in nodes
            if node.id not in known or not known[node.id].is_up or known[node.id].node != node
        ]
        return [*lost, *joined]

    def _step(self) -> None:
        self.is_in_order = False
        reported, self._reported = self._reported, []
        due_s, now_s = self._scheduler.next_due_s, self._now_s()
        if due_s is not None and due_s <= now_s:
            reported.append(ClockTicked(at_s=now_s))
        # Nobody has to wait for the policy: others append while it thinks.
        plan = self._draft(self._write_down(reported))
        if not plan.is_empty:
            plan = self._decide(plan)
        self.is_in_order = True
        if self._advanced is not None:
            self._advanced(self._seq)
        for hold in plan.holds:
            _log.info("%s waits: %s", hold.job_id, hold.code)
        for command in plan.commands:
            _log.info("%s: %s", command.id, command.reason)
        self._carry_out(plan.commands)
        if self._seq - self._snapshot_seq >= max(_SNAPSHOT_EVERY, len(self._scheduler.state.jobs) // 2):
            self._save_snapshot()

    def _draft(self, events: Sequence[Event]) -> Plan:
        cycles, begun_s = self._scheduler.cycles, time.perf_counter()
        plan = self._scheduler.draft(events)
        if self._scheduler.cycles != cycles:
            self._cycled(time.perf_counter() - begun_s, plan.notice is not None)
            self._log_notice(plan.notice)
        return plan

    def _log_notice(self, notice: str | None) -> None:
        """Log it where there was none in the cycle before, and when it is over; /metrics counts each."""
        if notice is not None and not self._has_notice:
            _log.warning("the policy has a notice: %s", notice)
        elif notice is None and self._has_notice:
            _log.info("the policy has no notice any more")
        self._has_notice = notice is not None

    def _write_down(self, reported: Sequence[Event]) -> Sequence[Event]:
        """Append what the engine reported; return that, behind what others have appended."""
        if not reported and self._journal.last_seq == self._seq:
            return ()
        with self._journal.transaction() as transaction:
            fresh = self._fresh(transaction)
            transaction.append(reported)
            # Inside: by the time the transaction is over, somebody may have submitted one more.
            self._seq = transaction.last_seq
        return (*fresh, *reported)

    def _decide(self, plan: Plan) -> Plan:
        """Append the drafted plan, or what is to be done after what others have appended meanwhile."""
        with self._journal.transaction() as transaction:
            late = self._fresh(transaction)
            if late:
                plan = self._scheduler.amend(plan, late)
                if plan.is_empty and self._is_discarded:
                    # Twice in a row. Those who cancel all the time would never let it decide: they have to wait.
                    plan = self._draft(())
                self._is_discarded = plan.is_empty
                self._woken.set()
            if not plan.is_empty:
                transaction.append([plan])
            self._seq = transaction.last_seq
        self._scheduler.adopt(plan)
        return plan

    def _fresh(self, transaction: Transaction) -> list[Event]:
        fresh: list[Event] = []
        for seq, record in transaction.read(after=self._seq):
            if isinstance(record, Plan):
                raise SecondDriver(
                    f"record {seq} of the journal is another driver's plan",
                    hint="let only one control plane use a state folder",
                )
            fresh.append(record)
        return fresh

    def _save_snapshot(self) -> None:
        self._snapshot_seq = self._seq
        try:
            self._save(self._scheduler.state, self._seq)
        except StoreError as error:
            # The journal has everything; without a snapshot the next start only takes longer.
            _log.warning("no snapshot at record %d: %s", self._seq, error)

    def _carry_out(self, commands: Sequence[Command]) -> None:
        for command in commands:
            # Between the commit and here this process may have been paused for so long that another one
            # leads, which has repeated the commands, and heard how they ended.
            if not self._leads():
                raise LeaseLost(f"record {self._seq}", "the lease has run out; its commands are another's")
            if isinstance(command, Start):
                self._engine.start(command, self._scheduler.state.jobs[command.job_id].job_now)
            else:
                self._engine.stop(command)

    async def _next_occasion(self, idle_exit_s: float | None) -> bool:
        """Wait for something to do; False where ``idle_exit_s`` has gone by without."""
        due_s = self._scheduler.next_due_s
        waits = [
            wait
            for wait in (idle_exit_s, None if due_s is None else due_s - self._now_s())
            if wait is not None
        ]
        try:
            async with asyncio.timeout(max(0.0, min(waits)) if waits else None):
                await self._woken.wait()
        except TimeoutError:
            return due_s is not None
        self._woken.clear()
        return True

    def _report(self, event: Event) -> None:
        _log.info("%s", event)
        self._reported.append(event)
        self._woken.set()
