"""``artesian jobs``, ``show``, ``why``, ``cancel`` and ``resize``."""

import shlex
import time

import click
from rich.text import Text

from artesian.cli.output import output_option, plain, print_columns, print_json, stdout, visible
from artesian.cli.state import (
    age_s,
    control_plane,
    devices_in_words,
    job_argument,
    job_json,
    known_job,
)
from artesian.model.units import format_duration
from artesian.model.views import JobView


@click.command()
@click.option("-a", "--all", "is_all", is_flag=True, help="All jobs, however many there are.")
@output_option
def jobs(is_all: bool, output: str) -> None:
    """List jobs: up to 200 that are not over, and the last ten that are."""
    with control_plane() as plane:
        found = plane.jobs(is_all=is_all)
    if output == "json":
        print_json([job_json(job) for job in found.jobs])
        return
    if not found.jobs:
        click.echo("no jobs yet: artesian run FILE submits one", err=True)
        return
    rows = [
        (
            job.id,
            job.state,
            devices_in_words(job),
            str(job.epoch),
            format_duration(age_s(job.submitted_s)),
        )
        for job in found.jobs
    ]
    print_columns(("job", "state", "devices", "attempts", "age"), rows, right=("attempts", "age"))
    if found.more:
        click.echo(f"{found.more} more: artesian jobs --all", err=True)


@click.command()
@job_argument
@output_option
def show(job: str, output: str) -> None:
    """Show JOB: what it asked for, its attempts, its training and its recoveries."""
    from artesian.cli import picture
    from artesian.kernel.goodput import goodput_json, goodput_text

    with control_plane() as plane, known_job():
        report = plane.report(job)
    found, summary = report.job, report.training
    if output == "json":
        print_json({**job_json(found), "training": plain(summary), "goodput": goodput_json(report.goodput)})
        return
    console = stdout()
    facts = _facts(found)
    if found.attempts:
        facts["goodput"] = goodput_text(report.goodput)
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", visible(value)), soft_wrap=True)
    if summary.steps:
        console.print(picture.training_panel(summary))


def _facts(job: JobView) -> dict[str, str]:
    """Return what is told of a job, by its label."""
    facts = {
        "job": job.id,
        "state": job.state if job.reason is None else f"{job.state}: {job.reason.text}",
        "kind": job.kind,
        "asked for": " | ".join(job.devices),
        "command": shlex.join(job.command),
        "in": job.workdir,
        "submitted": f"{format_duration(age_s(job.submitted_s))} ago by {job.user or 'unknown'}",
    }
    for attempt in job.attempts:
        end = "runs" if attempt.outcome is None else str(attempt.outcome)
        took_s = age_s(attempt.decided_s) - (0.0 if attempt.ended_s is None else age_s(attempt.ended_s))
        facts[f"attempt {attempt.epoch}"] = f"{attempt.place}, {format_duration(took_s)}: {end}"
    return facts


@click.command()
@job_argument
@output_option
def why(job: str, output: str) -> None:
    """Say what the scheduler last decided for JOB, why, and what would unblock it."""
    with control_plane() as plane, known_job():
        found = plane.decision(job)
    if output == "json":
        print_json(plain(found))
        return
    console = stdout()
    verb = "has " if found.state in ("succeeded", "failed") else "is "
    state = found.state.replace("_", " ")
    console.print(
        Text.assemble((found.job, "bold"), f" {verb}{state}: ", visible(found.reason)), soft_wrap=True
    )
    if found.unblock:
        console.print(Text.assemble(("to unblock: ", "bold"), visible(found.unblock)), soft_wrap=True)
    for slow in found.stragglers or ():
        console.print(Text.assemble(("straggler: ", "bold"), visible(str(slow))), soft_wrap=True)
        console.print(Text.assemble(("to mend: ", "bold"), visible(slow.remedy)), soft_wrap=True)
    for apart in found.divergences or ():
        console.print(Text.assemble(("replicas: ", "bold"), visible(str(apart))), soft_wrap=True)
        console.print(Text.assemble(("to mend: ", "bold"), visible(apart.remedy)), soft_wrap=True)
    if found.state != "queued":
        return
    start_s = found.nearest_start_s
    nearest = "not known" if start_s is None else f"in {format_duration(max(0.0, start_s - time.time()))}"
    console.print(Text.assemble(("nearest start: ", "bold"), nearest), soft_wrap=True)
    for change in found.would_start:
        console.print(Text.assemble(("would start now ", "bold"), visible(change)), soft_wrap=True)


@click.command()
@job_argument
@output_option
def cancel(job: str, output: str) -> None:
    """Stop JOB: SIGTERM, and SIGKILL after its grace. One that waits never starts."""
    with control_plane() as plane, known_job():
        found = plane.cancel(job)
    if output == "json":
        print_json({"job": found.id, "cancel": "requested"})
    elif found.holds_devices:
        grace = format_duration(found.grace_s)
        click.echo(f"{found.id} is being stopped; what has not ended in {grace} is killed", err=True)
    else:
        click.echo(f"{found.id} will not start any more", err=True)


@click.command()
@job_argument
@click.option(
    "--devices", required=True, metavar="COUNT", help="How many: 8, or 4..8 for as many as there are."
)
@output_option
def resize(job: str, devices: str, output: str) -> None:
    """Change how many devices JOB asks for, of each of the kinds that it accepts.

    One that waits asks for as many at once. One that runs, and does not hold as many, gets SIGTERM, and SIGKILL after
    its grace: it waits for its devices, and goes on from its latest checkpoint.
    """
    with control_plane() as plane, known_job():
        found = plane.resize(job, devices)
    asks = " | ".join(found.devices)
    if output == "json":
        print_json({"job": found.id, "state": found.state, "devices": list(found.devices)})
    elif found.state == "stopping":
        grace = format_duration(found.grace_s)
        click.echo(
            f"{found.id} is being stopped, and goes on with {asks}; what has not ended in {grace} is killed",
            err=True,
        )
    elif found.holds_devices:
        click.echo(f"{found.id} asks for {asks}: it holds as many, and runs on", err=True)
    else:
        click.echo(f"{found.id} asks for {asks}", err=True)
