"""One worker as a process that cannot outlive its agent, whose death is an event on a file descriptor."""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from artesian.wire.oom import OomCounts, was_oom_killed

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: a child must not import


class WorkerProcess:
    """A started worker, in a process group of its own and in the agent's session.

    A group of its own, so that a signal meant for the agent reaches the worker once, through the agent;
    the agent's session, so that everything an attempt has started can be found by it.
    """

    def __init__(
        self,
        rank: int,
        command: Sequence[str],
        env: dict[str, str],
        log: Path | None,
        kills_before: OomCounts,
    ) -> None:
        """Start it. Raises OSError when that fails; no process is left then."""
        self.rank = rank
        self.log = log
        """File of its output; None where it shares the agent's."""
        self._kills_before = kills_before
        self._log_start = 0
        agent_pid = os.getpid()

        def die_with_agent() -> None:
            if _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
                raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
            if os.getppid() != agent_pid:  # it died before the line above: no signal will come
                os._exit(128 + signal.SIGKILL)

        with contextlib.ExitStack() as stack:
            output = None
            if log is not None:
                log.parent.mkdir(parents=True, exist_ok=True)
                output = stack.enter_context(log.open("ab"))
                self._log_start = output.tell()
            self._process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=die_with_agent,  # noqa: PLW1509  the agent has one thread
            )
        self.pid = self._process.pid
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            raise

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the worker alone, if it still runs. SIGKILL takes its children too."""
        if number == signal.SIGKILL:
            self.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """Kill the worker and every process in its group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Take the exit status of the worker, which has ended, and end what it left running."""
        self.kill()  # before the reaping, while nobody else can have got its number
        self._process.wait()
        os.close(self.pidfd)

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None where a signal ended it. Valid once reaped."""
        return self._process.returncode if self._process.returncode >= 0 else None

    @property
    def signal(self) -> int | None:
        """The signal that ended it; None where it left by itself. Valid once reaped."""
        return -self._process.returncode if self._process.returncode < 0 else None

    @property
    def shell_code(self) -> int:
        """Its exit code as a shell gives it: 128 + the signal where one ended it."""
        return self._process.returncode if self.signal is None else 128 + self.signal

    def is_oom_kill(self) -> bool:
        """Whether the kernel's out-of-memory killer ended it."""
        return self.signal == signal.SIGKILL and was_oom_killed(self.pid, self._kills_before)

    def describe_end(self) -> str:
        """Return how it ended, such as ``worker 1 (pid 4711) was killed by SIGKILL (9)``."""
        subject = f"worker {self.rank} (pid {self.pid})"
        if self.signal is None:
            return f"{subject} exited with code {self.exit_code}"
        try:
            name = signal.Signals(self.signal).name
        except ValueError:
            name = "signal"
        return f"{subject} was killed by {name} ({self.signal})"

    def log_tail(self, lines: int) -> str:
        """Return the last lines that this run wrote to its own file; empty where it has none."""
        if self.log is None:
            return ""
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_start, size - 65_536))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def usable_cpus(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many CPUs this process may use: its affinity, or its cgroup's quota where that is less."""
    cpus = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):  # no cgroup v2 here: no quota that we could read
        return cpus
    return cpus if quota == "max" else max(1, min(cpus, int(quota) // int(period)))
