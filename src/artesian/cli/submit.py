"""``artesian run`` and ``artesian submit``."""

from pathlib import Path

import click

from artesian.cli.output import output_option, plain, print_json, stderr, stdout
from artesian.cli.state import control_plane, job_json
from artesian.kernel.training import JobReport
from artesian.model.views import JobView

_file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.command()
@_file_argument
@output_option
def submit(file: Path, output: str) -> None:
    """Submit the job in FILE and print its id. It runs whether anybody watches or not."""
    from artesian.cli.jobfile import load_job, no_mistakes

    text = load_job(file)
    with control_plane() as plane, no_mistakes(file):
        job = plane.submit(text)
    if output == "json":
        print_json(job_json(job))
    else:
        click.echo(job.id)


@click.command()
@_file_argument
@click.option("--detach", is_flag=True, help="Submit only; come back with: artesian logs -f JOB.")
@click.option(
    "--no-census", is_flag=True, help="Do not measure this machine first, if that was not done yet."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the waterfall into FILE (.svg or .png).")
@output_option
def run(file: Path, detach: bool, no_census: bool, plot: Path | None, output: str) -> int:
    """Submit the job in FILE, follow it to its end, and show where the compute went.

    What the job prints goes to stderr; the waterfall goes to stdout. Ctrl-C leaves the job running.
    Exit codes: 0 done, 100 the job failed, 103 it was cancelled, 130 interrupted.
    """
    from artesian.cli import plot as drawing
    from artesian.cli.census import ensure_census
    from artesian.cli.follow import exit_code_of, follow, goes_on_without_us
    from artesian.cli.jobfile import load_job, no_mistakes

    if plot is not None:
        drawing.check_path(plot)  # before the job runs, not after
    talk = stderr()
    text = load_job(file)
    with control_plane() as plane:
        with goes_on_without_us(plane, talk) as watched, no_mistakes(file):
            if plane.is_local and not (no_census or detach):
                plane.check(text)  # before a census that takes its time
                ensure_census(talk)
            job = plane.submit(text)
            watched.job_id = job.id
            if detach:
                _say_detached(job, output)
                return 0
            job = follow(plane, job, talk)
        _report(plane.report(job.id), output, plot)
        return exit_code_of(job)


def _say_detached(job: JobView, output: str) -> None:
    if output == "json":
        print_json(job_json(job))
    else:
        click.echo(job.id)
    click.echo(f"follow it with: artesian logs -f {job.id}", err=True)


def _report(report: JobReport, output: str, plot: Path | None) -> None:
    from artesian.cli import picture
    from artesian.cli import plot as drawing

    if output == "json":
        print_json(
            {
                "job": job_json(report.job),
                "training": plain(report.training),
                "waterfall": report.waterfall.to_dict(),
            }
        )
    else:
        console = stdout()
        if report.training.steps:
            console.print(picture.training_panel(report.training))
        console.print(picture.WaterfallPicture(report.waterfall))
    if plot is not None:
        drawing.plot(report.waterfall, plot)  # last: if it fails, the figures are there
