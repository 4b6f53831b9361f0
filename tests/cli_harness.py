"""The real command line in a subprocess, on a state folder of the test's own, with real local processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG

import guardian
from artesian.census import discover
from artesian.engines.local.engine import attempt_folder
from artesian.engines.local.records import AttemptFolder
from artesian.kernel.state import State
from artesian.server.config import StateDir
from artesian.server.fleet import nodes_of
from artesian.store import SqliteJournal
from proc import command_line, processes

TIMEOUT_S = 240.0
"""A test that waits for so long has failed."""

for _phase in ("connect", "read", "write", "pool"):  # httpx's own 5 s are none on a busy machine
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, TIMEOUT_S)

UNTIL_TOLD = "while [ ! -e go ]; do sleep 0.01; done"
"""A script that ends when its test calls ``cli.tell()``."""

ARTESIAN = (sys.executable, "-m", "artesian.cli.main")
T = TypeVar("T")
Done = subprocess.CompletedProcess[str]


def until(ask: Callable[[], T]) -> T:
    """Ask again and again until the answer is true, and return it."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (answer := ask()):
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.02)
    return answer


def the_whole_node() -> str:
    """Return a resource string for all devices of this machine's first node."""
    node = nodes_of(discover())[0].node
    return f"{node.accelerator}:{node.devices}"


class Cli:
    """``cli("jobs")`` runs ``artesian jobs``; it lives in ``folder``, its state in ``folder/state``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = StateDir(folder / "state")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "USER") if name in os.environ}
        self.env = {**kept, "ARTESIAN_STATE": str(self.state.path), "LANG": "C.UTF-8"}

    def configure(self, settings: str) -> None:
        """Have the commands go by these settings, from now on."""
        file = self.folder / "artesian.toml"
        file.write_text(settings)
        self.env["ARTESIAN_CONFIG"] = str(file)

    def __call__(self, *words: str | Path, code: int | None = 0, **env: str) -> Done:
        """Run a command to its end; ``code`` is the exit code that it must have, None: any."""
        done = subprocess.run(
            [*ARTESIAN, *map(str, words)],
            env={**self.env, **env},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        said = f"artesian {' '.join(map(str, words))}\n{done.stdout}\n{done.stderr}"
        assert code is None or done.returncode == code, f"{done.returncode}: {said}"
        assert "Traceback" not in done.stderr, said
        return done

    def json(self, *words: str | Path, code: int = 0) -> Any:
        """Run a command with ``-o json``, and return what it printed."""
        return json.loads(self(*words, "-o", "json", code=code).stdout)

    def start(self, *words: str | Path) -> "Running":
        """Start a command, and go on."""
        return Running(self, [*ARTESIAN, *map(str, words)])

    def shell(self, script: str) -> Done:
        """Run a shell command line in which ``$A`` is artesian."""
        return subprocess.run(
            ["bash", "-c", script],
            env={**self.env, "A": " ".join(ARTESIAN)},
            cwd=self.folder,
            capture_output=True,
            timeout=TIMEOUT_S,
            text=True,
        )

    def file(self, name: str = "tiny", script: str = "true", **more: Any) -> Path:
        """Write a job file (JSON is YAML, too) of a job that runs a shell script on one device."""
        job = {"name": name, "devices": 1, "workers": 0, "command": ["sh", "-c", script], **more}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(job))
        return path

    def submit(self, name: str = "tiny", script: str = "true", **more: Any) -> str:
        """Submit such a job, and return its id."""
        return self("submit", self.file(name, script, **more)).stdout.strip()

    def run(self, name: str = "tiny", script: str = "true", *, code: int = 0, **more: Any) -> Done:
        """Run such a job to its end, without a census."""
        return self("run", "--no-census", self.file(name, script, **more), code=code)

    def tell(self) -> None:
        """Let the jobs end that wait for it."""
        (self.folder / "go").touch()

    def journal(self) -> State:
        """Return the state as the journal tells it."""
        with SqliteJournal.open(self.state.journal, read_only=True) as journal:
            return journal.load()[0]

    def is_in(self, job_id: str) -> str:
        """Return the state that a job is in."""
        return self.journal().jobs[job_id].state.value

    def until_in(self, job_id: str, *states: str) -> str:
        """Wait until the job is in one of the states, and return it."""
        return until(lambda: found if (found := self.is_in(job_id)) in states else "")

    def attempt(self, job_id: str, epoch: int = 1) -> AttemptFolder:
        """Return the folder of an attempt."""
        return attempt_folder(self.state.jobs, job_id, epoch)

    def until_printed(self, job_id: str, text: str, epoch: int = 1) -> None:
        """Wait until an attempt has printed ``text``."""
        path = self.attempt(job_id, epoch).stdout
        until(lambda: path.exists() and text in path.read_text())

    def daemons(self) -> list[int]:
        """Return the pids of the daemons of this state folder that live or are about to."""
        sought = {b"artesian.server.daemon", os.fsencode(self.state.path)}
        return [pid for pid in processes() if sought <= set(command_line(pid).split(b"\0"))]

    def kill_daemon(self) -> int:
        """Kill -9 the daemon, wait until it is gone, and return its pid."""
        pid = int(self.state.lock.read_text())
        assert pid in self.daemons()
        os.kill(pid, signal.SIGKILL)
        until(lambda: pid not in self.daemons())
        return pid

    def end(self) -> None:
        """Leave no process behind."""
        for pid in self.daemons():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.daemons())
        for path in self.state.jobs.glob("*/attempt-*"):
            for pid in AttemptFolder(path).survivors():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Running:
    """A command under way, whose output goes to files."""

    def __init__(self, cli: Cli, words: Sequence[str]) -> None:
        self._out = cli.folder / f"out-{time.monotonic_ns()}"
        self._err = self._out.with_suffix(".err")
        mark = {guardian.MARK: str(self._out)}
        guardian.watch(environments=[mark])
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                words,
                env={**cli.env, **mark},
                cwd=cli.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def stdout(self) -> str:
        """What it has printed on stdout so far."""
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        """What it has printed on stderr so far."""
        return self._err.read_text()

    def until_said(self, text: str) -> None:
        """Wait until it has printed ``text`` on stderr."""
        until(lambda: text in self.stderr or self.process.poll() is not None)
        assert text in self.stderr

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(TIMEOUT_S)
        assert "Traceback" not in self.stderr, self.stderr
        return code


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line, on a new state folder."""
    cli = Cli(tmp_path)
    try:
        yield cli
    finally:
        cli.end()
