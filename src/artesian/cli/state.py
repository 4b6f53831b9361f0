"""What the commands share in reading the control plane: job arguments, ages, devices in words."""

import getpass
import logging
import os
import time
from typing import Any

import click

from artesian.cli import exits
from artesian.cli.output import Failure
from artesian.kernel.lifecycle import Attempt, JobRecord
from artesian.model.errors import ArtesianError
from artesian.model.job import Outcome
from artesian.model.plan import Reason
from artesian.server.config import StateDir
from artesian.server.embedded import ControlPlane, UnknownJob
from artesian.server.settings import Settings


def control_plane() -> ControlPlane:
    """Return the embedded control plane of the state folder that the environment names.

    What it had to mend there is told on stderr.
    """
    log = logging.getLogger("artesian")
    if not log.handlers:
        log.addHandler(_Warnings(logging.WARNING))
    settings = Settings.from_env()
    return ControlPlane(
        StateDir.from_env(), policy=settings.policy, teams=settings.teams, pools=settings.pools
    )


class _Warnings(logging.Handler):
    """Tells on stderr what the floors below log as a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        click.echo(f"warning: {record.getMessage()}", err=True)


def user_name() -> str:
    """Return who calls; their number where the machine has no name for them, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def complete_job(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the job ids that begin so, the latest first; none where they cannot be read. For the shell."""
    del ctx, param
    try:
        with ControlPlane(StateDir.from_env()) as plane:
            return [id_ for id_ in reversed(plane.state().jobs) if id_.startswith(incomplete)]
    except ArtesianError:
        return []  # whoever presses TAB wants no error in the middle of the line


job_argument = click.argument("job", shell_complete=complete_job)
"""A job, by its id, its beginning, or its name."""


def find_job(plane: ControlPlane, job: str) -> JobRecord:
    """Return the job that the argument names. Fails with 102 where there is none, or more than one."""
    try:
        return plane.job(job)
    except UnknownJob as error:
        raise Failure(str(error), hint=error.hint, exit_code=exits.JOB_NOT_FOUND) from error


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


def job_json(record: JobRecord, reason: Reason | None) -> dict[str, Any]:
    """Return a job as plain JSON types, without its environment: that may hold secrets.

    ``reason`` is why it waits; None where it does not.
    """
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
        if reason is None
        else {"code": reason.code.value, "text": reason.text, "unblock": reason.unblock},
        "attempts": [attempt_json(attempt) for attempt in record.attempts],
    }
