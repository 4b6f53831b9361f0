"""Replicas of the control plane as real processes on one PostgreSQL."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from artesian.kernel.state import Record, State
from artesian.model.events import JobSubmitted
from artesian.model.job import Job
from artesian.model.plan import Plan
from artesian.server.config import StateDir
from artesian.server.rules import Rules
from artesian.store import StoreUnavailable
from artesian.store.postgres_journal import PostgresJournal
from artesian.store.postgres_lease import Leader, PostgresLease
from artesian.wire import environment as names
from builders import a_job

_PATIENCE_S = 240.0


class Replicas:
    """Processes on the database at ``url``; what jobs run there lies below ``folder``.

    Without ``rules`` they use the local engine and the default policy.
    """

    def __init__(self, url: str, folder: Path, rules: Rules | None = None) -> None:
        self.url = url
        self.folder = folder
        self._rules = [] if rules is None else [rules.encode()]
        self.journal = PostgresJournal.open(url)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._watcher = PostgresLease(url, "a watcher")

    def reconnect(self) -> None:
        """Notice that the database was away."""
        for call in (self._watcher.leader, lambda: self.journal.last_seq):
            with suppress(StoreUnavailable):
                call()

    def start(self) -> "subprocess.Popen[bytes]":
        """Start one more."""
        number = len(self.processes)
        environment = {name: value for name, value in os.environ.items() if name != names.CONFIG}
        environment["XDG_CONFIG_HOME"] = str(self.folder)  # nobody's own settings
        with open(self.folder / f"replica-{number}.log", "wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "artesian.server.headless"),
                    *(self.url, str(self.folder / "state"), *self._rules),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def leader(self) -> Leader | None:
        """Who leads, as the database says."""
        return self._watcher.leader()

    def leading(self) -> "subprocess.Popen[bytes]":
        """Wait until one of the processes that live leads, and return it."""
        found: list[subprocess.Popen[bytes]] = []

        def is_found() -> bool:
            leader = self.leader()
            pid = None if leader is None else int(leader.holder.rpartition(":")[2])
            found[:] = [
                process for process in self.processes if process.pid == pid and process.poll() is None
            ]
            return bool(found)

        self.until(is_found)
        return found[0]

    def until_all_follow(self) -> None:
        """Wait until every process has read the journal. One that starts without its database ends with a hint."""
        self.until(lambda: all("following" in log for log in self._logs()))

    def submit(self, *jobs: Job) -> int:
        """Submit jobs, as an API would."""
        return self.journal.append(self.submission(job) for job in jobs)

    @staticmethod
    def submission(job: Job) -> JobSubmitted:
        """The record of a submit, now."""
        return JobSubmitted(at_s=time.time(), job=job)

    def noting_job(self, id: str, *, sleeps_s: float = 0.0) -> Job:
        """A job that notes each start of its processes in the file ``starts``."""
        script = f'echo "$ARTESIAN_JOB_ID/$ARTESIAN_EPOCH" >> {self.folder}/starts; sleep {sleeps_s}'
        return a_job(
            id,
            devices="1",
            workers=0,
            command=("sh", "-c", script),
            env={"PATH": os.environ["PATH"]},
            grace_s=1.0,
        )

    def starts(self) -> list[str]:
        """All starts that jobs noted."""
        file = self.folder / "starts"
        return file.read_text().split() if file.exists() else []

    def records(self) -> list[Record]:
        """All that is in the journal."""
        return [record for _, record in self.journal.read()]

    def plans(self) -> int:
        """How many plans were decided."""
        return sum(isinstance(record, Plan) for record in self.records())

    def until_planned(self, *, beyond: int) -> None:
        """Wait until there are more plans than ``beyond``."""
        self.until(lambda: self.plans() > beyond)

    def state(self) -> State:
        """The state as of now."""
        return self.journal.load()[0]

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline_s, self.logs()
            time.sleep(0.02)

    def until_over(self) -> State:
        """Wait until every job is over, and return the state."""
        self.until(lambda: all(record.state.is_final for record in self.state().jobs.values()))
        return self.state()

    def logs(self) -> str:
        """What the processes had to say."""
        return "\n".join(self._logs())

    def _logs(self) -> list[str]:
        return [file.read_text() for file in sorted(self.folder.glob("replica-*.log"))]

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        self._watcher.close()
        self.journal.close()


@contextmanager
def replicas_on(url: str, folder: Path, rules: Rules | None = None) -> Iterator[Replicas]:
    """Give replicas, none of which is started yet; end them all."""
    StateDir(folder / "state").create()
    with closing(Replicas(url, folder, rules)) as replicas:
        yield replicas
