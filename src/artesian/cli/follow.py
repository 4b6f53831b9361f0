"""Following a job: its changes of state, and what its workers print, until it is over."""

import sys
import time
from typing import NoReturn

import click
from rich.console import Console
from rich.markup import escape

from artesian.cli.output import EXIT_CANCELLED, EXIT_JOB_FAILED, EXIT_NOT_FINISHED
from artesian.cli.state import outcome_in_words
from artesian.cli.tail import Tail
from artesian.engines.local.engine import attempt_folder
from artesian.kernel.lifecycle import Attempt, JobRecord, JobState
from artesian.model.units import format_duration
from artesian.server.embedded import ControlPlane

_LOOK_S = 0.1
_REVIVE_EVERY = 10
"""Looks between two checks that the daemon lives."""

EXIT_INTERRUPTED = 130


def follow(plane: ControlPlane, job_id: str, talk: Console) -> JobRecord:
    """Print what happens to the job, and return its record when it is over.

    On Ctrl-C it says how to come back, and leaves the process with 130; the job goes on.
    """
    follower = _Follower(plane, job_id, talk)
    try:
        return follower.run()
    except KeyboardInterrupt:
        _interrupted(plane.job(job_id), talk)


def exit_code_of(record: JobRecord) -> int:
    """Return the exit code for a followed job."""
    codes = {JobState.SUCCEEDED: 0, JobState.FAILED: EXIT_JOB_FAILED, JobState.CANCELLED: EXIT_CANCELLED}
    return codes.get(record.state, EXIT_NOT_FINISHED)


def _interrupted(record: JobRecord, talk: Console) -> NoReturn:
    id_ = record.job.id
    if record.state.is_final:
        talk.print(f"\ninterrupted; {id_} is over ({record.state.value}): artesian show {id_}")
    else:
        talk.print(
            f"\ninterrupted; {id_} goes on. Come back: artesian logs -f {id_}   Stop it: artesian cancel {id_}"
        )
    sys.exit(EXIT_INTERRUPTED)


class _Follower:
    """What was told so far, so that nothing is told twice."""

    def __init__(self, plane: ControlPlane, job_id: str, talk: Console) -> None:
        self._plane = plane
        self._job_id = job_id
        self._talk = talk
        self._told: set[tuple[str, int]] = set()
        self._told_hold = ""
        self._tails: list[Tail] = []
        self._tailed_epoch = 0

    def run(self) -> JobRecord:
        looks = 0
        while True:
            record = self._plane.job(self._job_id)
            for attempt in record.attempts:
                self._tell_start(record, attempt)
                if attempt.epoch == self._tailed_epoch or not attempt.ended_s:
                    self._pass_on(record, attempt)
                self._tell_end(record, attempt)
            self._tell_hold(record)
            if record.state.is_final:
                self._say(
                    f"{record.state.value} after {format_duration((record.ended_s or 0) - record.submitted_s)}"
                )
                return record
            looks += 1
            if looks % _REVIVE_EVERY == 0:
                self._plane.revive()
            time.sleep(_LOOK_S)

    def _tell_start(self, record: JobRecord, attempt: Attempt) -> None:
        if attempt.started_s is not None and self._is_news("started", attempt.epoch):
            which = f"attempt {attempt.epoch}" if attempt.epoch > 1 else "started"
            self._say(
                f"{which} on {attempt.placement}, {format_duration(attempt.started_s - record.submitted_s)} after the submit"
            )

    def _tell_end(self, record: JobRecord, attempt: Attempt) -> None:
        if attempt.outcome is None or not self._is_news("ended", attempt.epoch):
            return
        self._pass_on(record, attempt)  # what it wrote between our last look and its end
        next_ = "" if record.state.is_final else "; it is tried again"
        self._say(f"attempt {attempt.epoch} ended: {outcome_in_words(attempt.outcome)}{next_}")

    def _tell_hold(self, record: JobRecord) -> None:
        text = "" if record.hold is None else f"waits: {record.hold.text} (until {record.hold.unblock})"
        if text and text != self._told_hold:
            self._say(text)
        self._told_hold = text

    def _pass_on(self, record: JobRecord, attempt: Attempt) -> None:
        """Print what the attempt's workers have printed since the last call."""
        if attempt.epoch != self._tailed_epoch:
            folder = attempt_folder(self._plane.dir.jobs, record.job.id, attempt.epoch)
            self._tails = [Tail(folder.stdout), Tail(folder.stderr)]
            self._tailed_epoch = attempt.epoch
        for tail in self._tails:
            if text := tail.read():
                click.echo(text, nl=False, err=True)

    def _is_news(self, what: str, epoch: int) -> bool:
        if (what, epoch) in self._told:
            return False
        self._told.add((what, epoch))
        return True

    def _say(self, text: str) -> None:
        self._talk.print(f"[bold]{self._job_id}[/bold] {escape(text)}", soft_wrap=True)
