"""The daemon of the embedded control plane, as commands need it: woken, or started where there is none."""

import os
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from artesian.model.errors import ArtesianError
from artesian.server.bell import ring
from artesian.server.config import StateDir, private
from artesian.server.rules import Rules

_RESTARTS = 5
"""Daemons that may die under a follower, one after the other, before it gives up."""


class DaemonFailed(ArtesianError):  # noqa: N818 - reads as what it is
    """The daemon does not stay alive."""


class Waker:
    """Sees to it that a daemon drives what is in ``state_dir``; it leaves when idle for so many seconds."""

    def __init__(self, state_dir: StateDir, rules: Rules, *, idle_exit_s: float) -> None:
        self._dir = state_dir
        self._rules = rules
        self._idle_exit_s = idle_exit_s
        self._daemon: subprocess.Popen[bytes] | None = None
        self._restarts = 0

    def wake(self) -> None:
        """See to it that the daemon reads the journal now. Raises DaemonFailed."""
        if not ring(self._dir.bell):
            self._start()

    def revive(self) -> None:
        """Start a daemon if there is none. Raises DaemonFailed where one after the other dies."""
        if ring(self._dir.bell):
            return
        if self._daemon is not None:
            code = self._daemon.poll()
            if code is None:
                return  # it is starting
            if code != 0:
                self._restarts += 1
            if self._restarts >= _RESTARTS:
                self._give_up(code)
        self._start()

    def _start(self) -> None:
        # It inherits nothing that a job could come to depend on: jobs bring their environment along.
        kept = ("HOME", "PATH", "LANG", "SSH_AUTH_SOCK")
        environment = {key: os.environ[key] for key in kept if key in os.environ}
        try:
            with open(self._dir.daemon_log, "ab", opener=private) as log:
                self._daemon = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "artesian.server.daemon",
                        str(self._dir.path),
                        str(self._idle_exit_s),
                        self._rules.encode(),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise DaemonFailed(
                f"the control plane's daemon cannot be started: {error}",
                hint="what was accepted stays so; artesian jobs starts the daemon again",
            ) from error

    def _give_up(self, code: int) -> NoReturn:
        latest = ""
        with suppress(OSError, IndexError):
            latest = self._dir.daemon_log.read_text(errors="replace").splitlines()[-1]
        raise DaemonFailed(
            f"the control plane's daemon ended {self._restarts} times, at last with code {code}: {latest}",
            hint=f"see {self._dir.daemon_log}; jobs that run go on meanwhile",
        )
