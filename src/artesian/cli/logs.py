"""``artesian logs``."""

from collections.abc import Iterable

import click

from artesian.cli.follow import exit_code_of, follow, goes_on_without_us
from artesian.cli.output import stderr
from artesian.cli.state import control_plane, job_argument, known_job


@click.command()
@job_argument
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the job is over.")
@click.option("--attempt", type=click.IntRange(min=1), help="Number of the attempt; the latest unless given.")
@click.option("--worker", type=click.IntRange(min=0), help="Rank of a worker; the first unless given.")
def logs(job: str, is_followed: bool, attempt: int | None, worker: int | None) -> int:
    """Print what JOB printed: stdout of its first worker on stdout, its stderr on stderr.

    With -f: all of its attempts, until the job is over; what becomes of it is told on stderr. Exit codes
    then: 0 done, 100 failed, 103 cancelled, 130 interrupted (the job goes on). 102: no such job.
    """
    if is_followed and (attempt is not None or worker is not None):
        raise click.UsageError(
            "-f follows the first worker of all attempts: leave --attempt and --worker out"
        )
    with control_plane() as plane, known_job():
        if is_followed:
            with goes_on_without_us(plane, stderr()) as watched:
                found = plane.job(job)
                watched.job_id = found.id
                return exit_code_of(follow(plane, found, stderr(), is_data=True))
        is_any = _copy(plane.output(job, attempt=attempt, worker=worker), is_err=False)
        if not worker:
            is_any |= _copy(plane.output(job, attempt=attempt, is_err=True), is_err=True)
        if not is_any:
            found = plane.job(job)
            who = f"worker {worker}" if worker else found.id
            click.echo(f"{who} has printed nothing in attempt {attempt or found.epoch}", err=True)
    return 0


def _copy(pieces: Iterable[bytes], *, is_err: bool) -> bool:
    """Print all that is there; False where nothing is."""
    is_any = False
    for piece in pieces:
        click.echo(piece, nl=False, err=is_err)
        is_any = True
    return is_any
