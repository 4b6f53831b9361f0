"""Verdicts, records and Ray's own words as causes."""

import signal
from typing import Any

from msgspec.structs import replace

from artesian.engines.local.outcome import first_failure, outcome_of, restarts
from artesian.engines.local.records import AttemptFolder, Ended
from artesian.engines.ray.client import RayJob
from artesian.engines.ray.files import node_folder
from artesian.model.job import Cause, Outcome
from artesian.model.plan import Stop

_TAIL_CHARS = 600


def outcome_of_verdict(verdict: dict[str, Any], folder: AttemptFolder, stop: Stop | None) -> Outcome:
    """Return why the attempt ended, as its driver saw it; where the commands decide, as they ended."""
    if verdict["cause"] is not None:
        cause = Cause(verdict["cause"])
        if cause is Cause.CANCELLED and stop is None:
            return _stopped_in_ray()
        if cause is Cause.CANCELLED and stop is not None:
            cause = stop.cause
        return Outcome(cause=cause, message=verdict["message"])
    first = int(verdict["first"])
    ended = AttemptFolder(node_folder(folder.path, first)).ended()
    if ended is None:
        return Outcome(cause=Cause.NODE_LOST, message="no record of how it ended can be read")
    return _told(ended, folder)


def outcome_without_verdict(
    job: RayJob | None, ended: Ended | None, folder: AttemptFolder, stop: Stop | None, *, is_claimed: bool
) -> Outcome:
    """Return why an attempt ended whose driver left no verdict.

    ``job`` is what Ray says of it, None where Ray does not know it; ``ended`` the record of its first node.
    """
    is_stopped_in_ray = job is not None and job.status == "STOPPED"
    # Else it was stopped because its driver was gone.
    if ended is not None and (not ended.was_stopped or stop is not None or is_stopped_in_ray):
        return _told(ended, folder)
    if not is_claimed and stop is not None:
        return Outcome(cause=stop.cause, message="stopped before it started")
    if not is_claimed and is_stopped_in_ray:
        return _stopped_in_ray()  # before its driver could leave a verdict
    if job is None:
        return Outcome(cause=Cause.NODE_LOST, message="Ray does not know the job of the attempt any more")
    text = f"the driver of Ray job {job.submission_id} is gone ({job.status.lower()})"
    if tail := " ".join(job.message.split())[-_TAIL_CHARS:]:
        text += f": {tail}"
    # A code of its own means that it could not even begin: no such interpreter, no artesian, no Ray.
    has_failed = not is_claimed and job.exit_code is not None and 0 < job.exit_code < 128
    return Outcome(cause=Cause.START_FAILED if has_failed else Cause.NODE_LOST, message=text)


def _stopped_in_ray() -> Outcome:
    """Return how an attempt ended that Ray's own user stopped: nobody asked artesian."""
    return Outcome(cause=Cause.SIGNAL, signal=signal.SIGTERM, message="stopped in Ray before it started")


def _told(ended: Ended, folder: AttemptFolder) -> Outcome:
    found = outcome_of(ended, first_failure(folder.progress))
    return replace(found, restarts=restarts(folder.progress))
