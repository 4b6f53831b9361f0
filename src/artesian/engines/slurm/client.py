"""Slurm's commands as functions. A refusal is told from a Slurm that cannot be reached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from artesian.engines.slurm import parse
from artesian.engines.slurm.parse import ParseError, SlurmJob, SlurmNode
from artesian.engines.slurm.runner import Done, Runner
from artesian.engines.slurm.topology import racks_of_text
from artesian.engines.watching import Refused, Unreachable

T = TypeVar("T")

_TRANSIENT = (
    "unable to contact slurm controller",
    "connection refused",
    "connection timed out",
    "socket timed out",
    "zero bytes were transmitted",
    "transport endpoint is not connected",
    "communication connection failure",
    "slurm backup controller in standby mode",
    "slurm temporarily unable to accept job",
    "resource temporarily unavailable",
    "invalid authentication credential",  # munge is not up yet, or clocks are apart
    "protocol authentication error",
)
"""What Slurm says where asking again may help: nothing was refused for what it is."""

_NO_SUCH_JOB = ("invalid job id", "job/step already completing or completed")


@dataclass(slots=True)
class SlurmClient:
    """Asks Slurm. Every method raises Unreachable where nobody answers, and Refused where Slurm says no."""

    runner: Runner
    _version: tuple[int, int] | None = None

    async def version(self) -> tuple[int, int]:
        """Return Slurm's version, such as (22, 5)."""
        if self._version is None:
            self._version = _understood(parse.version_of, await self._ask("sinfo", "--version"))
        return self._version

    async def jobs(self) -> list[SlurmJob]:
        """Return all jobs that the controller remembers, ended ones included."""
        if await self.version() >= parse.JSON_SINCE:
            return _understood(parse.jobs_of_json, await self._ask("squeue", "--json", "--states=all"))
        words = ("squeue", "--noheader", "--states=all", "--all", f"--Format={parse.TEXT_FORMAT}")
        return _understood(parse.jobs_of_text, await self._ask(*words))

    async def nodes(self) -> list[SlurmNode]:
        """Return all nodes."""
        version = await self.version()
        if version >= parse.SCONTROL_JSON_SINCE:
            return _understood(parse.nodes_of_json, await self._ask("scontrol", "show", "nodes", "--json"))
        if version >= parse.JSON_SINCE:
            return _understood(parse.nodes_of_json, await self._ask("sinfo", "--json"))
        words = ("scontrol", "show", "nodes", "--details", "--oneliner")
        return _understood(parse.nodes_of_text, await self._ask(*words))

    async def racks(self) -> dict[str, str]:
        """Return the rack of each node of which Slurm's topology tells one."""
        return _understood(racks_of_text, await self._ask("scontrol", "show", "topology"))

    async def default_partition(self) -> str | None:
        """Return the partition of jobs that name none; None where every job must name one."""
        found = (await self._ask("sinfo", "--noheader", "--format=%P")).split()
        return next((name.removesuffix("*") for name in found if name.endswith("*")), None)

    async def submit(self, options: Sequence[str], script: str, user: str | None) -> int:
        """Submit the script with sbatch, and return the job's id."""
        said = await self._ask("sbatch", "--parsable", *options, stdin=script, user=user)
        id_ = said.strip().partition(";")[0]  # ``id;cluster`` where there are several
        if not id_.isdigit():
            raise Unreachable(f"sbatch: expected a job id, got {said[:80]!r}")
        return int(id_)

    async def signal_batch(self, job_id: int, signal: str) -> None:
        """Send a signal to the batch script alone. A job that is over gets none."""
        await self._cancel("--batch", f"--signal={signal}", str(job_id))

    async def cancel(self, job_id: int) -> None:
        """End the job: one that waits is gone, one that runs gets SIGTERM and, after KillWait, SIGKILL."""
        await self._cancel(str(job_id))

    async def _cancel(self, *words: str) -> None:
        done = await self.runner.run(("scancel", *words))
        if done.code and not any(text in done.stderr.lower() for text in _NO_SUCH_JOB):
            raise _failure("scancel", done)

    async def _ask(self, *words: str, stdin: str = "", user: str | None = None) -> str:
        done = await self.runner.run(words, stdin=stdin, user=user)
        if done.code:
            raise _failure(words[0], done)
        return done.stdout


def _understood(read: Callable[[str], T], text: str) -> T:
    """Return what was read; what cannot be read tells nothing. Raises Unreachable."""
    try:
        return read(text)
    except (ParseError, KeyError, ValueError) as error:
        raise Unreachable(f"Slurm's answer: {error}") from error


def _failure(command: str, done: Done) -> Exception:
    said = done.stderr.strip()
    text = f"{command}: {said.removeprefix(f'{command}: error: ') or f'it ended with code {done.code}'}"
    is_transient = any(sign in said.lower() for sign in _TRANSIENT)
    return Unreachable(text) if is_transient else Refused(text)
