"""Keeps the driver's process alive beside the server: decisions there, requests here, neither waits for the other.

A scheduling cycle with 100,000 jobs can take a second (``benchmarks/api.py``); in this process it would
take every request along.
"""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from contextlib import suppress

from artesian.server.config import StateDir, private
from artesian.server.rules import Rules
from artesian.wire import environment as names

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 10.0
_END_S = 10.0
_KEPT = ("HOME", "PATH", "LANG", "SSH_AUTH_SOCK")

_log = logging.getLogger(__name__)


class Keeper:
    """Starts ``artesian.server.daemon``, or ``headless`` on a database, and starts it again when it dies, ever more slowly."""

    def __init__(self, state: StateDir, rules: Rules, *, database: str | None) -> None:
        self._state = state
        self._rules = rules
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        """Begin, on this event loop."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Tell the driver to let go; attempts run on."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _keep(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            begun_s = asyncio.get_running_loop().time()
            self._process = await self._spawn()
            code = await self._process.wait()
            lived_s = asyncio.get_running_loop().time() - begun_s
            wait_s = _FIRST_WAIT_S if lived_s > _LONGEST_WAIT_S else min(2 * wait_s, _LONGEST_WAIT_S)
            # Code 0 so soon: another one, started by a command, drives this state and leaves when it is idle.
            _log.log(
                logging.INFO if code == 0 else logging.ERROR,
                "the driver ended with code %d after %.1f s; starting it again in %.1f s (see %s)",
                code,
                lived_s,
                wait_s,
                self._state.daemon_log,
            )
            await asyncio.sleep(wait_s)

    async def _spawn(self) -> asyncio.subprocess.Process:
        # It inherits nothing that a job could come to depend on, and no token: jobs bring their environment along.
        environment = {key: os.environ[key] for key in _KEPT if key in os.environ}
        if self._database is None:
            words = ["artesian.server.daemon", str(self._state.path), "inf", self._rules.encode()]
        else:
            words = ["artesian.server.headless", "-", str(self._state.path), self._rules.encode()]
            environment[names.DATABASE] = self._database  # not among the words: it may have a password in it
        with open(self._state.daemon_log, "ab", opener=private) as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment,
                start_new_session=True,
            )
