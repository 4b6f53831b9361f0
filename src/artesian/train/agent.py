"""What the launch agent does: starts a node's workers, waits for the first failure, ends the rest.

All waiting is in one ``select``: on the workers' pidfds, and on the signals that the agent gets.
"""

import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from artesian.train.worker_process import WorkerProcess, usable_cpus
from artesian.wire import environment
from artesian.wire.channel import ProgressWriter, agent_file
from artesian.wire.clock import AnchoredClock
from artesian.wire.messages import WorkerFailed
from artesian.wire.oom import oom_counts

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TAIL_LINES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """The workers to start on this node, and where they stand among those of the other nodes.

    ``master_port`` None takes a free port. Without a ``log_dir`` all workers share the agent's output;
    without a ``progress_dir`` failures are reported on stderr only.
    """

    command: tuple[str, ...]
    local_workers: int
    nodes: int = 1
    node_rank: int = 0
    master_host: str = "127.0.0.1"
    master_port: int | None = None
    grace_s: float = 2.0
    progress_dir: Path | None = None
    log_dir: Path | None = None


class Agent:
    """Runs a gang's workers on this node to their end."""

    def __init__(self, gang: Gang, environ: Mapping[str, str]) -> None:
        self._gang = gang
        self._environ = environ
        self._clock = AnchoredClock()
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, WorkerProcess] = {}
        """By rank; in the order of starting."""
        self._exit_code = 0
        self._stopped_by: signal.Signals | None = None
        self._kill_at_s: float | None = None

    def run(self) -> int:
        """Start the workers, wait until all have ended, and return the agent's exit code.

        It takes over SIGTERM and SIGINT until it returns. Call it from the main thread: what dies with
        the thread that called it is the workers.
        """
        receiver, sender = socket.socketpair()
        with receiver, sender:
            receiver.setblocking(False)
            sender.setblocking(False)
            old_wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            old_handlers = {number: signal.signal(number, _wake) for number in _STOP_SIGNALS}
            self._selector.register(receiver, selectors.EVENT_READ)
            try:
                self._start()
                while self._running:
                    self._wait(receiver)
            finally:
                for worker in self._running.values():  # only after an error of the agent's own
                    worker.kill()
                self._selector.close()
                for number, handler in old_handlers.items():
                    signal.signal(number, handler)
                signal.set_wakeup_fd(old_wakeup)
        if self._stopped_by is not None and self._exit_code:
            return 128 + self._stopped_by
        return self._exit_code

    def _start(self) -> None:
        gang = self._gang
        kills_before = oom_counts()
        port = free_port(gang.master_host) if gang.master_port is None else gang.master_port
        for local_rank in range(gang.local_workers):
            env = worker_environment(gang, local_rank, port, self._environ)
            rank = int(env["RANK"])
            log = gang.log_dir / f"rank-{rank}.out" if gang.log_dir is not None and local_rank else None
            try:
                worker = WorkerProcess(rank, gang.command, env, log, kills_before)
            except OSError as error:
                code = 127 if isinstance(error, FileNotFoundError) else 126
                text = f"cannot start worker {rank}: {error.strerror}: {error.filename or gang.command[0]}"
                self._fail(rank, text, exit_code=code)
                return
            self._running[rank] = worker
            self._selector.register(worker.pidfd, selectors.EVENT_READ, worker)

    def _wait(self, receiver: socket.socket) -> None:
        """Wait for the next death, signal or end of the grace, and act on it."""
        timeout_s = None if self._kill_at_s is None else max(0.0, self._kill_at_s - time.monotonic())
        ready = self._selector.select(timeout_s)
        ended: list[WorkerProcess] = []
        for key, _ in ready:
            if key.fileobj is receiver:
                for number in receiver.recv(4096):
                    if number in _STOP_SIGNALS:
                        self._pass_on(signal.Signals(number))
            else:
                worker: WorkerProcess = key.data
                self._selector.unregister(worker.pidfd)
                del self._running[worker.rank]
                worker.reap()
                ended.append(worker)
        # Of those that died together, one that a signal ended is the cause sooner than the effect.
        for worker in sorted(ended, key=lambda worker: (worker.signal is None, worker.rank)):
            self._note_end(worker)
        if self._kill_at_s is not None and time.monotonic() >= self._kill_at_s:
            self._kill_at_s = None
            for worker in self._running.values():
                worker.kill()

    def _pass_on(self, number: signal.Signals) -> None:
        is_repeated_interrupt = number == signal.SIGINT and self._stopped_by == signal.SIGINT
        if self._stopped_by is None and not self._exit_code:
            self._stopped_by = number
        for worker in self._running.values():
            worker.send(signal.SIGKILL if is_repeated_interrupt else number)

    def _note_end(self, worker: WorkerProcess) -> None:
        if worker.shell_code == 0 or self._exit_code:
            return
        if self._stopped_by is not None:
            self._exit_code = worker.shell_code  # asked to stop: no failure
            return
        self._fail(
            worker.rank,
            worker.describe_end(),
            exit_code=worker.exit_code,
            signal_number=worker.signal,
            is_oom_kill=worker.is_oom_kill(),
        )
        if tail := worker.log_tail(_TAIL_LINES):
            _say(f"the last lines of {worker.log}:\n{tail}")

    def _fail(
        self,
        rank: int,
        text: str,
        *,
        exit_code: int | None = None,
        signal_number: int | None = None,
        is_oom_kill: bool = False,
    ) -> None:
        """Report the first failure, and end the other workers."""
        at_s = self._clock.now_s()
        self._exit_code = exit_code if exit_code is not None else 128 + (signal_number or 0)
        for worker in self._running.values():
            worker.send(signal.SIGTERM)
        self._kill_at_s = time.monotonic() + self._gang.grace_s
        _say(text + (f"; ending the other {len(self._running)}" if self._running else ""))
        if self._gang.progress_dir is None:
            return
        failure = WorkerFailed(
            rank=rank,
            at_s=at_s,
            exit_code=exit_code,
            signal=signal_number,
            is_oom_kill=is_oom_kill,
            message=text,
        )
        try:
            writer = ProgressWriter(agent_file(self._gang.progress_dir, self._gang.node_rank))
            writer.send(failure)
            writer.close()
        except OSError as error:
            _say(f"cannot report the failure in {self._gang.progress_dir}: {error}")


def worker_environment(gang: Gang, local_rank: int, port: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of one worker: ``environ`` and torchrun's variables on top."""
    rank = gang.node_rank * gang.local_workers + local_rank
    world_size = gang.nodes * gang.local_workers
    # One rendezvous store per attempt, in rank 0: there is no agent store that outlives it.
    ours = {
        "RANK": rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": world_size,
        "LOCAL_WORLD_SIZE": gang.local_workers,
        "GROUP_RANK": gang.node_rank,
        "GROUP_WORLD_SIZE": gang.nodes,
        "ROLE_RANK": rank,
        "ROLE_NAME": "default",
        "ROLE_WORLD_SIZE": world_size,
        "MASTER_ADDR": gang.master_host,
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": environ.get(environment.JOB_ID, "none"),
        "TORCHELASTIC_RESTART_COUNT": max(0, int(environ.get(environment.EPOCH, "1")) - 1),
        "TORCHELASTIC_MAX_RESTARTS": 0,
        "TORCHELASTIC_USE_AGENT_STORE": False,
    }
    defaults = {
        "OMP_NUM_THREADS": max(1, usable_cpus() // gang.local_workers),
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": 1,
    }
    return {
        **{name: str(value) for name, value in defaults.items()},
        **environ,
        **{name: str(value) for name, value in ours.items()},
    }


def free_port(host: str) -> int:
    """Return a TCP port that nobody listens on now, on this machine's address ``host``."""
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _say(text: str) -> None:
    print(f"artesian launch: {text}", file=sys.stderr, flush=True)  # noqa: T201


def _wake(number: int, frame: FrameType | None) -> None:
    """Handle a signal by doing nothing: the wake-up socket has told ``select`` already."""
