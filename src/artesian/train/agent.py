"""What the launch agent does: starts a node's workers, sees the first failure, and forms the gang anew.

All waiting is in one ``select``: on the workers' pidfds and sockets, on the template, on other agents, and
on the signals that the agent gets. A failure is acted on in three steps: it is noted, and so are those that
come with it (``_note``); it is decided how to go on, by this agent alone or by the leader of several
(``_decide``); and the crew of workers is brought into the new formation (``form``).
"""

import contextlib
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from artesian.train.agent_reports import Reports
from artesian.train.agent_signals import heard, hearing
from artesian.train.crew import Crew
from artesian.train.gang import Formation, Gang
from artesian.train.placed import council_of
from artesian.train.recovery import CANNOT_START, PREEMPTED, Failure, cause_of
from artesian.train.saying import say
from artesian.train.terms import Address, Terms
from artesian.train.unwanted import Unwanted
from artesian.train.watch import Watch
from artesian.train.watchdog import CHECK_EVERY_S
from artesian.train.worker_process import STOPS, WorkerProcess
from artesian.wire.messages import Layer

_TAIL_LINES = 20
_SETTLE_S = 0.05
"""How long other failures may still come that belong to a first one, which may be their effect."""
_LONGEST_SETTLE_S = 1.0
"""The same, where a worker is seen to be on its way out."""
_TRACES_S = 0.2
_LEFT_UNBORN = "the template ended before it had started all workers"


class Agent:
    """Runs a gang's workers on this node to their end; with ``terms``, together with other agents."""

    def __init__(self, gang: Gang, environ: Mapping[str, str], terms: Terms | None = None) -> None:
        self._gang = gang
        self._environ = environ
        self._selector = selectors.DefaultSelector()
        self._crew = Crew(
            gang,
            environ,
            self._selector,
            on_end=self._note_end,
            on_word=self._hear,
            on_failure=self._note,
            on_loss=self._go_on_without_template,
        )
        self.show_stacks = self._crew.show_stacks
        self._reports = Reports(gang, self._crew)
        self._watch = Watch(self._crew, start_limit_s=gang.start_limit_s)
        self._council = None if terms is None else council_of(terms, self, self._selector, say)
        self._budget = gang.budget() if self._council is None else self._council.budget
        self._unwanted = Unwanted(self._council, self._budget)
        self._formation: Formation | None = None
        """None while this node is a spare."""
        self._failures: list[Failure] = []
        self._at_fault: set[int] = set()
        self._exit_code = 0
        self._stopped_by: signal.Signals | None = None
        self._is_yielding = False
        self._has_ended = terms is None
        """Whether the gang was led to its end; on a node that is alone the ends of its workers say that."""
        self._kill_at_s: float | None = None
        self._noted_s = 0.0
        """When the first of the failures was noted that are not decided about."""
        self._settle_at_s: float | None = None

    def run(self) -> int:
        """Start the workers, wait until all have ended, and return the agent's exit code.

        It takes over the stop signals until it returns. Call it from the main thread: workers die with it.
        """
        with hearing(STOPS) as receiver:
            self._receiver = receiver
            self._selector.register(receiver, selectors.EVENT_READ, self._hear_signals)
            try:
                self._begin()
                while self._is_busy():
                    self._wait()
                if self._council is not None and self._stopped_by is not None and self._formation is not None:
                    self._council.resign(self._code())  # a spare just leaves: the gang goes on without it
            finally:
                self._crew.close()  # kills somebody only after an error of the agent's own
                if self._council is not None:
                    self._council.close()
                self._selector.close()
        return self._code()

    def _code(self) -> int:
        is_cut_short = bool(self._exit_code) or self._crew.is_short or not self._has_ended
        if self._stopped_by is not None and is_cut_short:
            return PREEMPTED if self._stopped_by == signal.SIGUSR1 else 128 + self._stopped_by
        return self._exit_code

    def _begin(self) -> None:
        try:
            self._crew.starter.warm_up()
        except OSError as error:
            say(f"no template, workers start the slow way: {error}")
        if self._council is not None:
            self._council.meet()
        else:
            self._form_alone(0, None)

    def _is_busy(self) -> bool:
        if self._failures or not self._crew.is_empty:
            return True
        return self._council is not None and self._council.is_needed(is_stopped=self._stopped_by is not None)

    # Forming

    def _form_alone(self, number: int, cause: Failure | None) -> None:
        gang = self._gang
        is_served = self._crew.starter.can_serve and gang.nodes == 1
        port = gang.master_port
        if port is None or is_served:
            try:
                port = self._crew.starter.open_store(gang.master_host, port)
            except OSError as error:
                text = f"workers cannot meet at {gang.master_host}, port {port or 'any'}: {error.strerror}"
                self._note(Failure(rank=-1, text=text, is_suspect=False, exit_code=CANNOT_START))
                return
        master = (gang.master_host, port)
        self.form(number, gang.nodes, gang.node_rank, master, None, cause, is_served=is_served)

    def open_store(self, host: str) -> tuple[int, bool]:
        """Return the port of a new formation's store on ``host``, and whether it is served; else rank 0 has to."""
        port = self._crew.starter.open_store(host, None)
        return port, self._crew.starter.can_serve

    def form(
        self,
        number: int,
        nodes: int,
        node_rank: int | None,
        master: Address,
        layer: Layer | None,
        cause: Failure | None,
        *,
        is_served: bool = True,
    ) -> None:
        """Enter formation ``number``: keep the workers that can come along, start the others anew."""
        step_before = self._reports.newest_step()
        at_fault = self._at_fault if cause is None else {*self._at_fault, cause.rank}
        self._failures, self._at_fault, self._settle_at_s = [], set(), None
        self._is_yielding, self._formation = False, None
        self._reports.forget()
        self._watch.formed(time.monotonic())
        if node_rank is not None:
            self._formation = Formation(
                number=number,
                node_rank=node_rank,
                nodes=nodes,
                master_host=master[0],
                master_port=master[1],
                is_store_served=is_served,
            )
        has_survivors = self._crew.form(self._formation, at_fault, self._watch.patience)
        if self._formation is not None and (cause is not None or layer is not None):
            self._reports.recovering(
                number,
                cause or Failure(rank=-1, text="a node has joined", is_suspect=False),
                layer or (Layer.IN_PROCESS if has_survivors else Layer.FORK),
                step_before,
                failures=self._budget.restarts,
                is_first_node=self._formation.node_rank == 0,
            )

    def _go_on_without_template(self, local_ranks: Sequence[int], is_store_lost: bool) -> None:
        has_another = self._crew.starter.has_template
        follows = "another one takes its place" if has_another else "workers start the slow way"
        say(f"the template has ended; {follows} from here on")
        if self._formation is None or not (local_ranks or is_store_lost):
            return
        if not self._crew.running and self._council is None:
            self._form_alone(self._formation.number, None)
        else:
            self._note(Failure(rank=-1, text=_LEFT_UNBORN, is_suspect=False, exit_code=1))

    # Waiting

    def _wait(self) -> None:
        """Wait for the next event or deadline, and act on it."""
        now_s = time.monotonic()
        deadlines = [self._kill_at_s, self._settle_at_s, self._crew.rejoin_by_s, self._crew.gone_by_s]
        if self._is_watching():
            deadlines.append(now_s + CHECK_EVERY_S)
        if self._council is not None and not self._council.is_over:
            deadlines.append(self._council.deadline_s())
        timeout_s = min((at_s - now_s for at_s in deadlines if at_s is not None), default=None)
        self._act_on_events(None if timeout_s is None else max(0.0, timeout_s))
        self._keep_deadlines(time.monotonic())
        self._crew.reap_orphans()

    def pause(self, duration_s: float) -> bool:
        """Act on what comes within ``duration_s`` seconds, and return whether this node is to go on."""
        self._act_on_events(duration_s)
        return self._stopped_by is None

    def _act_on_events(self, timeout_s: float | None) -> None:
        events = self._selector.select(timeout_s)
        self._hear_signals()  # first: who told us to stop may have told a worker, too, which is no failure then
        for key, _ in events:
            if self._selector.get_map().get(key.fd) == key:  # else an event before this one has closed it
                key.data()

    def _keep_deadlines(self, now_s: float) -> None:
        if self._kill_at_s is not None and now_s >= self._kill_at_s:
            self._kill_at_s = None
            self._end_now()
        self._crew.leave_behind(now_s)
        if self._crew.give_up_rejoining(now_s):
            self._reports.fall_to_fork()
        if self._is_watching():
            self._look_for_hangs(now_s)
        if self._settle_at_s is not None and now_s >= self._settle_at_s:
            if self._is_cause_to_come(now_s):
                self._settle_at_s = now_s + _SETTLE_S
            else:
                self._settle_at_s = None
                self._decide()
        if self._council is not None:
            self._council.keep(now_s, is_warm=self._crew.starter.is_warm)
        if self._formation is not None and self._is_at_work:
            self._act_on_unwanted(self._unwanted.again(self._formation, now_s))
        if self._crew.is_short and self._kill_at_s is not None:
            # Told to stop while it was formed anew: there is no next step for anybody to finish.
            self._kill_within(self._gang.grace_s)
        self._reports.look(now_s)

    def _hear_signals(self) -> None:
        for number in heard(self._receiver):
            if number in STOPS:
                self._pass_on(signal.Signals(number))

    def _pass_on(self, number: signal.Signals) -> None:
        told = signal.SIGTERM if number == signal.SIGINT else number  # an interrupt, too, leaves time to save
        is_repeated_interrupt = number == signal.SIGINT and self._stopped_by == signal.SIGINT
        if self._stopped_by is None and not self._exit_code:
            self._stopped_by, self._crew.farewell = number, told
            self._kill_within(self._gang.stop_grace_s)
        if is_repeated_interrupt:
            self._end_now()
        else:
            self._crew.send(told)

    def _hear(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        if message.keys() & {"slow", "unfit", "against"} and self._is_at_work:
            self._act_on_unwanted(self._unwanted.judge(worker, worker.rank, message))
        if "failed" in message:
            self._hear_error(worker, message)

    def _act_on_unwanted(self, judged: tuple[Failure, bool] | None) -> None:
        """Have another do the work of whom it is: another node, or on a node that is alone a new process."""
        match judged:
            case cause, False:
                self._note(cause)
            case cause, True if self._council is not None:
                self._exit_code = 1
                self._council.make_room(cause)
                self._crew.end()

    def _hear_error(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        """Act on a worker's word that it has failed; the end of its process may take a second more."""
        trace = message.get("trace")
        worker.told = worker.failure_told(message), time.monotonic()
        if self._can_restart():
            self._note(worker.failure_told(message))
        elif trace is not None:
            with contextlib.suppress(OSError):
                worker.line.control.send(b'{"yours": true}')

    # Failures

    def _note_end(self, worker: WorkerProcess) -> None:
        """Act on the end of a worker that nobody has asked for."""
        self._reports.look(time.monotonic())  # while its last beats can be read
        self._reports.last_step = worker.line.beat().step
        worker.reap()
        del self._crew.running[worker.rank]
        is_yield = self._is_yielding and self._stopped_by is None
        if is_yield or (worker.shell_code == 0 and not self._exit_code):
            self._note_good_end()
            return
        if self._exit_code:
            return
        if self._stopped_by is not None:
            self._exit_code = worker.shell_code  # asked to stop: no failure
            return
        if tail := worker.log_tail(_TAIL_LINES):
            say(f"the last lines of {worker.log}:\n{tail}")
        self._note(worker.failure())

    def _note_good_end(self) -> None:
        """Tell the leader when all of this node's workers have ended as they should."""
        is_busy = bool(self._failures) or not self._crew.is_empty
        if self._council is not None and self._formation is not None and not is_busy:
            self._council.report({"yielded" if self._is_yielding else "done": self._formation.number})

    def _is_cause_to_come(self, now_s: float) -> bool:
        """Whether a worker is on its way out whose loss may be all that the others have complained of."""
        is_known = any(not failure.is_suspect for failure in self._failures)
        if is_known or now_s - self._noted_s > _LONGEST_SETTLE_S:
            return False
        blamed = {failure.rank for failure in self._failures}
        return any(worker.is_leaving for rank, worker in self._crew.running.items() if rank not in blamed)

    @property
    def _is_at_work(self) -> bool:
        return self._formation is not None and self._stopped_by is None and not self._exit_code

    def _can_restart(self) -> bool:
        return self._is_at_work and (self._council is not None or self._budget.has_restarts)

    def _note(self, failure: Failure) -> None:
        """Note a failure; those that come with it may tell the cause."""
        now_s = time.monotonic()
        if not self._failures:
            self._noted_s = now_s
        self._reports.look(now_s)  # the one before may have been over since the last look
        self._failures.append(failure)
        at_s = now_s + (_SETTLE_S if failure.is_suspect else 0.0)
        self._settle_at_s = at_s if self._settle_at_s is None else min(self._settle_at_s, at_s)

    def _decide(self) -> None:
        """Decide how to go on after the failures that were noted, or leave it to the leader."""
        failures, self._failures = self._failures, []
        cause = cause_of(failures)
        self._at_fault = {failure.rank for failure in failures if not failure.is_suspect}
        if self._exit_code:
            return
        if cause.trace is not None:
            say(f"worker {cause.rank}:\n{cause.trace}")
        if self._council is not None and self._stopped_by is None and self._formation is not None:
            told = {"failed": asdict(replace(cause, trace=None)), "number": self._formation.number}
            self._council.report({**told, "is_again": self._reports.is_recovering})
            return
        if self._formation is None or self._stopped_by is not None or not self._budget.covers(cause):
            self._end_workers(cause.code)
            self.blame(cause, self._budget.restarts)
            return
        say(f"{cause.text}; {self._budget.spend(cause)}")
        self._form_alone(self._formation.number + 1, cause)

    # Watching

    def _is_watching(self) -> bool:
        is_anybody_there = bool(self._crew.running) or self._crew.starter.owed > 0
        return is_anybody_there and not self._exit_code and self._stopped_by is None

    def _look_for_hangs(self, now_s: float) -> None:
        if self._settle_at_s is None and (hangs := self._watch.look(now_s)):
            self._failures += hangs
            self._settle_at_s = now_s + _TRACES_S
            if self._council is not None and self._formation is not None:
                self._council.report({"hangs": self._formation.number})

    # The end

    def give_way(self) -> None:
        """Have the workers save and leave after their step, so that the gang can be formed anew."""
        self._is_yielding = True
        self._crew.send(signal.SIGTERM)
        self._note_good_end()  # where they have ended already

    def end(self, exit_code: int) -> None:
        """The leader says that the gang is over."""
        self._has_ended = True
        if exit_code and not self._exit_code and self._stopped_by is None:
            self._end_workers(exit_code)
        self._exit_code = self._exit_code or exit_code  # who was told to stop lets its workers go on saving

    def blame(self, cause: Failure, restarts: int) -> None:
        """Tell of the failure that ends the gang after so many restarts."""
        self._reports.failed(cause, others=self._crew.headcount, restarts=restarts)

    def _end_workers(self, exit_code: int) -> None:
        self._exit_code = exit_code
        self._crew.farewell = self._crew.farewell or signal.SIGTERM
        self._crew.send(signal.SIGTERM)
        self._kill_within(self._gang.stop_grace_s if exit_code == PREEMPTED else self._gang.grace_s)

    def _kill_within(self, duration_s: float) -> None:
        at_s = time.monotonic() + duration_s
        self._kill_at_s = at_s if self._kill_at_s is None else min(self._kill_at_s, at_s)

    def _end_now(self) -> None:
        """Kill who has had the grace, or is not to have it; where it is a stop, say who did not listen."""
        left = ", ".join(map(str, self._crew.end()))
        if self._stopped_by is not None and (left or self._crew.is_short):
            left = left or "workers that were about to start"
            say(f"told to stop by {self._stopped_by.name}, and still there: {left}; killed")
