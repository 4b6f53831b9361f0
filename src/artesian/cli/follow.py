"""Following a job: its changes of state, and what its workers print, until it is over."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import click
from rich.console import Console
from rich.text import Text

from artesian.cli import exits
from artesian.cli.plane import Plane
from artesian.model.errors import UnknownJob
from artesian.model.units import format_duration
from artesian.model.views import Ended, Held, JobView, Output, Over, Started


@dataclass(slots=True)
class Watched:
    """The job that a command is about, once there is one."""

    job_id: str | None = None


@contextmanager
def goes_on_without_us(plane: Plane, talk: Console) -> Iterator[Watched]:
    """On Ctrl-C in the block, say what becomes of the job and how to come back, and leave with 130."""
    watched = Watched()
    try:
        yield watched
    except KeyboardInterrupt:
        _interrupted(plane, watched.job_id, talk)


def _interrupted(plane: Plane, job_id: str | None, talk: Console) -> NoReturn:
    if job_id is None:
        talk.print("\ninterrupted; nothing was submitted")
        sys.exit(exits.INTERRUPTED)
    job = plane.job(job_id)
    if job.is_over:
        talk.print(f"\ninterrupted; {job_id} is over ({job.state}): artesian show {job_id}")
    else:
        talk.print(f"\ninterrupted; {job_id} goes on without you")
        talk.print(
            f"  come back:  artesian logs -f {job_id}\n  stop it:    artesian cancel {job_id}",
            soft_wrap=True,
        )
    sys.exit(exits.INTERRUPTED)


def follow(plane: Plane, job: JobView, talk: Console, *, is_data: bool = False) -> JobView:
    """Print what happens to the job, and return it as it is when it is over.

    What it prints on stdout goes to stdout where that is the data asked for, else to stderr.
    """

    def say(text: str) -> None:
        talk.print(Text.assemble((job.id, "bold"), " ", text), soft_wrap=True)

    for happening in plane.follow(job.id):
        match happening:
            case Output():
                click.echo(happening.data, nl=False, err=happening.is_err or not is_data)
            case Started(epoch=epoch):
                which = f"attempt {epoch} started" if epoch > 1 else "started"
                after = format_duration(happening.at_s - job.submitted_s)
                say(f"{which} on {happening.place}, {after} after the submit")
            case Ended():
                next_ = "" if happening.is_last else "; it is tried again"
                say(f"attempt {happening.epoch} ended: {happening.outcome}{next_}")
            case Held(reason=reason):
                say(f"waits: {reason.text} (until {reason.unblock})")
            case Over(job=found):
                life_s = (found.ended_s or found.submitted_s) - found.submitted_s
                say(f"{found.state} after {format_duration(life_s)}")
                return found
    raise UnknownJob(f"job {job.id}: expected to hear of it until it is over", hint="artesian jobs")


def exit_code_of(job: JobView) -> int:
    """Return the exit code for a followed job."""
    codes = {"succeeded": 0, "failed": exits.JOB_FAILED, "cancelled": exits.JOB_CANCELLED}
    return codes.get(job.state, exits.JOB_NOT_FINISHED)
