"""Runs the simulator for a page: in a process of its own, one at a time, with a time limit."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from artesian.model.errors import ArtesianError

FILE_BYTES = 500_000
"""The largest file of jobs that a page may send."""
MOST_JOBS = 20_000
MOST_POLICIES = 4
_LIMIT_S = 120.0
_KEPT = ("PATH", "LANG", "VIRTUAL_ENV", "PYTHONPATH")
"""Of the server's environment, which may hold the password of its database."""


class TrialFailed(ArtesianError):  # noqa: N818 - reads as what it is
    """The simulator refused the jobs, or took too long."""


@dataclass(slots=True)
class Trials:
    """What runs simulations; those who come meanwhile wait their turn."""

    limit_s: float = _LIMIT_S
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, jobs: str, policies: Sequence[str], load: float) -> Mapping[str, Any]:
        """Return what ``artesian simulate -o json`` prints for a file of jobs. Raises TrialFailed."""
        if len(jobs.encode()) > FILE_BYTES:
            raise TrialFailed(f"jobs: expected a file of at most {FILE_BYTES} bytes, got more")
        if not 1 <= len(policies) <= MOST_POLICIES:
            raise TrialFailed(f"policies: expected 1 to {MOST_POLICIES}, got {len(policies)}")
        async with self._one_at_a_time:
            with tempfile.TemporaryDirectory(prefix="artesian-trial-") as folder:
                # A name without a folder, so that what the simulator says of it tells nothing of this machine.
                (Path(folder) / "jobs.csv").write_text(jobs, encoding="utf-8")
                return await self._simulate(folder, policies, load)

    async def _simulate(self, folder: str, policies: Sequence[str], load: float) -> Mapping[str, Any]:
        words = ("simulate", "--jobs", "jobs.csv", "--load", f"{load:g}", "--policy", ",".join(policies))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "artesian.cli.main", *words, "--limit", str(MOST_JOBS), "-o", "json"),
            cwd=folder,
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | {"HOME": folder},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), self.limit_s)
        except TimeoutError as error:
            raise TrialFailed(
                f"simulation: expected it to take up to {self.limit_s:g} s, got more",
                hint="fewer jobs or policies; artesian simulate has no limit",
            ) from error
        finally:
            if process.returncode is None:  # also where the page or the server ends meanwhile
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode != 0:
            said, _, hint = (
                err.decode(errors="replace").strip().rpartition("error: ")[2].partition("\nhint: ")
            )
            raise TrialFailed(said, hint=hint or None)
        found: Mapping[str, Any] = msgspec.json.decode(out)
        return found
