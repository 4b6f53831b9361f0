"""Following a job step by step: what happened to it since the last look, and what it printed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from artesian.engines.local.engine import attempt_folder
from artesian.engines.local.records import NotOfTheAttempt, read_regular
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.told import attempt_view, job_view, outcome_view
from artesian.model.plan import Reason
from artesian.model.views import Ended, Happening, Held, Output, Over, Started

PIECE_BYTES = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a follower is: in which attempt, whether its start was told, and how much of its output."""

    epoch: int = 1
    is_started: bool = False
    out: int = 0
    err: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}.{int(self.is_started)}.{self.out}.{self.err}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return what ``str`` gave. Raises ValueError."""
        epoch, is_started, out, err = (int(part) for part in text.split("."))
        if epoch < 1 or is_started not in (0, 1) or min(out, err) < 0 or max(epoch, out, err) >= 2**53:
            raise ValueError(text)
        return cls(epoch=epoch, is_started=bool(is_started), out=out, err=err)


class Follower:
    """Tells what happens to one job; ``position`` is how far it is, for another one to go on from."""

    def __init__(self, jobs: Path, position: Position | None = None) -> None:
        self._jobs = jobs
        self.position = position or Position()
        self._told_hold = ""

    def look(self, record: JobRecord, reason: Reason | None) -> Iterator[Happening]:
        """Yield what is new; the last of all is ``Over``. ``reason`` is why the job waits now."""
        while self.position.epoch <= record.epoch:
            attempt = record.attempts[self.position.epoch - 1]
            outcome = (
                attempt.outcome
            )  # before the output is read: what was printed before the end comes first
            if attempt.started_s is not None and not self.position.is_started:
                self.position = replace(self.position, is_started=True)
                place = attempt_view(attempt).place
                yield Started(epoch=attempt.epoch, place=place, at_s=attempt.started_s)
            if attempt.started_s is not None or outcome is not None:
                yield from self._output(record.job.id)
            if outcome is None:
                break
            self.position = Position(epoch=attempt.epoch + 1)
            is_last = record.state.is_final and attempt.epoch == record.epoch
            yield Ended(epoch=attempt.epoch, outcome=outcome_view(outcome), is_last=is_last)
        text = "" if reason is None else reason.text
        if reason is not None and text != self._told_hold:
            yield Held(reason=reason)
        self._told_hold = text
        if record.state.is_final and self.position.epoch > record.epoch:
            yield Over(job=job_view(record))

    def _output(self, job_id: str) -> Iterator[Output]:
        epoch = self.position.epoch
        folder = attempt_folder(self._jobs, job_id, epoch)
        while data := read_piece(folder.stdout, self.position.out):
            offset = self.position.out
            self.position = replace(self.position, out=offset + len(data))
            yield Output(epoch=epoch, is_err=False, offset=offset, data=data)
        while data := read_piece(folder.stderr, self.position.err):
            offset = self.position.err
            self.position = replace(self.position, err=offset + len(data))
            yield Output(epoch=epoch, is_err=True, offset=offset, data=data)


def log_file(jobs: Path, job_id: str, epoch: int, *, worker: int | None, is_err: bool) -> Path:
    """Return where the output of an attempt is: of its first worker, or of the one with this rank."""
    folder = attempt_folder(jobs, job_id, epoch)
    if worker:
        return folder.logs / f"rank-{worker}.out"  # what it prints on stderr goes there, too
    return folder.stderr if is_err else folder.stdout


def read_piece(path: Path, offset: int, most: int = PIECE_BYTES) -> bytes:
    """Return up to ``most`` bytes from ``offset``; none where there are none, or no file of the attempt's own."""
    try:
        return read_regular(path, offset, most)
    except (FileNotFoundError, NotOfTheAttempt):
        return b""
