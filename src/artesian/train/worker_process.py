"""One worker as a process that cannot outlive its agent, whose death is an event on a file descriptor."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artesian.train.heartbeat import Beat, make_page, read_page
from artesian.train.recovery import Failure
from artesian.wire import environment
from artesian.wire.oom import OomCounts, was_oom_killed

_PF_EXITING = 0x4
"""Of a process' flags in /proc, as the kernel's sched.h has them."""
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: a child must not import
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ask a gang to stop: what comes of it the agent decides."""
TRACE_SIGNAL = signal.SIGRTMAX - 1
"""Makes a worker that has a ``Link`` print the stacks of its threads."""


class WorkerProcess:
    """A started worker, in a session of its own.

    So a signal meant for the agent's group reaches the worker once, through the agent, and workers do not share the
    turns that the kernel's scheduler gives to a session. It ends with the agent all the same: see ``die_with``.
    """

    def __init__(
        self,
        rank: int,
        pid: int,
        line: "Line",
        *,
        log: Path | None,
        log_start: int,
        kills_before: OomCounts,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Take over child ``pid``. Use ``execute``, or a ``Standby``."""
        self.rank = rank
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.line = line
        self.log = log
        """File of its output; None where it shares the agent's."""
        self.can_rejoin = False
        """Whether it can form the gang anew within its process."""
        self.told: tuple[Failure, float] | None = None
        """The error with which it leaves, by its own word, and since when, on the monotonic clock."""
        self.is_unclear = False
        """Whether it has said what makes no sense."""
        self._log_start = log_start
        self._kills_before = kills_before
        self._process = process
        self._code: int | None = None

    def send(self, number: int) -> None:
        """Send a signal to the worker alone, if it still runs. SIGKILL takes its children too."""
        if number == signal.SIGKILL:
            self.kill()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self.pidfd, number)

    def ask_for_traces(self) -> None:
        """Have it print the stacks of its threads, where it has said that it listens for that."""
        if self.line.beat().alive_s is not None:
            self.send(TRACE_SIGNAL)

    @property
    def is_leaving(self) -> bool:
        """Whether the kernel is taking the process down: its sockets may be closed, and its end not be told yet."""
        try:
            state, *numbers = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return state in "ZX" or bool(int(numbers[5]) & _PF_EXITING)

    @property
    def is_still(self) -> bool:
        """Whether no thread of the process runs, or waits for a processor or a disk: it is stopped, or waits for good."""
        return bool(states := self._states()) and not states & {"R", "D"}

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP or the like has stopped it."""
        return self._states() == {"T"}

    def _states(self) -> set[str]:
        """Return the states of its threads, as the kernel has them; none where it is gone."""
        threads = Path(f"/proc/{self.pid}/task")
        try:
            return {(it / "stat").read_text().rpartition(")")[2].split()[0] for it in threads.iterdir()}
        except OSError:
            return set()

    def kill(self) -> None:
        """Kill the worker and every process in its group."""
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # it may have taken another user's rights
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Take the exit status of the worker, which has ended, and end what it left running."""
        self.kill()  # before the reaping, while nobody else can have got its number
        if self._process is not None:
            self._code = self._process.wait()
        else:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.pidfd)
        self.line.close()

    @property
    def _ended_with(self) -> int:
        assert self._code is not None
        return self._code

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None where a signal ended it. Valid once reaped."""
        return self._ended_with if self._ended_with >= 0 else None

    @property
    def signal(self) -> int | None:
        """The signal that ended it; None where it left by itself. Valid once reaped."""
        return -self._ended_with if self._ended_with < 0 else None

    @property
    def shell_code(self) -> int:
        """Its exit code as a shell gives it: 128 + the signal where one ended it."""
        return self._ended_with if self.signal is None else 128 + self.signal

    def is_oom_kill(self) -> bool:
        """Whether the kernel's out-of-memory killer ended it."""
        return self.signal == signal.SIGKILL and was_oom_killed(self.pid, self._kills_before)

    def failure(self) -> Failure:
        """Return its end as a failure; one by a signal is nobody else's doing."""
        return Failure(
            rank=self.rank,
            text=self.describe_end(),
            is_suspect=self.signal is None,
            exit_code=self.exit_code,
            signal=self.signal,
            is_oom_kill=self.is_oom_kill(),
        )

    def failure_told(self, message: Mapping[str, Any]) -> Failure:
        """Return as a failure what it says of its error, in the form that ``Link`` has."""
        return Failure(
            rank=self.rank,
            text=f"{self} failed: {message['failed'][:300]}",
            is_suspect=True,
            exit_code=int(message.get("code", 1)),
            is_final=bool(message.get("is_final")),
            trace=message.get("trace"),
        )

    def describe_end(self) -> str:
        """Return how it ended, such as ``worker 1 (pid 4711) was killed by SIGKILL (9)``."""
        if self.signal is None:
            return f"{self} exited with code {self.exit_code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = "signal"
        return f"{self} was killed by {name} ({self.signal})"

    def __str__(self) -> str:
        return f"worker {self.rank} (pid {self.pid})"

    def log_tail(self, lines: int) -> str:
        """Return the last lines that this run wrote to its own file; empty where it has none, or it cannot be read."""
        if self.log is None:
            return ""
        try:
            with self.log.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - 65_536))
                text = file.read().decode(errors="replace")
        except OSError:  # someone has moved it away
            return ""
        return "\n".join(text.splitlines()[-lines:])


class Line:
    """The agent's end of what joins it to a worker: the heartbeat's page, and a socket of messages.

    ``page`` and ``theirs`` are what the worker gets; ``given_away`` closes the latter here, so that the
    worker's end is its alone.
    """

    def __init__(self) -> None:
        self.page = make_page()
        self.control, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.setblocking(False)

    def beat(self) -> Beat:
        """Return the last signs of life."""
        return read_page(self.page)

    def given_away(self) -> None:
        """Close the worker's end here, after it has it."""
        self.theirs.close()

    def close(self) -> None:
        """Close everything. Calling it again does nothing."""
        self.theirs.close()
        if self.control.fileno() >= 0:
            self.control.close()
            os.close(self.page)


def execute(
    rank: int, command: Sequence[str], env: Mapping[str, str], log: Path | None, kills_before: OomCounts
) -> WorkerProcess:
    """Start ``command`` as a worker. Raises OSError when that fails; no process is left then."""
    agent_pid = os.getpid()

    def die_with_agent() -> None:
        if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != agent_pid:  # it died before the line above: no signal will come
            os._exit(128 + signal.SIGKILL)

    line = Line()
    try:
        with contextlib.ExitStack() as stack:
            output, start = None, 0
            if log is not None:
                start = log_start(log)
                output = stack.enter_context(log.open("ab"))
            fds = (line.page, line.theirs.fileno())
            process = subprocess.Popen(
                command,
                env={**env, environment.AGENT_FDS: f"{fds[0]},{fds[1]}"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # as one that is forked has: see the template
                pass_fds=fds,
                preexec_fn=die_with_agent,  # noqa: PLW1509  the agent has one thread
            )
        line.given_away()
        try:
            return WorkerProcess(
                rank,
                process.pid,
                line,
                log=log,
                log_start=start,
                kills_before=kills_before,
                process=process,
            )
        except OSError:
            process.kill()
            process.wait()
            raise
    except OSError:
        line.close()
        raise


def log_start(log: Path) -> int:
    """Return where in ``log`` a worker that starts now begins to write, and make its folder."""
    log.parent.mkdir(parents=True, exist_ok=True)
    return log.stat().st_size if log.exists() else 0


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ``parent`` dies; leave at once where it has."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(128 + signal.SIGKILL)


def ignore_stops() -> None:
    """Have no signal to stop end this process, which workers need that may still save: its agent ends it.

    Slurm tells each process of a step by itself.
    """
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)


def adopt_orphans() -> None:
    """Make this process the parent of descendants that lose theirs, which the template's children do."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use: its affinity, or its cgroup's quota where that is less."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):  # no cgroup v2 here: no quota that we could read
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))


def reap_orphans(known: Sequence[int]) -> None:
    """Reap what has ended of the adopted processes; ``known`` ones are for others to reap."""
    while True:
        try:
            found: Any = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in known:
            return
        os.waitpid(found.si_pid, 0)
