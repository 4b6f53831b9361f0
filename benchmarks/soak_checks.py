"""What must hold after a soak, whatever has happened in it: each violation is a sentence.

Three witnesses, none of which trusts another: the journal, what the jobs noted themselves (``Witness``), and
what the soak did to the nodes (``Outage``).
"""

import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from artesian.kernel.lifecycle import Attempt, JobRecord, JobState
from artesian.kernel.state import Record, State
from artesian.model.events import CancelRequested
from artesian.model.job import Cause
from soak_plan import EXIT_CODE, Submit

_NOTICE_S = 90.0
"""How long after a node's death its attempts may still end for it: Slurm has to notice, and to be there to be asked."""
_VALIDATE_EVERY = 500
_NOBODYS_FAULT = (Cause.NODE_LOST, Cause.PREEMPTED)

SCRIPT = r"""
exec 9>>"$1/locks/$ARTESIAN_JOB_ID"
flock --nonblock 9 || echo "overlap $ARTESIAN_JOB_ID $ARTESIAN_EPOCH" >> "$1/notes"
echo "start $ARTESIAN_JOB_ID $ARTESIAN_EPOCH" >> "$1/notes"
[ "$4" = stubborn ] && trap '' TERM
sleep "$2"
exit "$3"
"""
"""A job: notes that it starts, and whether another attempt of it is alive. Its processes keep the lock until the last is gone."""


class Witness:
    """What the jobs themselves noted, in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "locks").mkdir(parents=True)
        self._notes = folder / "notes"
        self._notes.touch()

    def command(self, submit: Submit) -> list[str]:
        """Return the command of a job that notes what becomes of it."""
        code = EXIT_CODE if submit.ending == "fails" else 0
        manner = "stubborn" if submit.is_stubborn else "gentle"
        return ["sh", "-c", SCRIPT, "job", str(self.folder), f"{submit.lasts_s:.1f}", str(code), manner]

    def starts(self) -> Counter[tuple[str, int]]:
        """Return how often each attempt has started."""
        return Counter((id_, epoch) for word, id_, epoch in self._read() if word == "start")

    def overlaps(self) -> list[tuple[str, int]]:
        """Return the attempts that began while an earlier one was alive."""
        return [(id_, epoch) for word, id_, epoch in self._read() if word == "overlap"]

    def alive(self) -> list[str]:
        """Return the jobs of which something is alive."""
        found = []
        for path in (self.folder / "locks").iterdir():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(path.name)
            finally:
                os.close(descriptor)
        return found

    def _read(self) -> Iterator[tuple[str, str, int]]:
        for line in self._notes.read_text().splitlines():
            word, id_, epoch = line.split()
            yield word, id_, int(epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A node, or ``*`` for all, was away. Seconds since the epoch."""

    node: str
    from_s: float
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Every violation, by what should have held."""

    lost: Sequence[str]
    twice: Sequence[str]
    wrong: Sequence[str]
    left: Sequence[str]

    @property
    def all(self) -> list[str]:
        """All of them."""
        return [*self.lost, *self.twice, *self.wrong, *self.left]


def replayed(records: Iterable[tuple[int, Record]]) -> tuple[State, set[str]]:
    """Return the state after all records, and the jobs that were cancelled before they were over."""
    state, cancelled = State(), set()
    for seq, record in records:
        if isinstance(record, CancelRequested):
            job = state.jobs.get(record.job_id)
            if job is not None and not job.state.is_final:
                cancelled.add(record.job_id)
        state.apply(record)
        if seq % _VALIDATE_EVERY == 0:
            state.validate()
    state.validate()
    return state, cancelled


def check(
    submitted: Mapping[str, Submit],
    state: State,
    cancelled: set[str],
    witness: Witness,
    outages: Sequence[Outage],
    left: Sequence[str],
) -> Verdict:
    """Return what does not hold. ``submitted`` are the accepted jobs by id; ``left`` is what was found left over."""
    starts = witness.starts()
    lost = [f"{id_} was accepted, and is in no journal" for id_ in submitted if id_ not in state.jobs]
    twice = [f"{id_}/{epoch} started {times} times" for (id_, epoch), times in starts.items() if times > 1]
    twice += [f"{id_}/{epoch} began while an earlier attempt ran" for id_, epoch in witness.overlaps()]
    wrong: list[str] = []
    for id_, submit in submitted.items():
        record = state.jobs.get(id_)
        if record is None:
            continue
        if not record.state.is_final:
            lost.append(f"{id_} is {record.state.value}, and nothing becomes of it")
            continue
        wrong += _wrong_end(record, submit, is_cancelled=id_ in cancelled)
        wrong += _wrong_causes(record, outages)
        if record.state is not JobState.CANCELLED and not starts[id_, record.epoch]:
            lost.append(f"{id_} is {record.state.value}, and its last attempt never ran")
    wrong += [
        f"{id_}/{epoch} ran, and the journal does not know it"
        for id_, epoch in starts
        if id_ not in state.jobs or epoch > state.jobs[id_].epoch
    ]
    return Verdict(lost=lost, twice=twice, wrong=wrong, left=left)


def _wrong_end(record: JobRecord, submit: Submit, *, is_cancelled: bool) -> Iterator[str]:
    expected = JobState.SUCCEEDED if submit.ending == "completes" else JobState.FAILED
    if is_cancelled:
        expected = JobState.CANCELLED
    if record.state is not expected:
        outcome = record.attempts[-1].outcome if record.attempts else None
        yield f"{record.job.id} is {record.state.value}, expected {expected.value}: {outcome}"
    elif record.state is JobState.FAILED:
        outcome = record.attempt.outcome
        if outcome is None or (outcome.cause, outcome.exit_code) != (Cause.USER_ERROR, EXIT_CODE):
            yield f"{record.job.id} failed with {outcome}, expected a user error with code {EXIT_CODE}"


def _wrong_causes(record: JobRecord, outages: Sequence[Outage]) -> Iterator[str]:
    """Yield the attempts but the last that ended for another reason than a node's death, or without one."""
    for attempt in record.attempts[:-1]:
        name = f"{record.job.id}/{attempt.epoch}"
        if attempt.outcome is None or attempt.outcome.cause not in _NOBODYS_FAULT:
            yield f"{name} ended with {attempt.outcome}, and another attempt followed"
        elif not any(_explains(outage, attempt) for outage in outages):
            nodes = ", ".join(share.node_id for share in attempt.placement.shares)
            yield f"{name} ended with {attempt.outcome}, and none of {nodes} was away"


def _explains(outage: Outage, attempt: Attempt) -> bool:
    assert attempt.ended_s is not None
    is_there = outage.node == "*" or outage.node in {share.node_id for share in attempt.placement.shares}
    return is_there and outage.from_s <= attempt.ended_s and attempt.decided_s <= outage.until_s + _NOTICE_S
