"""From an attempt to a batch job: never twice, whoever is killed in between.

What is about to be submitted is written down first. Who finds such a note without an answer asks Slurm
for a job that bears the attempt's name in its comment, before it submits one. Should there be two after
all, the nodes themselves let one run.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from artesian.engines.local.records import AttemptFolder
from artesian.engines.slurm import attempts, script
from artesian.engines.slurm.attempts import Attempt
from artesian.engines.slurm.client import SlurmClient
from artesian.engines.slurm.inventory import Offer
from artesian.engines.slurm.parse import SlurmJob
from artesian.engines.slurm.settings import SlurmSettings
from artesian.engines.watching import Key, Unreachable
from artesian.model.job import Job


class Submitter:
    """Submits attempts whose files are below ``root``. ``instance`` tells our jobs from another's."""

    def __init__(self, root: Path, settings: SlurmSettings, client: SlurmClient, instance: str) -> None:
        self._root = root
        self._settings = settings
        self._client = client
        self._instance = instance

    async def find(self, attempt: Attempt) -> int | None:
        """Return the Slurm job of the attempt, submitted before; None where there is none. Raises Unreachable."""
        known = await asyncio.to_thread(attempts.read_submission, attempt.folder)
        if known is None:
            return None
        attempt.amounts = known.amounts
        if known.slurm_id is not None:
            return known.slurm_id
        seen = await asyncio.to_thread(attempts.look, attempt.folder)
        jobs = await self._client.jobs()
        if seen.runs_as is not None and self.is_ours(attempt.key, seen.runs_as, jobs):
            return seen.runs_as
        comment = self.comment(attempt.key)
        return min((job.id for job in jobs if job.comment == comment), default=None)

    def is_ours(self, key: Key, slurm_id: int | None, jobs: Sequence[SlurmJob]) -> bool:
        """Whether Slurm's job of this number can be the attempt's: not where Slurm knows it as something else.

        The nodes left the number in a folder that may be the user's: others' jobs are not to be cancelled for it.
        """
        comment = self.comment(key)
        return all(job.comment == comment for job in jobs if job.id == slurm_id)

    async def submit(self, attempt: Attempt, offers: Mapping[str, Offer] | None) -> int:
        """Submit the attempt, and return the job's number.

        Raises Unreachable, also where it is not known what Slurm has; Refused, Unsuitable, NodesGone,
        UserUnknown and OSError.
        """
        if offers is None:
            raise Unreachable("Slurm has not said yet which nodes it has")
        groups = script.groups_of(attempt.job, attempt.start.placement, offers)
        attempt.amounts = {share.node_id: group.amount for group in groups for share in group.shares}
        await asyncio.to_thread(self._write, attempt, groups, offers)
        folder = attempt.folder.path.resolve()
        options = script.options_of(
            attempt.job, groups, offers, folder, self.comment(attempt.key), self._settings
        )
        text = script.batch_script(self._settings.python, folder)
        return await self._client.submit(options, text, self._user_of(attempt.job))

    def comment(self, key: Key) -> str:
        """Return the name that an attempt goes by in Slurm."""
        return f"artesian/{self._instance}/{key[0]}/{key[1]}"

    def key_of(self, comment: str) -> Key | None:
        """Return the attempt that a job's comment names; None where the job is none of ours."""
        match comment.split("/"):
            case ["artesian", self._instance, job_id, epoch] if epoch.isdigit():
                return job_id, int(epoch)
        return None

    def _write(self, attempt: Attempt, groups: Sequence[script.Group], offers: Mapping[str, Offer]) -> None:
        """Write all that the nodes read, and that a submit is under way."""
        user = self._user_of(attempt.job)
        job_folder = self._root / attempt.job.id
        if self._settings.folder is not None and not job_folder.is_symlink():
            shared = self._settings.folder / attempt.job.id
            shared.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):
                job_folder.symlink_to(shared, target_is_directory=True)
        checkpoints = job_folder.resolve() / "checkpoints"
        attempts.make_folder(attempt.folder, checkpoints, user)
        resolved = AttemptFolder(attempt.folder.path.resolve())
        script.write_attempt(
            *(attempt.job, attempt.start.epoch, attempt.start.placement, groups, offers),
            *(resolved, checkpoints, self._settings.python),
        )
        attempts.write_submission(attempt.folder, attempt.submission)

    def _user_of(self, job: Job) -> str | None:
        return job.user if self._settings.submit_as_user else None
