"""``artesian logs``."""

import click

from artesian.cli.follow import exit_code_of, follow
from artesian.cli.output import stderr
from artesian.cli.state import control_plane, find_job, job_argument
from artesian.cli.tail import Tail
from artesian.engines.local.engine import attempt_folder


@click.command()
@job_argument
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the job is over.")
@click.option("--attempt", type=click.IntRange(min=1), help="Number of the attempt; the latest unless given.")
@click.option("--worker", type=click.IntRange(min=0), help="Rank of a worker; the first unless given.")
def logs(job: str, is_followed: bool, attempt: int | None, worker: int | None) -> int:
    """Print what JOB printed: stdout of its first worker on stdout, its stderr on stderr.

    With -f: from the start of the running attempt until the job is over. Exit codes of a followed job:
    0 done, 100 failed, 103 cancelled, 130 interrupted (the job goes on); 102: no such job.
    """
    if is_followed and (attempt or worker):
        raise click.UsageError(
            "-f follows the first worker of the latest attempt: leave --attempt and --worker out"
        )
    with control_plane() as plane:
        record = find_job(plane, job)
        if is_followed:
            return exit_code_of(follow(plane, record.job.id, stderr()))
        if not record.attempts:
            raise click.ClickException(
                f"job {record.job.id} has not started yet: artesian why {record.job.id}"
            )
        epoch = attempt or record.epoch
        if epoch > record.epoch:
            raise click.ClickException(
                f"job {record.job.id}: expected an attempt up to {record.epoch}, got {epoch}"
            )
        folder = attempt_folder(plane.dir.jobs, record.job.id, epoch)
    if worker:
        path = folder.logs / f"rank-{worker}.out"
        if not path.exists():
            raise click.ClickException(
                f"job {record.job.id}: worker {worker} has printed nothing in attempt {epoch}"
            )
        _copy(Tail(path), is_err=False)
    else:
        _copy(Tail(folder.stdout), is_err=False)
        _copy(Tail(folder.stderr), is_err=True)
    return 0


def _copy(tail: Tail, *, is_err: bool) -> None:
    while text := tail.read():
        click.echo(text, nl=False, err=is_err)
