"""The agent's side of the template: workers that start in milliseconds, because their imports are done."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from artesian.train.worker_process import Line, WorkerProcess, log_start
from artesian.wire.oom import OomCounts

TORCH_MODULES = (
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "torch.utils.data",
    "torch._dynamo",  # what the first optimizer imports, for more than a second
    "artesian.train.run",
    "artesian.train.membership",
)
_GONE_S = 5.0
_USES_TORCH = re.compile(
    rb"^[ \t]*(?:from\s+|import\s+(?:[\w. \t]+,\s*)*)"
    rb"(?:torch|lightning|transformers|accelerate|deepspeed|artesian\.train)\b",
    re.MULTILINE,
)


def uses_torch(script: Path) -> bool:
    """Return whether ``script`` imports torch, or something that does; False where it cannot be read."""
    try:
        return _USES_TORCH.search(script.read_bytes()) is not None
    except OSError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A worker that the template was asked for."""

    rank: int
    line: Line
    log: Path | None
    log_start: int
    kills_before: OomCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A process that hosts one round's store."""

    pid: int

    def end(self) -> None:
        """End it and what it has started, and take its exit status."""
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Standby:
    """A started template. ``control`` is readable when it has something to say.

    ``is_alive`` turns False when it ends, as it does when its imports fail: workers then start the slow way.
    """

    def __init__(self, modules: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it with the workers' environment: some libraries read it when they are loaded.

        Raises OSError when that fails.
        """
        self._env = dict(env)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-u",
                    "-m",
                    "artesian.train.template",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    ",".join(modules),
                ],
                env={**env, "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
        self.pid = self._process.pid
        self.is_alive = True
        self.has_served = False
        """Whether a worker has come of it."""
        self._asked: dict[int, _Asked | None] = {}
        self._given_up: set[int] = set()
        """What was asked for, is not wanted any more, and may begin all the same."""
        self._next_id = 0

    def fork_worker(
        self,
        rank: int,
        script: Sequence[str],
        *,
        is_module: bool,
        env: Mapping[str, str],
        log: Path | None,
        kills_before: OomCounts,
    ) -> None:
        """Ask for a worker; ``take`` returns it. Raises OSError when it cannot be asked for.

        Of a template that has ended it is asked as well: ``take`` is about to tell what has come of that.
        """
        start = 0 if log is None else log_start(log)
        line = Line()
        request = {
            "kind": "worker",
            "script": script[0],
            "args": list(script[1:]),
            "is_module": is_module,
            # What differs: requests queue in the socket while the template imports, and it holds little.
            "env": {name: value for name, value in env.items() if self._env.get(name) != value},
            "log": None if log is None else str(log),
        }
        asked = _Asked(rank=rank, line=line, log=log, log_start=start, kills_before=kills_before)
        try:
            self._ask(request, [line.page, line.theirs.fileno()], asked)
        except OSError:
            line.close()
            raise
        line.given_away()

    def fork_store(self, listener: socket.socket) -> None:
        """Ask for a process that serves a store on ``listener``; it queues connections at once."""
        self._ask({"kind": "store"}, [listener.fileno()], None)

    def take(self) -> WorkerProcess | Store | None:
        """Read what the template says: a worker or store that has begun, None where it is another thing.

        A worker that ended before it could be taken over is one that can be reaped all the same.
        """
        try:
            data = self.control.recv(4096)
        except OSError:  # it has ended with something unread
            data = b""
        if not data:
            self.is_alive = False
            return None
        told = json.loads(data)
        if "id" not in told:
            return None  # its imports are done
        if told["id"] in self._given_up:
            self._given_up.discard(told["id"])
            Store(pid=told["pid"]).end()
            return None
        asked = self._asked.pop(told["id"])
        if asked is None:
            return Store(pid=told["pid"])
        self.has_served = True
        return WorkerProcess(
            asked.rank,
            told["pid"],
            asked.line,
            log=asked.log,
            log_start=asked.log_start,
            kills_before=asked.kills_before,
        )

    @property
    def is_owing(self) -> bool:
        """Whether something was asked for that has not begun, as far as it has told: its process is for ``take`` to know."""
        return bool(self._asked or self._given_up)

    def owed_ranks(self) -> list[int]:
        """Return the ranks of the workers that were asked for and have not begun."""
        return [asked.rank for asked in self._asked.values() if asked is not None]

    @property
    def owes_store(self) -> bool:
        """Whether a store was asked for that has not begun."""
        return None in self._asked.values()

    def forget(self) -> None:
        """Give up the workers that were asked for and have not begun."""
        for number, asked in list(self._asked.items()):
            if asked is not None:
                asked.line.close()
                del self._asked[number]
                self._given_up.add(number)

    def close(self) -> None:
        """End the template. Its workers do not notice."""
        self._process.kill()
        self.is_alive = False
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a disk may never be gone
            self._process.wait(_GONE_S)
        self.control.close()
        self.forget()

    def _ask(self, request: dict[str, object], fds: list[int], asked: _Asked | None) -> None:
        self._next_id += 1
        data = json.dumps({**request, "id": self._next_id}).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self.control, [data], fds)
        self._asked[self._next_id] = asked
