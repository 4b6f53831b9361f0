"""What the engine knows of an attempt, and what its files say. The functions read the shared folder: call them in a thread."""

import json
from dataclasses import dataclass
from typing import Any

from artesian.engines.local.records import AttemptFolder, Ended
from artesian.engines.ray.files import REQUEST, VERDICT, node_folder, read_request
from artesian.engines.watching import Key
from artesian.model.job import Cause, Job
from artesian.model.plan import Start, Stop


@dataclass(slots=True, kw_only=True)
class Attempt:
    """An attempt under way. ``is_known``: Ray has, or had, its job."""

    start: Start
    job: Job
    folder: AttemptFolder
    submission_id: str
    is_known: bool = False
    is_started: bool = False
    known_s: float = 0.0
    over_since_s: float | None = None
    stop: Stop | None = None

    @property
    def key(self) -> Key:
        """Job and epoch."""
        return (self.start.job_id, self.start.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the files of an attempt say. ``is_quiet``: no supervisor that has begun is without a written end."""

    started_s: float | None
    verdict: dict[str, Any] | None
    ended: Ended | None
    is_claimed: bool
    is_quiet: bool


def look(folder: AttemptFolder, nodes: int) -> Seen:
    """Return what the files of an attempt on so many nodes say."""
    parts = [AttemptFolder(node_folder(folder.path, index)) for index in range(nodes)]
    claims = [part.claim() for part in parts]
    claimed = [part for part, claim in zip(parts, claims, strict=True) if claim is not None and claim.pid]
    return Seen(
        started_s=folder.started_s(),
        verdict=read_verdict(folder),
        ended=folder.ended(),
        is_claimed=bool(claimed),
        is_quiet=all(part.ended() is not None for part in claimed),
    )


def read_verdict(folder: AttemptFolder) -> dict[str, Any] | None:
    """Return the verdict of the attempt's driver; None while there is none."""
    try:
        verdict: dict[str, Any] = json.loads((folder.path / VERDICT).read_bytes())
    except (OSError, ValueError):
        return None
    return verdict


def blames_node(verdict: dict[str, Any] | None) -> bool:
    """Whether the verdict is that a node was lost."""
    return verdict is not None and verdict["cause"] == Cause.NODE_LOST


def was_begun(folder: AttemptFolder) -> bool:
    """Whether anything of the attempt has run, or may have: its claim is taken, by somebody or by a fence."""
    return folder.claim() is not None


def fence(folder: AttemptFolder) -> bool:
    """See to it that the attempt never starts. False where it may have, or where that cannot be done now."""
    try:
        folder.create()
        return folder.fence()
    except OSError:
        return False


def is_alone(folder: AttemptFolder) -> bool:
    """Whether the entrypoint of the attempt's Ray job itself has its place, and waits for it."""
    try:
        return bool(read_request(folder.path).get("is_alone"))
    except (OSError, ValueError):
        return False


def is_requested(folder: AttemptFolder) -> bool:
    """Whether the attempt was ready to be submitted before."""
    return (folder.path / REQUEST).exists()
