"""``artesian run`` and ``artesian submit``."""

from pathlib import Path

import click

from artesian.cli.output import output_option, plain, print_json, stderr, stdout
from artesian.cli.state import control_plane, job_json
from artesian.kernel.lifecycle import JobRecord
from artesian.server.embedded import ControlPlane

_file_argument = click.argument("file", type=click.Path(path_type=Path))


@click.command()
@_file_argument
@output_option
def submit(file: Path, output: str) -> None:
    """Submit the job in FILE and print its id. It runs whether anybody watches or not."""
    from artesian.cli.jobfile import load_job

    with control_plane() as plane:
        job = load_job(file, plane)
        plane.submit(job)
        if output == "json":
            record = plane.job(job.id)
            print_json(job_json(record, plane.why(record)))
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
    from artesian.cli.jobfile import load_job

    if plot is not None:
        drawing.check_path(plot)  # before the job runs, not after
    talk = stderr()
    with control_plane() as plane:
        job = load_job(file, plane)
        plane.check(job)  # before a census that takes its time
        with goes_on_without_us(plane, job.id, talk):
            if not no_census and not detach:
                ensure_census(plane, talk)
            plane.submit(job)
            if detach:
                _say_detached(plane, plane.job(job.id), output)
                return 0
            record = follow(plane, job.id, talk)
        _report(plane, record, output, plot)
        return exit_code_of(record)


def _say_detached(plane: ControlPlane, record: JobRecord, output: str) -> None:
    if output == "json":
        print_json(job_json(record, plane.why(record)))
    else:
        click.echo(record.job.id)
    click.echo(f"follow it with: artesian logs -f {record.job.id}", err=True)


def _report(plane: ControlPlane, record: JobRecord, output: str, plot: Path | None) -> None:
    from artesian.cli import picture
    from artesian.cli import plot as drawing
    from artesian.kernel.goodput import goodput_json
    from artesian.server.report import job_report

    report = job_report(plane, record)
    if output == "json":
        print_json(
            {
                "job": job_json(record, plane.why(record)),
                "training": plain(report.summary),
                "goodput": goodput_json(report.goodput),
                "waterfall": report.waterfall.to_dict(),
            }
        )
    else:
        console = stdout()
        if report.summary.steps:
            console.print(picture.training_panel(report.summary))
        console.print(picture.WaterfallPicture(report.waterfall))
    if plot is not None:
        drawing.plot(report.waterfall, plot)  # last: if it fails, the figures are there
