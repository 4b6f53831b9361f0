"""What the commands share in reading the control plane: job arguments, ages, devices in words."""

import getpass
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from artesian.cli import exits
from artesian.cli.output import Failure, plain
from artesian.cli.plane import Plane, TokenOffice
from artesian.model.errors import ArtesianError, UnknownJob
from artesian.model.views import JobView
from artesian.server.settings import Settings
from artesian.wire import environment as names

if TYPE_CHECKING:
    from artesian.server.embedded import ControlPlane


def control_plane() -> Plane:
    """Return the control plane that commands ask: the server that ARTESIAN_SERVER or artesian.toml names, else
    the embedded one. What that had to mend is told on stderr.
    """
    _tell_warnings()
    settings = Settings.from_env()
    if server := os.environ.get(names.SERVER) or settings.server:
        from artesian.cli.remote import client

        return client(server)
    return _embedded(settings)


def embedded() -> "ControlPlane":
    """Return the embedded control plane of the state folder that the environment names."""
    _tell_warnings()
    return _embedded(Settings.from_env())


def _embedded(settings: Settings) -> "ControlPlane":
    from artesian.server.config import StateDir
    from artesian.server.embedded import ControlPlane

    return ControlPlane(
        StateDir.from_env(),
        user=user_name(),
        rules=settings.rules,
    )


def token_office() -> TokenOffice:
    """Return where tokens are made: at the server that is named, else in the database, else in the state folder."""
    if server := os.environ.get(names.SERVER) or Settings.from_env().server:
        from artesian.cli.remote import client

        return client(server)
    from artesian.server.config import StateDir
    from artesian.server.token_office import LocalOffice

    return LocalOffice(StateDir.from_env(), os.environ.get(names.DATABASE))


def _tell_warnings() -> None:
    log = logging.getLogger("artesian")
    if not log.handlers:
        log.addHandler(_Warnings(logging.WARNING))


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
        with control_plane() as plane:
            return plane.ids(incomplete)
    except (ArtesianError, click.ClickException):
        return []  # whoever presses TAB wants no error in the middle of the line


job_argument = click.argument("job", shell_complete=complete_job)
"""A job, by its id, its beginning, or its name."""


@contextmanager
def known_job() -> Iterator[None]:
    """Fail with 102 where a block asks for a job that is not known, or is more than one."""
    try:
        yield
    except UnknownJob as error:
        raise Failure(str(error), hint=error.hint, exit_code=exits.JOB_NOT_FOUND) from error


def devices_in_words(job: JobView) -> str:
    """Return the devices that the job has or had last, else those that it asks for."""
    if job.attempts and job.holds_devices:
        return job.attempts[-1].place
    return " | ".join(job.devices)


def age_s(at_s: float) -> float:
    """Return the seconds since ``at_s``."""
    return max(0.0, time.time() - at_s)


def job_json(job: JobView) -> dict[str, Any]:
    """Return a job as plain JSON types. Its environment, which may hold secrets, is not in it."""
    found: dict[str, Any] = plain(job)
    return found
