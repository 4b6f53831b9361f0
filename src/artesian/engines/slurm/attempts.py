"""An attempt as the Slurm engine knows it, and what it writes down about it on the shared folder.

``submission-N.json`` is written before sbatch is called and again after it: from the first one on the
attempt may be in Slurm, from the second one on its number there is known. It lies beside the attempt's folder, which
is the user's where jobs run as their users: nobody but us may say which of Slurm's jobs are ours to cancel.
"""

import json
import os
import pwd
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from artesian.engines.local.records import AttemptFolder, Ended, read_regular, write_whole
from artesian.engines.slurm.batch import RUNS_AS_FILE
from artesian.engines.slurm.inventory import Amount
from artesian.engines.slurm.parse import SlurmJob
from artesian.engines.slurm.script import SLURM_LOG
from artesian.engines.watching import Key
from artesian.model.job import Job
from artesian.model.plan import Start, Stop

_LOG_TAIL_BYTES = 4096


class UserUnknown(Exception):  # noqa: N818 - reads as what it is
    """Nobody here by whose rights the job could run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What was asked of Slurm: ``slurm_id`` is None from before sbatch until it has answered."""

    slurm_id: int | None
    devices: Mapping[str, frozenset[int]]
    """The indices planned, by node."""
    amounts: Mapping[str, Amount]
    """What it takes of each node."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """An attempt under way. Times are of the monotonic clock."""

    start: Start
    job: Job
    folder: AttemptFolder
    amounts: Mapping[str, Amount] = field(default_factory=dict)
    slurm_id: int | None = None
    submitted_s: float = 0.0
    state: SlurmJob | None = None
    """What Slurm said last."""
    is_started: bool = False
    has_ended_record: bool = False
    is_taken_back: bool = False
    """Slurm did not start it in time, so it is to be placed anew."""
    stop: Stop | None = None
    over_since_s: float | None = None

    @property
    def key(self) -> Key:
        return (self.start.job_id, self.start.epoch)

    @property
    def devices(self) -> dict[str, frozenset[int]]:
        """The device indices planned, by node."""
        return {share.node_id: frozenset(share.devices) for share in self.start.placement.shares}

    @property
    def submission(self) -> Submission:
        return Submission(slurm_id=self.slurm_id, devices=self.devices, amounts=self.amounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the files of an attempt say."""

    started_s: float | None
    ended: Ended | None
    is_claimed: bool
    runs_as: int | None
    """The Slurm job that runs it; None while none does."""
    log: str


def look(folder: AttemptFolder) -> Seen:
    """Read the files of an attempt."""
    ended = folder.ended()
    claim = folder.claim()
    return Seen(
        started_s=folder.started_s(),
        ended=ended,
        is_claimed=claim is not None and claim.pid != 0,
        runs_as=_runs_as(folder),
        log=_last_line(folder.path / SLURM_LOG),
    )


def read_submission(folder: AttemptFolder) -> Submission | None:
    """Return what was asked of Slurm for the attempt; None where nothing was."""
    try:
        record: dict[str, Any] = json.loads(_submission_file(folder).read_bytes())
    except (OSError, ValueError):
        return None
    return Submission(
        slurm_id=record["slurm_id"],
        devices={name: frozenset(devices) for name, devices in record["devices"].items()},
        amounts={name: Amount(**amount) for name, amount in record["amounts"].items()},
    )


def write_submission(folder: AttemptFolder, submission: Submission) -> None:
    """Write it down, whole or not at all, and not before it is on the disk. Raises OSError."""
    record = {
        "slurm_id": submission.slurm_id,
        "devices": {name: sorted(devices) for name, devices in submission.devices.items()},
        "amounts": {name: asdict(amount) for name, amount in submission.amounts.items()},
    }
    write_whole(_submission_file(folder), json.dumps(record).encode())


def _submission_file(folder: AttemptFolder) -> Path:
    return folder.path.with_name(f"submission-{folder.path.name.removeprefix('attempt-')}.json")


def make_folder(folder: AttemptFolder, checkpoints: Path, user: str | None) -> None:
    """Make the folders of an attempt, ``user``'s own where one is given. Raises OSError, UserUnknown.

    Above them nobody but their owner can list anything; another user gets through to what is theirs.
    """
    folder.create()
    checkpoints.mkdir(exist_ok=True, mode=0o700)
    if user is None:
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise UserUnknown(f"user {user!r} is not known on this machine") from error
    if entry.pw_uid == 0:
        raise UserUnknown("jobs do not run as root: submit as another user")
    for path in (folder.path.parent.parent, folder.path.parent):
        path.chmod(0o711)
    for path in (folder.path, folder.progress, folder.logs, checkpoints):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def _runs_as(folder: AttemptFolder) -> int | None:
    try:
        return int(json.loads(read_regular(folder.path / RUNS_AS_FILE))["slurm_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _last_line(path: Path) -> str:
    try:
        lines = read_regular(path)[-_LOG_TAIL_BYTES:].decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
