"""What the launch agent does: starts a node's workers, sees the first failure, and forms the gang anew.

All waiting is in one ``select``: on the workers' pidfds and sockets, on the template, and on the signals
that the agent gets. A failure is acted on in three steps: it is noted, and so are those that come with it
(``_note``); then the workers that cannot go on are killed (``_regroup``); when those are gone the missing
ones are started (``_start_missing``).
"""

import contextlib
import json
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from artesian.train.gang import Formation, Gang, free_port, place_environment, shared_environment
from artesian.train.recovery import Failure, Recovery, cause_of, describe
from artesian.train.standby import Standby, Store
from artesian.train.watchdog import CHECK_EVERY_S, verdict
from artesian.train.worker_process import (
    WorkerProcess,
    adopt_orphans,
    execute,
    reap_orphans,
)
from artesian.wire.channel import ProgressWriter, agent_file
from artesian.wire.clock import AnchoredClock
from artesian.wire.messages import Layer, Message, WorkerFailed
from artesian.wire.oom import oom_counts

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
_TAIL_LINES = 20
_PREEMPTED = 128 + signal.SIGTERM
_SETTLE_S = 0.05
"""How long other failures may still come that belong to a first one, which may be their effect."""
_TRACES_S = 0.2
_REJOIN_S = 2.0


class Agent:
    """Runs a gang's workers on this node to their end."""

    def __init__(self, gang: Gang, environ: Mapping[str, str]) -> None:
        self._gang = gang
        self._environ = environ
        self._clock = AnchoredClock()
        self._selector = selectors.DefaultSelector()
        self._standby: Standby | None = None
        self._listener: socket.socket | None = None
        self._stores: list[Store] = []
        self._formation: Formation | None = None
        self._running: dict[int, WorkerProcess] = {}
        """By rank; in the order of starting."""
        self._dying: dict[int, WorkerProcess] = {}
        """By pid: killed for a restart, not reaped yet."""
        self._missing: list[int] = []
        """Local ranks to start when the dying ones are gone."""
        self._failures: list[Failure] = []
        self._recovery: Recovery | None = None
        self._patience = 1.0
        self._exit_code = 0
        self._stopped_by: signal.Signals | None = None
        self._kill_at_s: float | None = None
        self._settle_at_s: float | None = None
        self._rejoin_by_s: float | None = None
        self._rejoining: set[int] = set()
        self._kills_before = oom_counts()

    def run(self) -> int:
        """Start the workers, wait until all have ended, and return the agent's exit code.

        It takes over SIGTERM, SIGINT and SIGUSR1 until it returns. Call it from the main thread: what dies
        with the thread that called it is the workers.
        """
        receiver, sender = socket.socketpair()
        with receiver, sender:
            receiver.setblocking(False)
            sender.setblocking(False)
            old_wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            old_handlers = {number: signal.signal(number, _wake) for number in _STOP_SIGNALS}
            self._selector.register(receiver, selectors.EVENT_READ, lambda: self._hear_signals(receiver))
            try:
                self._start()
                while self._is_busy():
                    self._wait()
            finally:
                self._close()
                for number, handler in old_handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(old_wakeup)
        if self._stopped_by is not None and self._exit_code:
            return _PREEMPTED if self._stopped_by == signal.SIGUSR1 else 128 + self._stopped_by
        return self._exit_code

    def _is_busy(self) -> bool:
        is_owed = self._standby is not None and bool(self._standby.owed_ranks())
        return bool(self._running or self._dying or self._missing or self._failures or is_owed)

    def _close(self) -> None:
        for worker in [*self._running.values(), *self._dying.values()]:
            worker.kill()  # only after an error of the agent's own
        if self._standby is not None:
            self._standby.close()
        self._end_stores()
        if self._listener is not None:
            self._listener.close()
        self._selector.close()

    # Starting

    def _start(self) -> None:
        if self._gang.preload:
            adopt_orphans()
            try:
                self._standby = Standby(self._gang.preload, shared_environment(self._gang, self._environ))
            except OSError as error:
                _say(f"no template, workers start the slow way: {error}")
            else:
                self._selector.register(self._standby.control, selectors.EVENT_READ, self._hear_template)
        self._form(0)
        self._missing = list(range(self._gang.local_workers))
        self._start_missing()

    def _form(self, number: int) -> None:
        """Make the formation ``number``, with a store of its own."""
        gang = self._gang
        self._end_stores()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        is_served = self._standby is not None and gang.nodes == 1
        port = gang.master_port
        if is_served:
            self._listener = socket.create_server((gang.master_host, port or 0), backlog=1024)
            port = self._listener.getsockname()[1]
        self._formation = Formation(
            number=number,
            node_rank=gang.node_rank,
            nodes=gang.nodes,
            master_host=gang.master_host,
            master_port=free_port(gang.master_host) if port is None else port,
            is_store_served=is_served,
        )

    def _start_missing(self) -> None:
        """Start the workers that are missing, once nobody is left who may hold their device."""
        if self._dying or not self._missing:
            return
        assert self._formation is not None
        missing, self._missing = self._missing, []
        if self._stopped_by is not None or self._exit_code:
            return
        if self._standby is not None and self._listener is not None:
            try:
                self._standby.fork_store(self._listener)
            except OSError:
                self._lose_template(missing)
                return
        for local_rank in missing:
            if not self._start_one(local_rank):
                return

    def _start_one(self, local_rank: int) -> bool:
        gang, formation = self._gang, self._formation
        assert formation is not None
        env = {
            **shared_environment(gang, self._environ),
            **place_environment(gang, formation, local_rank, self._environ),
        }
        rank = int(env["RANK"])
        log = gang.log_dir / f"rank-{rank}.out" if gang.log_dir is not None and local_rank else None
        try:
            if self._standby is not None:
                self._standby.fork_worker(
                    rank,
                    gang.script,
                    is_module=gang.is_module,
                    env=env,
                    log=log,
                    kills_before=self._kills_before,
                )
            else:
                self._add(execute(rank, gang.command, env, log, self._kills_before))
        except OSError as error:
            code = 127 if isinstance(error, FileNotFoundError) else 126
            text = f"cannot start worker {rank}: {error.strerror}: {error.filename or gang.command[0]}"
            self._fail(Failure(rank=rank, text=text, is_suspect=False, exit_code=code))
            return False
        return True

    def _add(self, worker: WorkerProcess) -> None:
        self._running[worker.rank] = worker
        self._selector.register(worker.pidfd, selectors.EVENT_READ, lambda: self._reap(worker))
        self._selector.register(worker.line.control, selectors.EVENT_READ, lambda: self._hear_worker(worker))
        if self._exit_code or self._stopped_by is not None:  # it comes too late
            worker.send(self._stopped_by or signal.SIGTERM)

    # Waiting

    def _wait(self) -> None:
        """Wait for the next event or deadline, and act on it."""
        deadlines = [self._kill_at_s, self._settle_at_s, self._rejoin_by_s]
        now_s = time.monotonic()
        timeout_s = min((at_s - now_s for at_s in deadlines if at_s is not None), default=None)
        if self._is_watching():
            timeout_s = CHECK_EVERY_S if timeout_s is None else min(timeout_s, CHECK_EVERY_S)
        ready = self._selector.select(None if timeout_s is None else max(0.0, timeout_s))
        for key, _ in ready:
            act: Callable[[], None] = key.data
            act()
        self._keep_deadlines(time.monotonic())
        if self._standby is None or not self._standby.is_owing:
            workers = [*self._running.values(), *self._dying.values()]
            reap_orphans([worker.pid for worker in workers] + [store.pid for store in self._stores])

    def _keep_deadlines(self, now_s: float) -> None:
        if self._kill_at_s is not None and now_s >= self._kill_at_s:
            self._kill_at_s = None
            for worker in self._running.values():
                worker.kill()
        if self._rejoin_by_s is not None and now_s >= self._rejoin_by_s:
            self._give_up_rejoining()
        if self._is_watching():
            self._watch(now_s)
        if self._settle_at_s is not None and now_s >= self._settle_at_s:
            self._settle_at_s = None
            self._regroup(now_s)
        if self._recovery is not None:
            self._note_recovery(self._recovery, now_s)

    def _hear_signals(self, receiver: socket.socket) -> None:
        for number in receiver.recv(4096):
            if number in _STOP_SIGNALS:
                self._pass_on(signal.Signals(number))

    def _pass_on(self, number: signal.Signals) -> None:
        is_repeated_interrupt = number == signal.SIGINT and self._stopped_by == signal.SIGINT
        if self._stopped_by is None and not self._exit_code:
            self._stopped_by = number
        for worker in self._running.values():
            worker.send(signal.SIGKILL if is_repeated_interrupt else number)

    def _hear_template(self) -> None:
        assert self._standby is not None
        control = self._standby.control
        try:
            taken = self._standby.take()
        except ProcessLookupError:
            return
        match taken:
            case WorkerProcess():
                self._add(taken)
            case Store():
                self._stores.append(taken)
            case None if not self._standby.is_alive:
                self._selector.unregister(control)
                self._lose_template([])

    def _lose_template(self, local_ranks: list[int]) -> None:
        """Go on without the template: what it has not started starts the slow way."""
        assert self._standby is not None
        _say("the template has ended; workers start the slow way from here on")
        owed = [rank % self._gang.local_workers for rank in self._standby.owed_ranks()]
        if self._standby.is_alive:
            self._selector.unregister(self._standby.control)
        self._standby.close()
        self._standby = None
        if not self._running:
            assert self._formation is not None
            self._form(self._formation.number)
            self._missing = [*local_ranks, *owed]
            self._start_missing()
        elif local_ranks or owed:
            text = "the template ended before it had started all workers"
            self._note(Failure(rank=-1, text=text, is_suspect=False))

    def _hear_worker(self, worker: WorkerProcess) -> None:
        control = worker.line.control
        try:
            data = control.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(control)
            return
        message: dict[str, Any] = json.loads(data)
        assert self._formation is not None
        if "offers" in message:
            worker.can_rejoin = True
        elif message.get("rejoined") == self._formation.number:
            self._rejoining.discard(worker.rank)
            if not self._rejoining:
                self._rejoin_by_s = None
        elif (
            "failed" in message
            and message["round"] == self._formation.number
            and worker.pid not in self._dying
        ):
            self._hear_error(worker, message["failed"], message.get("trace"))

    def _hear_error(self, worker: WorkerProcess, text: str, trace: str | None) -> None:
        """Act on a worker's word that it has failed; the end of its process may take a second more."""
        if self._can_restart():
            text = f"{worker} failed: {text[:300]}"
            self._note(Failure(rank=worker.rank, text=text, is_suspect=True, exit_code=1, trace=trace))
        elif trace is not None:
            with contextlib.suppress(OSError):
                worker.line.control.send(b'{"yours": true}')

    # The ends of workers

    def _reap(self, worker: WorkerProcess) -> None:
        self._selector.unregister(worker.pidfd)
        if worker.line.control in self._selector.get_map():
            self._hear_worker(worker)  # what it said last
        if worker.line.control in self._selector.get_map():
            self._selector.unregister(worker.line.control)
        worker.reap()
        if self._dying.pop(worker.pid, None) is not None:
            self._start_missing()
            return
        del self._running[worker.rank]
        if worker.shell_code == 0 or self._exit_code:
            return
        if self._stopped_by is not None:
            self._exit_code = worker.shell_code  # asked to stop: no failure
            return
        if tail := worker.log_tail(_TAIL_LINES):
            _say(f"the last lines of {worker.log}:\n{tail}")
        self._note(
            Failure(
                rank=worker.rank,
                text=worker.describe_end(),
                is_suspect=worker.signal is None,
                exit_code=worker.exit_code,
                signal=worker.signal,
                is_oom_kill=worker.is_oom_kill(),
            )
        )

    def _can_restart(self) -> bool:
        assert self._formation is not None
        is_left = self._formation.number < self._gang.max_restarts
        return is_left and self._stopped_by is None and not self._exit_code

    def _note(self, failure: Failure) -> None:
        """Note a failure; those that come with it may tell the cause."""
        self._failures.append(failure)
        if self._settle_at_s is None:
            self._settle_at_s = time.monotonic() + (_SETTLE_S if failure.is_suspect else 0.0)
        elif not failure.is_suspect:
            self._settle_at_s = min(self._settle_at_s, time.monotonic())

    def _regroup(self, now_s: float) -> None:
        """Kill the workers that cannot go on, and call the others to a new formation."""
        failures, self._failures = self._failures, []
        cause = cause_of(failures)
        if not self._can_restart() or cause.exit_code == _PREEMPTED:
            if not self._exit_code:
                self._fail(cause)
            return
        assert self._formation is not None
        number = self._formation.number + 1
        if cause.trace is not None:
            _say(f"{cause.text.partition(' failed')[0]}:\n{cause.trace}")
        _say(f"{cause.text}; restart {number} of {self._gang.max_restarts}")
        steps = [
            beat.step for beat in (w.line.beat() for w in self._running.values()) if beat.step is not None
        ]
        if self._recovery is not None and self._recovery.step_before is not None:
            steps.append(self._recovery.step_before)  # the last one failed on the way
        at_fault = {failure.rank for failure in failures if not failure.is_suspect} or {cause.rank}
        survivors = [w for w in self._running.values() if w.can_rejoin and w.rank not in at_fault]
        self._form(number)
        for worker in list(self._running.values()):
            if worker not in survivors:
                self._put_down(worker)
        if self._standby is not None:
            self._standby.forget()
        for worker in survivors:
            self._call(worker)
        alive = {worker.rank for worker in survivors}
        first = self._formation.node_rank * self._gang.local_workers
        self._missing = [i for i in range(self._gang.local_workers) if first + i not in alive]
        self._recovery = Recovery(
            restart=number,
            cause=cause,
            layer=Layer.IN_PROCESS if survivors else Layer.FORK,
            detected_s=now_s,
            step_before=max(steps, default=None),
        )
        self._start_missing()

    def _put_down(self, worker: WorkerProcess) -> None:
        del self._running[worker.rank]
        self._dying[worker.pid] = worker
        worker.kill()

    def _call(self, worker: WorkerProcess) -> None:
        """Tell a survivor its place in the new formation."""
        assert self._formation is not None
        local_rank = worker.rank % self._gang.local_workers
        env = place_environment(self._gang, self._formation, local_rank, self._environ)
        worker.started_s = time.monotonic()
        self._rejoining.add(worker.rank)
        self._rejoin_by_s = time.monotonic() + _REJOIN_S * self._patience
        try:
            worker.line.control.send(json.dumps({"round": self._formation.number, "env": env}).encode())
        except OSError:
            self._rejoin_by_s = time.monotonic()

    def _give_up_rejoining(self) -> None:
        """Start anew those that do not come back from the gang that was."""
        self._rejoin_by_s = None
        for rank in self._rejoining:
            if (worker := self._running.get(rank)) is not None:
                _say(f"{worker} does not come back from the lost gang; it starts anew")
                self._missing.append(rank % self._gang.local_workers)
                self._put_down(worker)
                if self._recovery is not None:
                    self._recovery.layer = Layer.FORK
        self._rejoining.clear()

    # Watching

    def _is_watching(self) -> bool:
        return bool(self._running) and not self._exit_code and self._stopped_by is None

    def _watch(self, now_s: float) -> None:
        if self._settle_at_s is not None or self._dying:
            return
        hangs = [
            (worker, hang)
            for worker in self._running.values()
            if (hang := verdict(worker.line.beat(), now_s, worker.started_s, self._patience))
        ]
        if not hangs:
            return
        if any(hang.is_frozen for _, hang in hangs):
            hangs = [(worker, hang) for worker, hang in hangs if hang.is_frozen]
        self._patience = min(16.0, self._patience * 2)
        for worker in self._running.values():
            worker.ask_for_traces()
        for worker, hang in hangs:
            self._failures.append(
                Failure(
                    rank=worker.rank,
                    text=f"{worker} {hang.what}",
                    is_suspect=False,
                    signal=signal.SIGKILL,
                    detect_s=now_s - hang.since_s,
                )
            )
        self._settle_at_s = now_s + _TRACES_S

    def _note_recovery(self, recovery: Recovery, now_s: float) -> None:
        if self._missing or self._dying or (self._standby is not None and self._standby.owed_ranks()):
            return
        beats = [worker.line.beat() for worker in self._running.values()]
        record = recovery.record(beats, now_s, self._clock.now_s())
        if record is not None:
            self._recovery = None
            _say(describe(record))
            self._report(record)

    # The last failure

    def _fail(self, failure: Failure) -> None:
        """Report the failure that ends the gang, and end the other workers."""
        at_s = self._clock.now_s()
        self._exit_code = failure.exit_code if failure.exit_code is not None else 128 + (failure.signal or 0)
        for worker in self._running.values():
            worker.send(signal.SIGTERM)
        self._kill_at_s = time.monotonic() + self._gang.grace_s
        _say(failure.text + (f"; ending the other {len(self._running)}" if self._running else ""))
        self._report(
            WorkerFailed(
                rank=failure.rank,
                at_s=at_s,
                exit_code=failure.exit_code,
                signal=failure.signal,
                is_oom_kill=failure.is_oom_kill,
                message=failure.text,
            )
        )

    def _report(self, message: Message) -> None:
        if self._gang.progress_dir is None:
            return
        try:
            writer = ProgressWriter(agent_file(self._gang.progress_dir, self._gang.node_rank))
            writer.send(message)
            writer.close()
        except OSError as error:
            _say(f"cannot report the failure in {self._gang.progress_dir}: {error}")

    def _end_stores(self) -> None:
        for store in self._stores:
            store.end()
        self._stores.clear()


def _say(text: str) -> None:
    print(f"artesian launch: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _wake(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: the wake-up socket has told ``select`` already."""
