"""Following a job: its changes of state, and what its workers print, until it is over."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from rich.console import Console
from rich.text import Text

from artesian.cli import exits
from artesian.cli.state import outcome_in_words
from artesian.cli.tail import Tail
from artesian.engines.local.engine import attempt_folder
from artesian.kernel.lifecycle import Attempt, JobRecord, JobState
from artesian.model.units import format_duration
from artesian.server.embedded import ControlPlane

_LOOK_S = 0.1
_REVIVE_EVERY = 10
"""Looks between two checks that the daemon lives."""


@contextmanager
def goes_on_without_us(plane: ControlPlane, job_id: str, talk: Console) -> Iterator[None]:
    """On Ctrl-C in the block, say what becomes of the job and how to come back, and leave with 130."""
    try:
        yield
    except KeyboardInterrupt:
        _interrupted(plane.state().jobs.get(job_id), talk)


def _interrupted(record: JobRecord | None, talk: Console) -> NoReturn:
    if record is None:
        talk.print("\ninterrupted; nothing was submitted")
    elif record.state.is_final:
        id_ = record.job.id
        talk.print(f"\ninterrupted; {id_} is over ({record.state.value}): artesian show {id_}")
    else:
        id_ = record.job.id
        talk.print(f"\ninterrupted; {id_} goes on without you")
        talk.print(
            f"  come back:  artesian logs -f {id_}\n  stop it:    artesian cancel {id_}", soft_wrap=True
        )
    sys.exit(exits.INTERRUPTED)


def follow(plane: ControlPlane, job_id: str, talk: Console, *, is_data: bool = False) -> JobRecord:
    """Print what happens to the job, and return its record when it is over.

    What it prints on stdout goes to stdout where that is the data asked for, else to stderr.
    """
    return _Follower(plane, job_id, talk, is_data=is_data).run()


def exit_code_of(record: JobRecord) -> int:
    """Return the exit code for a followed job."""
    codes = {
        JobState.SUCCEEDED: 0,
        JobState.FAILED: exits.JOB_FAILED,
        JobState.CANCELLED: exits.JOB_CANCELLED,
    }
    return codes.get(record.state, exits.JOB_NOT_FINISHED)


class _Follower:
    """What was told so far, so that nothing is told twice."""

    def __init__(self, plane: ControlPlane, job_id: str, talk: Console, *, is_data: bool) -> None:
        self._plane = plane
        self._job_id = job_id
        self._talk = talk
        self._is_data = is_data
        self._told: set[tuple[str, int]] = set()
        self._told_hold = ""
        self._tails: list[tuple[Tail, bool]] = []
        self._tailed_epoch = 0

    def run(self) -> JobRecord:
        looks = 0
        while True:
            record = self._plane.job(self._job_id)
            for attempt in record.attempts:
                self._tell_start(record, attempt)
                if attempt.started_s is not None and attempt.outcome is None:
                    self._pass_on(record, attempt)
                self._tell_end(record, attempt)
            self._tell_hold(record)
            if record.state.is_final:
                life_s = (record.ended_s or record.submitted_s) - record.submitted_s
                self._say(f"{record.state.value} after {format_duration(life_s)}")
                return record
            looks += 1
            if looks % _REVIVE_EVERY == 0:
                self._plane.revive()
            time.sleep(_LOOK_S)

    def _tell_start(self, record: JobRecord, attempt: Attempt) -> None:
        if attempt.started_s is not None and self._is_news("started", attempt.epoch):
            which = f"attempt {attempt.epoch} started" if attempt.epoch > 1 else "started"
            after = format_duration(attempt.started_s - record.submitted_s)
            self._say(f"{which} on {attempt.placement}, {after} after the submit")

    def _tell_end(self, record: JobRecord, attempt: Attempt) -> None:
        if attempt.outcome is None or not self._is_news("ended", attempt.epoch):
            return
        self._pass_on(record, attempt)  # what it wrote between our last look and its end
        is_last = record.state.is_final and attempt.epoch == record.epoch
        next_ = "" if is_last else "; it is tried again"
        self._say(f"attempt {attempt.epoch} ended: {outcome_in_words(attempt.outcome)}{next_}")

    def _tell_hold(self, record: JobRecord) -> None:
        reason = self._plane.why(record)
        text = "" if reason is None else f"waits: {reason.text} (until {reason.unblock})"
        if text and text != self._told_hold:
            self._say(text)
        self._told_hold = text

    def _pass_on(self, record: JobRecord, attempt: Attempt) -> None:
        """Print what the attempt's workers have printed since the last call."""
        if attempt.epoch != self._tailed_epoch:
            folder = attempt_folder(self._plane.dir.jobs, record.job.id, attempt.epoch)
            self._tails = [(Tail(folder.stdout), not self._is_data), (Tail(folder.stderr), True)]
            self._tailed_epoch = attempt.epoch
        for tail, is_err in self._tails:
            while piece := tail.read():
                click.echo(piece, nl=False, err=is_err)

    def _is_news(self, what: str, epoch: int) -> bool:
        if (what, epoch) in self._told:
            return False
        self._told.add((what, epoch))
        return True

    def _say(self, text: str) -> None:
        self._talk.print(Text.assemble((self._job_id, "bold"), " ", text), soft_wrap=True)
