"""One node's part of an attempt: starts its processes there, stops them, tells how they ended. Without Ray's library."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artesian.engines.gang import Meeting, place_of
from artesian.engines.local.records import AttemptFolder
from artesian.engines.ray import keeper
from artesian.engines.ray.files import node_folder, read_request
from artesian.wire import environment as names

Granted = Callable[[Mapping[str, Any]], dict[str, str]]
"""Gets a node of the request; returns what tells the attempt its devices, where Ray has chosen them."""


class NodePart:
    """Runs one node's part of one attempt. ``run`` and ``stop`` may be called at the same time."""

    def __init__(self, folder: str, index: int, granted: Granted) -> None:
        self._granted = granted
        self._attempt = AttemptFolder(Path(folder))
        self._index = index
        self._lock = threading.Lock()
        self._keeper: subprocess.Popen[bytes] | None = None
        self._stop_grace_s: float | None = None

    def run(self, meeting: Meeting | None) -> dict[str, Any] | None:
        """Start this node's part, and return how it ended: the supervisor's record, or None where it left none.

        Called again, after a call whose answer was lost, it waits for what the first one started.
        """
        records = AttemptFolder(node_folder(self._attempt.path, self._index))
        with self._lock:
            if self._keeper is None:
                self._keeper = self._start(records.path, meeting)
                if self._stop_grace_s is not None:
                    self._pass_on(self._keeper, self._stop_grace_s)
        assert self._keeper.stdout is not None
        self._keeper.stdout.read()  # the supervisor holds the other end for as long as it lives
        ended = records.ended()
        if ended is None:
            self._end_survivors()
        return None if ended is None else asdict(ended)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, and SIGKILL after the grace, for what ``run`` has started, or is going to start.

        Of two calls that were made one after the other the second may be here first.
        """
        with self._lock:
            self._stop_grace_s = grace_s
            if self._keeper is not None:
                self._pass_on(self._keeper, grace_s)

    @staticmethod
    def _pass_on(keeper: "subprocess.Popen[bytes]", grace_s: float) -> None:
        assert keeper.stdin is not None
        with suppress(OSError):  # it is over
            keeper.stdin.write(f"{grace_s}\n".encode())
            keeper.stdin.flush()

    def _start(self, records: Path, meeting: Meeting | None) -> subprocess.Popen[bytes]:
        request = read_request(self._attempt.path)
        own = request["nodes"][self._index]
        if self._index > 0:
            self._prepare(records, sum(request["workers"][: self._index]))
        command, env = request["command"], {**own["env"], **self._granted(own)}
        if meeting is not None:
            command, env[names.RDZV_TOKEN] = self._launch(request, meeting), meeting.token
        words = [sys.executable, "-I", "-S", keeper.__file__, str(records)]
        # Ray stops a driver and each of its children, which the keeper is until it has gone into the background: it
        # inherits this, and so hears of the stop as its supervisor, or from us.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            process = subprocess.Popen(
                [*words, request["workdir"], str(request["grace_s"]), *command],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what Ray does to the group of its worker is not meant for it
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        process.wait()  # it has gone into the background
        return process

    def _prepare(self, records: Path, first_rank: int) -> None:
        """Have the output of the node's first worker go where that of every other worker goes."""
        records.mkdir(exist_ok=True, mode=0o700)
        for name in ("stdout.log", "stderr.log"):
            with suppress(FileExistsError):
                (records / name).symlink_to(self._attempt.logs / f"rank-{first_rank}.out")

    def _launch(self, request: Mapping[str, Any], meeting: Meeting) -> list[str]:
        place = place_of(self._index, request["workers"], meeting)
        return [request["python"], "-m", "artesian.train.launch", *place, *request["command"]]

    def _end_survivors(self) -> None:
        for pid in self._attempt.survivors():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
