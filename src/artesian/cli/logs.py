"""``artesian logs``."""

import click

from artesian.cli.follow import exit_code_of, follow, goes_on_without_us
from artesian.cli.output import Failure, stderr
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

    With -f: all of its attempts, until the job is over; what becomes of it is told on stderr. Exit codes
    then: 0 done, 100 failed, 103 cancelled, 130 interrupted (the job goes on). 102: no such job.
    """
    if is_followed and (attempt is not None or worker is not None):
        raise click.UsageError(
            "-f follows the first worker of all attempts: leave --attempt and --worker out"
        )
    with control_plane() as plane:
        record = find_job(plane, job)
        id_ = record.job.id
        if is_followed:
            with goes_on_without_us(plane, id_, stderr()):
                return exit_code_of(follow(plane, id_, stderr(), is_data=True))
        if not record.attempts:
            raise Failure(
                f"job {id_} has not started: it is {record.state.value}", hint=f"artesian why {id_}"
            )
        epoch = attempt or record.epoch
        if epoch > record.epoch:
            raise Failure(f"job {id_}: expected an attempt up to {record.epoch}, got {epoch}")
        folder = attempt_folder(plane.dir.jobs, id_, epoch)
    if worker:
        is_any = _copy(Tail(folder.logs / f"rank-{worker}.out"), is_err=False)
    else:
        is_any = _copy(Tail(folder.stdout), is_err=False) | _copy(Tail(folder.stderr), is_err=True)
    if not is_any:
        who = f"worker {worker}" if worker else id_
        click.echo(f"{who} has printed nothing in attempt {epoch}", err=True)
    return 0


def _copy(tail: Tail, *, is_err: bool) -> bool:
    """Print all that is there; False where nothing is."""
    is_any = False
    while piece := tail.read():
        click.echo(piece, nl=False, err=is_err)
        is_any = True
    return is_any
