"""What the commands share in reading the control plane: job arguments, ages, devices in words."""

import time
from typing import Any

import click

from artesian.cli.output import EXIT_NOT_FOUND
from artesian.kernel.lifecycle import Attempt, JobRecord
from artesian.model.job import Outcome
from artesian.server.config import StateDir
from artesian.server.embedded import ControlPlane, UnknownJob


def control_plane() -> ControlPlane:
    """Return the embedded control plane of the state folder that the environment names."""
    return ControlPlane(StateDir.from_env())


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the job ids that begin so, the latest first. For the shell's completion."""
    del ctx, param
    with control_plane() as plane:
        return [id_ for id_ in reversed(plane.state().jobs) if id_.startswith(incomplete)]


job_argument = click.argument("job", shell_complete=complete_job)
"""A job, by its id, its beginning, or its name."""


class JobNotFound(click.ClickException):
    """No such job; leaves with 102."""

    exit_code = EXIT_NOT_FOUND

    def __init__(self, error: UnknownJob) -> None:
        super().__init__(str(error))
        self.hint = error.hint


def find_job(plane: ControlPlane, job: str) -> JobRecord:
    """Return the job that the argument names. Raises JobNotFound."""
    try:
        return plane.job(job)
    except UnknownJob as error:
        raise JobNotFound(error) from error


def devices_in_words(record: JobRecord) -> str:
    """Return the devices that the job has or had last, else those that it asks for."""
    if record.attempts and record.state.holds_devices:
        return str(record.attempt.placement)
    return " | ".join(map(str, record.job.devices))


def age_s(at_s: float) -> float:
    """Return the seconds since ``at_s``."""
    return max(0.0, time.time() - at_s)


def outcome_in_words(outcome: Outcome) -> str:
    """Return how an attempt ended, on one line."""
    cause = outcome.cause.value.replace("_", " ")
    return f"{cause}: {outcome.message}" if outcome.message else cause


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as plain JSON types."""
    outcome = attempt.outcome
    return {
        "epoch": attempt.epoch,
        "placement": [
            {"node": share.node_id, "devices": list(share.devices), "milli": share.milli}
            for share in attempt.placement.shares
        ],
        "decided_s": attempt.decided_s,
        "started_s": attempt.started_s,
        "ended_s": attempt.ended_s,
        "outcome": None
        if outcome is None
        else {
            "cause": outcome.cause.value,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "worker": outcome.worker,
            "message": outcome.message,
        },
    }


def job_json(record: JobRecord) -> dict[str, Any]:
    """Return a job as plain JSON types, without its environment: that may hold secrets."""
    job = record.job
    return {
        "id": job.id,
        "name": job.name,
        "kind": job.kind.value,
        "state": record.state.value,
        "team": job.team,
        "user": job.user,
        "priority": job.priority,
        "command": list(job.command),
        "devices": [str(request) for request in job.devices],
        "submitted_s": record.submitted_s,
        "ended_s": record.ended_s,
        "waits_for": None
        if record.hold is None
        else {"code": record.hold.code.value, "text": record.hold.text, "unblock": record.hold.unblock},
        "attempts": [attempt_json(attempt) for attempt in record.attempts],
    }
