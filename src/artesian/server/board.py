"""What is asked of the state, answered by indices: pages of jobs, counts, names. O(page), not O(jobs)."""

import base64
import heapq
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from msgspec import Struct

from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.state import Record, State
from artesian.model.errors import ArtesianError
from artesian.model.events import (
    AttemptEnded,
    AttemptProgressed,
    AttemptStarted,
    CancelRequested,
    ClockTicked,
    JobSubmitted,
    NodeExcluded,
    NodeJoined,
    NodeLost,
    NodeReturned,
)
from artesian.model.plan import Plan

_CURSOR = re.compile(r"j[0-9]{1,10}")
_MOST_UNPACKED = 20
"""Blocks of the archive that are unpacked for one page, of a millisecond each."""
_MOST_SCANNED = 5_000
"""Jobs looked at for one page: a filter that hardly any job passes yields short pages, not long waits."""
KEYED_SUFFIX = 12
"""Letters at the end of the id of a job that was submitted under an idempotency key."""


class BadCursor(ArtesianError, ValueError):  # noqa: N818 - reads as what it is
    """A cursor that no page gave."""


class Filter(Struct, frozen=True, kw_only=True):
    """Which jobs: all that match every field that is given; ``states`` empty: any."""

    states: frozenset[JobState] = frozenset()
    team: str | None = None
    user: str | None = None
    name: str | None = None
    kind: str | None = None

    def matches(self, record: JobRecord) -> bool:
        """Return whether the job is one of them."""
        job = record.job
        return (
            (not self.states or record.state in self.states)
            and self.team in (None, job.team)
            and self.user in (None, job.user)
            and self.name in (None, job.name)
            and self.kind in (None, job.kind.value)
        )


class Board:
    """Indices over the jobs of a state, by their number in the order of submits.

    ``took`` must be told of every record right after the state has applied it. Of jobs in the state's archive only
    what the indices need is kept here.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._order: list[JobRecord | str] = []
        """Jobs; of those in the archive their ids."""
        self._archived = 0
        self._states: list[JobState] = []
        self._by_state: dict[JobState, array[int]] = {one: array("I") for one in JobState}
        self._by_team: dict[str, array[int]] = {}
        self._by_user: dict[str, array[int]] = {}
        self._by_name: dict[str, array[int]] = {}
        self._active: dict[str, Counter[str]] = {}
        self._keyed: dict[str, int] = {}
        self.attempted: dict[str, JobRecord] = {}
        """Jobs with at least one attempt, but for those in the archive."""
        self.waited: list[tuple[float, float | None]] = []
        """When at least one job waited: from, and up to (None: one still does)."""
        self.ended: dict[tuple[str, str], int] = {}
        """Attempts that have ended, by team and cause."""
        self._next_due_s: float | None = None
        self._fill()
        self._next_due_s = state.next_due_s

    def __len__(self) -> int:
        return len(self._order)

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        return {one.value: len(numbers) for one, numbers in self._by_state.items()}

    def oldest(self, state: JobState) -> JobRecord | None:
        """Return the first submitted of the jobs in this state."""
        numbers = self._by_state[state]
        return self._record(numbers[0]) if numbers else None

    def active_by_team(self) -> dict[str, Counter[str]]:
        """Return how many jobs of each team that ever had one are in each state, of those not over."""
        return {team: Counter(+counts) for team, counts in self._active.items()}

    # -- one job ------------------------------------------------------------------------------------

    def named(self, name: str) -> JobRecord | None:
        """Return the latest job with exactly this name."""
        numbers = self._by_name.get(name)
        return self._record(numbers[-1]) if numbers else None

    def beginning(self, text: str) -> list[JobRecord]:
        """Return the jobs whose id begins so, in the order of submits. Looks at every id."""
        ids = (one if isinstance(one, str) else one.job.id for one in self._order)
        return [self._record(number) for number, id_ in enumerate(ids) if id_.startswith(text)]

    def keyed(self, suffix: str) -> JobRecord | None:
        """Return the job that was submitted under the key that gives this suffix."""
        number = self._keyed.get(suffix)
        return None if number is None else self._record(number)

    def _record(self, number: int) -> JobRecord:
        found = self._order[number]
        if not isinstance(found, str):
            return found
        record = self._state.archive.get(found)
        assert record is not None
        return record

    # -- many jobs ----------------------------------------------------------------------------------

    def page(
        self, wanted: Filter, *, limit: int, cursor: str | None, newest_first: bool
    ) -> tuple[list[JobRecord], str | None]:
        """Return jobs in the order of submits, and the cursor of the next page; None on the last one.

        A page may have fewer than ``limit`` and still not be the last. Raises BadCursor.
        """
        start = None if cursor is None else _number_of(cursor)
        found: list[JobRecord] = []
        scanned = 0
        unpacked: set[int] = set()
        last: int | None = None
        for number in self._candidates(wanted, start, newest_first):
            if len(found) == limit or scanned == _MOST_SCANNED or len(unpacked) > _MOST_UNPACKED:
                assert last is not None
                return found, _cursor(last)
            scanned, last = scanned + 1, number
            if wanted.states and self._states[number] not in wanted.states:
                continue
            if isinstance(entry := self._order[number], str):
                unpacked.add(self._state.archive.block_of(entry))
            if wanted.matches(record := self._record(number)):
                found.append(record)
        return found, None

    def _candidates(self, wanted: Filter, start: int | None, newest_first: bool) -> Iterator[int]:
        """Yield the numbers behind ``start`` of the shortest index that has all that is wanted."""
        choices: list[list[array[int]]] = [
            [index.get(value, array("I"))]
            for index, value in (
                (self._by_team, wanted.team),
                (self._by_user, wanted.user),
                (self._by_name, wanted.name),
            )
            if value is not None
        ]
        if wanted.states:
            choices.append([self._by_state[one] for one in wanted.states])
        if not choices:
            return _numbers(range(len(self._order)), start, newest_first)
        best = min(choices, key=lambda arrays: sum(map(len, arrays)))
        return heapq.merge(*(_numbers(one, start, newest_first) for one in best), reverse=newest_first)

    # -- keeping up ---------------------------------------------------------------------------------

    def took(self, record: Record) -> None:
        """The state has just applied ``record``."""
        state = self._state
        if self._next_due_s is not None and self._next_due_s <= state.at_s:
            self._look_again(JobState.BACKING_OFF)
        match record:
            case JobSubmitted():
                if len(self._order) < state.submitted:
                    self._order.append(state.jobs[record.job.id])
                    self._states.append(JobState.QUEUED)
                    self._add(state.jobs[record.job.id])
                    self._note_waits()
            case CancelRequested() | AttemptStarted():
                self._look(record.job_id)
            case AttemptEnded():
                self._look(record.job_id)
                self._count_end(record)
            case Plan():
                for command in record.commands:
                    self._look(command.job_id)
                for start in record.starts:
                    self.attempted.setdefault(start.job_id, state.jobs[start.job_id])
            case NodeJoined() | NodeLost() | NodeExcluded():
                self._look_again(JobState.STARTING, JobState.RUNNING)
            case AttemptProgressed() | ClockTicked() | NodeReturned():
                pass
        self._next_due_s = state.next_due_s
        while self._archived < len(state.archive):
            old = state.archive.get(state.archive.ids[self._archived])
            assert old is not None
            self._put_away(old)

    def _fill(self) -> None:
        """Take in all jobs that there are. Those of the archive come one after the other, and go again."""
        archive = self._state.archive
        self._order, self._states = [""] * self._state.submitted, [JobState.QUEUED] * self._state.submitted
        waits: list[tuple[float, int]] = []
        for record in self._state.records():
            self._order[record.number] = record
            self._add(record)
            waits += _waits(record)
            if self._archived < len(archive):
                self._put_away(record)
        if self._archived:  # it is in the order of ends
            for index in (self._by_state, self._by_team, self._by_user, self._by_name):
                for numbers in index.values():
                    numbers[:] = array("I", sorted(numbers))
        self._replay_waits(waits)

    def _put_away(self, record: JobRecord) -> None:
        """The job is in the archive now, the next one there."""
        self._order[record.number] = self._state.archive.ids[self._archived]
        self.attempted.pop(record.job.id, None)
        self._archived += 1

    def _add(self, record: JobRecord) -> None:
        job, number = record.job, record.number
        self._states[number] = record.state
        self._by_state[record.state].append(number)
        self._by_team.setdefault(job.team, array("I")).append(number)
        self._by_user.setdefault(job.user, array("I")).append(number)
        self._by_name.setdefault(job.name, array("I")).append(number)
        self._count(job.team, record.state, 1)
        if len(suffix := job.id.rpartition("-")[2]) == KEYED_SUFFIX:
            self._keyed[suffix] = number
        if record.attempts:
            self.attempted[job.id] = record
        for attempt in record.attempts:
            if attempt.outcome is not None:
                key = (job.team, attempt.outcome.cause.value)
                self.ended[key] = self.ended.get(key, 0) + 1

    def _look(self, job_id: str) -> None:
        """The job may be in another state now."""
        record = self._state.record(job_id)
        if record is None:
            return
        number = record.number
        was, now = self._states[number], record.state
        if was is now:
            return
        numbers = self._by_state[was]
        del numbers[bisect_left(numbers, number)]
        numbers = self._by_state[now]
        numbers.insert(bisect_left(numbers, number), number)
        self._states[number] = now
        team = record.job.team
        self._count(team, was, -1)
        self._count(team, now, 1)
        self._note_waits()

    def _count(self, team: str, state: JobState, difference: int) -> None:
        counts = self._active.setdefault(team, Counter())
        if not state.is_final:
            counts[state.value] += difference

    def _look_again(self, *states: JobState) -> None:
        for one in states:
            for number in list(self._by_state[one]):
                self._look(self._record(number).job.id)

    def _count_end(self, event: AttemptEnded) -> None:
        record = self._state.record(event.job_id)
        if record is None or event.epoch > record.epoch:
            return
        attempt = record.attempts[event.epoch - 1]
        if attempt.outcome is not None and attempt.ended_s == self._state.at_s:
            key = (record.job.team, attempt.outcome.cause.value)
            self.ended[key] = self.ended.get(key, 0) + 1

    def _note_waits(self) -> None:
        waits = bool(self._by_state[JobState.QUEUED] or self._by_state[JobState.BACKING_OFF])
        is_open = bool(self.waited) and self.waited[-1][1] is None
        if waits and not is_open:
            self.waited.append((self._state.at_s, None))
        elif is_open and not waits:
            self.waited[-1] = (self.waited[-1][0], self._state.at_s)

    def _replay_waits(self, changes: list[tuple[float, int]]) -> None:
        """Find out when at least one job waited, from when each began to, and ceased."""
        waiting = 0
        # Who begins to wait when another ceases leaves no gap.
        for at_s, difference in sorted(changes, key=lambda change: (change[0], -change[1])):
            if waiting == 0:
                self.waited.append((at_s, None))
            waiting += difference
            if waiting == 0:
                self.waited[-1] = (self.waited[-1][0], at_s)


def _waits(record: JobRecord) -> Iterator[tuple[float, int]]:
    """Yield when the job began to wait (1), and ceased (-1)."""
    waits = False
    for change in record.history:
        if (change.state in _WAITING) is not waits:
            waits = not waits
            yield change.at_s, 1 if waits else -1


_WAITING = (JobState.QUEUED, JobState.BACKING_OFF)


def _numbers(numbers: Sequence[int], start: int | None, newest_first: bool) -> Iterator[int]:
    """Yield what is behind ``start`` in the order asked for, without a copy."""
    if newest_first:
        place = len(numbers) if start is None else bisect_left(numbers, start)
        return (numbers[index] for index in range(place - 1, -1, -1))
    place = 0 if start is None else bisect_right(numbers, start)
    return (numbers[index] for index in range(place, len(numbers)))


def _cursor(number: int) -> str:
    return base64.urlsafe_b64encode(b"j%d" % number).decode().rstrip("=")


def _number_of(cursor: str) -> int:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        text = ""
    if not _CURSOR.fullmatch(text):
        raise BadCursor(
            f"cursor: expected the next of a page, got {cursor!r}", hint="leave it out for the first page"
        )
    return int(text[1:])


def recent(records: Iterable[JobRecord], *, active: int, over: int) -> tuple[list[JobRecord], int]:
    """Return what a short list of jobs shows, in their order, and how many it leaves out.

    Of those that are over the last ``over``; of the others up to ``active``: those that hold devices first,
    then those that wait the longest.
    """
    everyone = list(records)
    ended = [record for record in everyone if record.state.is_final]
    holding = [record for record in everyone if record.state.holds_devices][:active]
    waiting = (r for r in everyone if not r.state.is_final and not r.state.holds_devices)
    shown = {record.job.id for record in (*ended[len(ended) - over if over < len(ended) else 0 :], *holding)}
    shown.update(record.job.id for record in islice(waiting, active - len(holding)))
    return [record for record in everyone if record.job.id in shown], len(everyone) - len(shown)
