"""The workers of one node: who runs, who is being killed, who is still to start, who is called back."""

import json
import selectors
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from artesian.train.gang import Formation, Gang, place_environment
from artesian.train.heartbeat import Beat
from artesian.train.recovery import CANNOT_START, NOT_FOUND, Failure
from artesian.train.saying import say
from artesian.train.starter import Starter
from artesian.train.words import of_worker
from artesian.train.worker_process import WorkerProcess

_REJOIN_S = 2.0
"""How long a survivor may take to leave the gang that was; then it is killed, and started anew."""

_GONE_S = 60.0
"""How long a killed worker may take to be gone. One that waits in the kernel, for a device or a disk, may never be."""


class Crew:
    """Brings the node's workers from one formation to the next.

    ``on_end`` gets each worker that has ended by itself, ``on_word`` what one says, ``on_failure`` what cannot
    be started, ``on_loss`` the local ranks that a template which has ended has left unborn, and whether the store is.
    """

    def __init__(
        self,
        gang: Gang,
        environ: Mapping[str, str],
        selector: selectors.BaseSelector,
        *,
        on_end: Callable[[WorkerProcess], None],
        on_word: Callable[[WorkerProcess, dict[str, Any]], None],
        on_failure: Callable[[Failure], None],
        on_loss: Callable[[Sequence[int], bool], None],
    ) -> None:
        self._gang = gang
        self._environ = environ
        self._selector = selector
        self._on_end = on_end
        self._on_word = on_word
        self._on_failure = on_failure
        self.starter = Starter(gang, environ, selector, on_worker=self._add, on_loss=on_loss)
        self.running: dict[int, WorkerProcess] = {}
        """By rank; in the order of starting."""
        self.farewell: signal.Signals | None = None
        """Once set nobody is started any more, and who comes late gets this signal."""
        self.is_short = False
        """Whether somebody was not started because of the farewell: the others cannot go on."""
        self._formation: Formation | None = None
        self._dying: dict[int, WorkerProcess] = {}
        """By pid: killed for a restart, not reaped yet."""
        self._left_behind: dict[int, WorkerProcess] = {}
        """By pid: killed, and not gone for so long that nobody waits for them any more."""
        self.gone_by_s: float | None = None
        """When to leave those behind that were killed, and are not gone."""
        self._missing: list[int] = []
        """Local ranks to start when the dying ones are gone."""
        self._rejoining: set[int] = set()
        self.rejoin_by_s: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nobody is there, and nobody is to come."""
        return not (self.running or self._dying or self._missing or self.starter.owed)

    @property
    def is_whole(self) -> bool:
        """Whether all of the formation are at work."""
        return not (self._dying or self._missing or self._rejoining or self.starter.owed)

    @property
    def headcount(self) -> int:
        """How many run, or are about to."""
        return len(self.running) + self.starter.owed

    def beats(self) -> list[Beat]:
        """Return the last signs of life."""
        return [worker.line.beat() for worker in self.running.values()]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all that run."""
        for worker in self.running.values():
            worker.send(number)

    def show_stacks(self) -> None:
        """Have all that run print the stacks of their threads, which takes a moment."""
        for worker in self.running.values():
            worker.ask_for_traces()

    def form(self, formation: Formation | None, at_fault: set[int], patience: float) -> bool:
        """Enter ``formation``, None as a spare, and return whether somebody has survived.

        Workers that can come along are called, unless they are ``at_fault``; the others are killed, and the
        missing ones started when nobody is left who may hold their device.
        """
        survivors = [
            worker
            for worker in self.running.values()
            if formation is not None and worker.can_rejoin and worker.rank not in at_fault
        ]
        for worker in list(self.running.values()):
            if worker not in survivors:
                self._put_down(worker)
        self.starter.forget()
        self._formation = formation
        self._missing, self._rejoining, self.rejoin_by_s = [], set(), None
        if formation is None:
            return False
        self.running = {}
        for worker in survivors:
            self._call(worker, formation, patience)
        alive = {self._gang.local_rank_of(worker.rank) for worker in survivors}
        self._missing = [i for i in range(self._gang.local_workers) if i not in alive]
        self._start_missing()
        return bool(survivors)

    def end(self) -> list[WorkerProcess]:
        """Kill all who run, and whoever comes after; return who ran."""
        self.farewell = signal.SIGKILL
        self.is_short = self.is_short or self.starter.owed > 0
        self.starter.forget()
        self.send(signal.SIGKILL)
        self.gone_by_s = time.monotonic() + _GONE_S
        return list(self.running.values())

    def leave_behind(self, now_s: float) -> None:
        """Go on without waiting for those who were killed long ago, and are not gone."""
        if self.gone_by_s is None or now_s < self.gone_by_s:
            return
        self.gone_by_s = None
        stuck = [*self._dying.values(), *(self.running.values() if self.farewell == signal.SIGKILL else [])]
        for worker in stuck:
            say(
                f"{worker} was killed {_GONE_S:g} s ago, and is not gone: it waits in the kernel, for a device or a disk "
                "perhaps; it is left behind, and may still hold its device and memory"
            )
            self._left_behind[worker.pid] = worker
            self.starter.without_memory.add(self._gang.local_rank_of(worker.rank))
        self.is_short = self.is_short or (bool(stuck) and self.farewell is not None)
        if self.farewell == signal.SIGKILL:
            self.running.clear()
        self._dying.clear()
        self._start_missing()

    def give_up_rejoining(self, now_s: float) -> bool:
        """Start anew those that do not come back in time from the gang that was, and return whether there are any."""
        if self.rejoin_by_s is None or now_s < self.rejoin_by_s:
            return False
        self.rejoin_by_s = None
        gave_up = self.running.keys() & self._rejoining
        for rank in self._rejoining:
            if (worker := self.running.get(rank)) is not None:
                say(f"{worker} does not come back from the lost gang; it starts anew")
                self._missing.append(self._gang.local_rank_of(rank))
                self._put_down(worker)
        self._rejoining.clear()
        self._start_missing()
        return bool(gave_up)

    def reap_orphans(self) -> None:
        """Reap what workers have left behind and has ended."""
        known = [self.running, self._dying, self._left_behind]
        self.starter.reap_orphans([worker for workers in known for worker in workers.values()])

    def close(self) -> None:
        """Kill who is left, and end the template."""
        for worker in [*self.running.values(), *self._dying.values()]:
            worker.kill()
        self.starter.close()

    def _call(self, worker: WorkerProcess, formation: Formation, patience: float) -> None:
        """Tell a survivor its place in the new formation."""
        local_rank = self._gang.local_rank_of(worker.rank)
        env = place_environment(self._gang, formation, local_rank, self._environ)
        now_s = time.monotonic()
        worker.rank = int(env["RANK"])
        self.running[worker.rank] = worker
        self._rejoining.add(worker.rank)
        self.rejoin_by_s = now_s + _REJOIN_S * patience
        try:
            worker.line.control.send(json.dumps({"round": formation.number, "env": env}).encode())
        except OSError:
            self.rejoin_by_s = now_s

    def _put_down(self, worker: WorkerProcess) -> None:
        del self.running[worker.rank]
        self._dying[worker.pid] = worker
        self.gone_by_s = time.monotonic() + _GONE_S
        worker.kill()

    def _start_missing(self) -> None:
        if self._dying or not self._missing or self._formation is None:
            return
        missing, self._missing = self._missing, []
        if self.farewell is not None:
            self.is_short = True
            return
        for local_rank in missing:
            try:
                self.starter.start(self._formation, local_rank)
            except OSError as error:
                rank = self._gang.rank_of(self._formation.node_rank, local_rank)
                code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_START
                what = f"{error.strerror}: {error.filename or self._gang.command[0]}"
                text = f"cannot start worker {rank}: {what}"
                self._on_failure(Failure(rank=rank, text=text, is_suspect=False, exit_code=code))
                return

    def _add(self, worker: WorkerProcess) -> None:
        self.running[worker.rank] = worker
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._reap(worker))
        self._selector.register(worker.line.control, selectors.EVENT_READ, lambda: self._hear(worker))
        if self.farewell is not None:  # it comes too late
            worker.send(self.farewell)

    def _hear(self, worker: WorkerProcess) -> None:
        control = worker.line.control
        try:
            data = control.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(control)
            return
        message = of_worker(data)
        if message is None:
            if not worker.is_unclear:  # once: it may be much
                worker.is_unclear = True
                say(f"{worker} says what makes no sense; that is passed over: {data[:80]!r}")
            return
        number = None if self._formation is None else self._formation.number
        if "offers" in message:
            worker.can_rejoin = True
        elif "rejoined" in message and message["rejoined"] == number:
            self._rejoining.discard(worker.rank)
            worker.told = None  # that it failed in the round before, for the loss of a peer, is over
            if not self._rejoining:
                self.rejoin_by_s = None
        elif (message["round"] == number or message.keys() & {"unfit", "against"}) and self.running.get(
            worker.rank
        ) is worker:
            # What speaks of an older round is over; that a device is no good is said once, and stays so.
            self._on_word(worker, message)

    def _reap(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.pidfd)
        while worker.line.control in self._selector.get_map():
            self._hear(worker)  # what it said last, and that it says no more
        if self._left_behind.pop(worker.pid, None) is not None:
            worker.reap()
            self.starter.without_memory.discard(self._gang.local_rank_of(worker.rank))
            return
        if self._dying.pop(worker.pid, None) is not None:
            worker.reap()
            if not self._dying and self.farewell != signal.SIGKILL:
                self.gone_by_s = None
            self._start_missing()
            return
        if worker.rank in self._rejoining and self.farewell is None:
            # It had no time to hear the call: it had finished, or failed on its own. The round needs its rank.
            worker.reap()
            del self.running[worker.rank]
            self._rejoining.discard(worker.rank)
            self._missing.append(self._gang.local_rank_of(worker.rank))
            self._start_missing()
            return
        self._on_end(worker)
