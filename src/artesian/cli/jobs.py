"""``artesian jobs``, ``show``, ``why`` and ``cancel``."""

import getpass

import click
from rich.table import Table

from artesian.cli.output import output_option, plain, print_json, stdout
from artesian.cli.state import (
    age_s,
    control_plane,
    devices_in_words,
    find_job,
    job_argument,
    job_json,
    outcome_in_words,
)
from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.model.units import format_duration

_SHOWN_WHEN_OVER = 10


@click.command()
@click.option("-a", "--all", "is_all", is_flag=True, help="Also jobs that were over long ago.")
@output_option
def jobs(is_all: bool, output: str) -> None:
    """List jobs: all that are not over, and the last ten that are."""
    with control_plane() as plane:
        records = list(plane.state().jobs.values())
        plane.revive()
    over = [record for record in records if record.state.is_final]
    hidden = set() if is_all else {record.job.id for record in over[:-_SHOWN_WHEN_OVER]}
    shown = [record for record in records if record.job.id not in hidden]
    if output == "json":
        print_json([job_json(record) for record in shown])
        return
    if not records:
        click.echo("no jobs yet: artesian run FILE submits one", err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "devices", "attempts", "age"):
        table.add_column(
            name, justify="right" if name in ("attempts", "age") else "left", no_wrap=name != "devices"
        )
    for record in shown:
        age = format_duration(age_s(record.submitted_s))
        table.add_row(record.job.id, record.state.value, devices_in_words(record), str(record.epoch), age)
    stdout().print(table)
    if hidden:
        click.echo(f"{len(hidden)} more: artesian jobs --all", err=True)


@click.command()
@job_argument
@output_option
def show(job: str, output: str) -> None:
    """Show JOB: what it asked for, its attempts, its training and its recoveries."""
    from artesian.cli import picture
    from artesian.server.report import job_report

    with control_plane() as plane:
        record = find_job(plane, job)
        report = job_report(plane, record)
        plane.revive()
    if output == "json":
        print_json({**job_json(record), "training": plain(report.summary)})
        return
    console = stdout()
    console.print(_facts(record))
    for attempt in record.attempts:
        end = "runs" if attempt.outcome is None else outcome_in_words(attempt.outcome)
        until = (
            attempt.ended_s if attempt.ended_s is not None else attempt.decided_s + age_s(attempt.decided_s)
        )
        took = format_duration(until - attempt.decided_s)
        console.print(f"attempt {attempt.epoch}  {attempt.placement}  {took}  {end}", markup=False)
    if report.summary.steps:
        console.print(picture.training_panel(report.summary))


def _facts(record: JobRecord) -> Table:
    job = record.job
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold")
    facts.add_column()
    rows = {
        "job": job.id,
        "state": record.state.value if record.hold is None else f"{record.state.value}: {record.hold.text}",
        "kind": job.kind.value,
        "asked for": " | ".join(map(str, job.devices)),
        "command": " ".join(job.command),
        "in": job.workdir,
        "submitted": f"{format_duration(age_s(record.submitted_s))} ago by {job.user or 'unknown'}",
    }
    for name, value in rows.items():
        facts.add_row(name, value)
    return facts


@click.command()
@job_argument
@output_option
def why(job: str, output: str) -> None:
    """Say what the scheduler last decided for JOB, why, and what would unblock it."""
    with control_plane() as plane:
        record = find_job(plane, job)
        plane.revive()
    answer = {"job": record.job.id, "state": record.state.value, **_decision(record)}
    if output == "json":
        print_json(answer)
        return
    console = stdout()
    console.print(f"[bold]{record.job.id}[/bold] is {record.state.value.replace('_', ' ')}: ", end="")
    console.print(answer["reason"], markup=False, soft_wrap=True)
    if answer["unblock"]:
        console.print("[bold]to unblock:[/bold] ", end="")
        console.print(answer["unblock"], markup=False, soft_wrap=True)


def _decision(record: JobRecord) -> dict[str, str | None]:
    """Return the last decision about the job, and what would let it go on."""
    state = record.state
    if record.hold is not None:
        return {"reason": record.hold.text, "unblock": record.hold.unblock}
    if state is JobState.QUEUED:
        return {"reason": "the scheduler has not looked at it yet", "unblock": "the next scheduling cycle"}
    if state is JobState.STOPPING:
        return {"reason": record.attempt.stop_reason, "unblock": None}
    if state.holds_devices:
        return {"reason": record.attempt.reason, "unblock": None}
    if state is JobState.CANCELLED and not record.attempts:
        return {"reason": "a user cancelled it before it started", "unblock": None}
    outcome = record.attempt.outcome
    said = "its last attempt ended" if outcome is None else outcome_in_words(outcome)
    if state is JobState.FAILED and outcome is not None:
        retry = record.job.retry
        spent = outcome.cause in retry.causes and retry.counts(outcome.cause)
        rule = (
            f"all {retry.limit} retries are used up"
            if spent
            else f"{outcome.cause.value} is not retried (retry: on: in the job file)"
        )
        return {"reason": f"{said}; {rule}", "unblock": f"artesian logs {record.job.id} shows its output"}
    return {"reason": said, "unblock": None}


@click.command()
@job_argument
@output_option
def cancel(job: str, output: str) -> None:
    """Stop JOB: SIGTERM, and SIGKILL after its grace. One that waits never starts."""
    with control_plane() as plane:
        record = find_job(plane, job)
        if record.state.is_final:
            raise click.ClickException(f"job {record.job.id} is over already: {record.state.value}")
        plane.cancel(record.job.id, getpass.getuser())
    if output == "json":
        print_json({"job": record.job.id, "cancel": "requested"})
    else:
        click.echo(f"{record.job.id} is being stopped", err=True)
