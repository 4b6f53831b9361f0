"""``artesian jobs``, ``show``, ``why`` and ``cancel``."""

import shlex

import click
from rich.table import Table
from rich.text import Text

from artesian.cli.output import Failure, output_option, plain, print_json, stdout, visible
from artesian.cli.state import (
    age_s,
    control_plane,
    devices_in_words,
    find_job,
    job_argument,
    job_json,
    outcome_in_words,
    user_name,
)
from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.model.job import Cause
from artesian.model.plan import Reason
from artesian.model.units import format_duration

_SHOWN_WHEN_OVER = 10


@click.command()
@click.option("-a", "--all", "is_all", is_flag=True, help="Also jobs that were over long ago.")
@output_option
def jobs(is_all: bool, output: str) -> None:
    """List jobs: all that are not over, and the last ten that are."""
    with control_plane() as plane:
        records = list(plane.state().jobs.values())
        over = [record for record in records if record.state.is_final]
        hidden = set() if is_all else {record.job.id for record in over[:-_SHOWN_WHEN_OVER]}
        shown = [record for record in records if record.job.id not in hidden]
        told = [job_json(record, plane.why(record)) for record in shown] if output == "json" else []
        plane.revive()
    if output == "json":
        print_json(told)
        return
    if not records:
        click.echo("no jobs yet: artesian run FILE submits one", err=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("job", "state", "devices", "attempts", "age"):
        table.add_column(name, justify="right" if name in ("attempts", "age") else "left")
    for record in shown:
        age = format_duration(age_s(record.submitted_s))
        table.add_row(record.job.id, record.state.value, devices_in_words(record), str(record.epoch), age)
    stdout(is_wide=True).print(table)  # an id that is cut short is of no use
    if hidden:
        click.echo(f"{len(hidden)} more: artesian jobs --all", err=True)


@click.command()
@job_argument
@output_option
def show(job: str, output: str) -> None:
    """Show JOB: what it asked for, its attempts, its training and its recoveries."""
    from artesian.cli import picture
    from artesian.kernel.goodput import goodput_json, goodput_text
    from artesian.server.report import job_report

    with control_plane() as plane:
        record = find_job(plane, job)
        report = job_report(plane, record)
        reason = plane.why(record)
        told = job_json(record, reason)
        plane.revive()
    if output == "json":
        print_json({**told, "training": plain(report.summary), "goodput": goodput_json(report.goodput)})
        return
    console = stdout()
    facts = _facts(record, reason)
    if record.attempts:
        facts["goodput"] = goodput_text(report.goodput)
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(Text.assemble((name.ljust(width), "bold"), "  ", visible(value)), soft_wrap=True)
    if report.summary.steps:
        console.print(picture.training_panel(report.summary))


def _facts(record: JobRecord, reason: Reason | None) -> dict[str, str]:
    """Return what is told of a job, by its label."""
    job = record.job
    facts = {
        "job": job.id,
        "state": record.state.value if reason is None else f"{record.state.value}: {reason.text}",
        "kind": job.kind.value,
        "asked for": " | ".join(map(str, job.devices)),
        "command": shlex.join(job.command),
        "in": job.workdir,
        "submitted": f"{format_duration(age_s(record.submitted_s))} ago by {job.user or 'unknown'}",
    }
    for attempt in record.attempts:
        end = "runs" if attempt.outcome is None else outcome_in_words(attempt.outcome)
        took_s = age_s(attempt.decided_s) - (0.0 if attempt.ended_s is None else age_s(attempt.ended_s))
        facts[f"attempt {attempt.epoch}"] = f"{attempt.placement}, {format_duration(took_s)}: {end}"
    return facts


@click.command()
@job_argument
@output_option
def why(job: str, output: str) -> None:
    """Say what the scheduler last decided for JOB, why, and what would unblock it."""
    with control_plane() as plane:
        record = find_job(plane, job)
        reason, unblock = _decision(record, plane.why(record))
        plane.revive()
    if output == "json":
        print_json({"job": record.job.id, "state": record.state.value, "reason": reason, "unblock": unblock})
        return
    console = stdout()
    verb = "has " if record.state.is_final and record.state is not JobState.CANCELLED else "is "
    state = record.state.value.replace("_", " ")
    console.print(
        Text.assemble((record.job.id, "bold"), f" {verb}{state}: ", visible(reason)), soft_wrap=True
    )
    if unblock:
        console.print(Text.assemble(("to unblock: ", "bold"), visible(unblock)), soft_wrap=True)


def _decision(record: JobRecord, hold: Reason | None) -> tuple[str, str | None]:
    """Return the last decision about the job in words, and what would let it go on."""
    state = record.state
    if hold is not None:
        return hold.text, hold.unblock
    if state is JobState.QUEUED:
        return "the scheduler has not looked at it yet", "the next scheduling cycle"
    if state is JobState.STOPPING:
        return record.attempt.stop_reason, None
    if state.holds_devices:
        return record.attempt.reason, None
    if state is JobState.CANCELLED and not record.attempts:
        return "a user cancelled it before it started", None
    outcome = record.attempt.outcome
    assert outcome is not None, "a job that is over has an outcome"
    if state is JobState.CANCELLED:
        return f"{record.attempt.stop_reason}; {outcome.message or 'its command had ended'}", None
    said = outcome_in_words(outcome)
    if state is JobState.SUCCEEDED:
        return said, None
    retry = record.job.retry
    cause = outcome.cause.value
    if outcome.cause in retry.causes:
        rule = f"the limit of {retry.limit} retries is reached (retry: limit in the job file)"
    else:
        rule = f"a job is not tried again after {cause} (unless retry: on in its file names it)"
    logs = f"artesian logs {record.job.id} shows what it printed"
    mend = "mend the command in the job file, and submit it again"
    return f"{said}; {rule}", mend if outcome.cause is Cause.START_FAILED else logs


@click.command()
@job_argument
@output_option
def cancel(job: str, output: str) -> None:
    """Stop JOB: SIGTERM, and SIGKILL after its grace. One that waits never starts."""
    with control_plane() as plane:
        record = find_job(plane, job)
        id_ = record.job.id
        if record.state.is_final:
            raise Failure(f"job {id_} is over already: {record.state.value}", hint=f"artesian show {id_}")
        plane.cancel(id_, user_name())
        is_running = record.state.holds_devices
    if output == "json":
        print_json({"job": id_, "cancel": "requested"})
    elif is_running:
        grace = format_duration(record.job.grace_s)
        click.echo(f"{id_} is being stopped; what has not ended in {grace} is killed", err=True)
    else:
        click.echo(f"{id_} will not start any more", err=True)
