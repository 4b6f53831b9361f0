"""One cycle of a policy in rounds: who stays, who goes, and where the others go."""

from collections.abc import Iterable

import numpy as np
from msgspec.structs import replace

from artesian.model.capacity import BoolArray, Capacity, Trial
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.plan import Reason
from artesian.model.queue import shape_of
from artesian.model.quota import Teams
from artesian.model.resources import MILLI
from artesian.model.snapshot import RunningJob, Snapshot
from artesian.policy import explain
from artesian.policy.accounts import Accounts
from artesian.policy.allowance import fitted, refusal
from artesian.policy.base import Place
from artesian.policy.entitled import Ahead, entitled_targets
from artesian.policy.ranking import targets
from artesian.policy.solver import FloatArray, IntArray
from artesian.policy.throughput import Problem


def refusals(accounts: Accounts, capacity: Capacity, jobs: Iterable[Job]) -> dict[str, Reason]:
    """Return why those of the jobs wait whose teams may not have as many devices as they need, by id."""
    known: dict[object, Reason | None] = {}
    found: dict[str, Reason] = {}
    for job in jobs:
        alike = (job.team, shape_of(job))
        if alike not in known:
            known[alike] = refusal(accounts, job) if explain.is_possible(job, capacity) else None
        if (reason := known[alike]) is not None:
            found[job.id] = reason
    return found


class Cycle:
    """One cycle: who stays, who goes, and where the others go.

    ``placed`` has the jobs, by number, that have got a place, in order; it may be free only when a stopped
    job has gone. Where there are ``teams``, nobody gets more than his may have.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        known: Problem,
        priorities: FloatArray,
        sizes: FloatArray | None,
        place: Place,
        is_round_over: bool,
        teams: Teams | None = None,
    ) -> None:
        self._sizes = sizes
        if sizes is not None:
            known = replace(known, devices=np.where(sizes > 0, sizes, known.devices))
        self._teams = teams
        self._accounts: Accounts | None = None
        self._most = np.zeros_like(known.devices) if sizes is None else sizes
        self._known = known
        self._priorities = priorities
        self._place = place
        self._capacity = snapshot.capacity
        self._is_round_over = is_round_over
        self._running = {
            number: entry
            for number, job in enumerate(known.jobs)
            if (entry := snapshot.running.get(job.id)) is not None
        }
        self._others = [entry for id, entry in snapshot.running.items() if entry.is_stopping]
        self._busy: BoolArray = np.zeros(len(snapshot.capacity.nodes), dtype=np.bool_)
        self._staying: set[int] = set()
        self._moving: dict[int, str] = {}
        self.placed: list[tuple[int, Placement]] = []

    def stops(self) -> list[tuple[RunningJob, str | None]]:
        """Return the running jobs that stop, and the devices on which each is to go on, if any."""
        return [
            (entry, self._moving.get(number))
            for number, entry in self._running.items()
            if not entry.is_stopping and number not in self._staying
        ]

    def startable(self) -> list[tuple[int, Placement]]:
        """Return the waiting jobs that have a place and what is there now suffices for, in order."""
        waiting = [pair for pair in self.placed if pair[0] not in self._running]
        # What a team holds elsewhere, until it has left there, counts against what it may have.
        is_free = not any(self._busy[self._rows(placement)].any() for _, placement in self.placed)
        if not self._busy.any() or (is_free and self._teams is None):
            return waiting
        startable = []
        # Those who are about to leave hold what they have until then.
        now = None if self._teams is None else Accounts(self._teams, self._capacity)
        with self._capacity.trial() as trial:
            for number, placement in waiting:
                job = self._known.jobs[number]
                if self._capacity.fits(job, placement) and (
                    now is None or now.room(job.team, self._kind(placement)) >= placement.milli
                ):
                    trial.take(job, placement)
                    if now is not None:
                        now.add(job, placement)
                    startable.append((number, placement))
        return startable

    def refusals(self, starting: Iterable[tuple[int, Placement]]) -> dict[str, Reason]:
        """Return why those wait whose teams may not have as many devices, by id: beside what is held, and what
        ``starting`` begin to hold."""
        if self._teams is None:
            return {}
        placed = {number for number, _ in self.placed}
        waiting = (
            job
            for number, job in enumerate(self._known.jobs)
            if number not in placed and number not in self._running
        )
        with self._capacity.trial() as trial:
            for number, placement in starting:
                trial.take(self._known.jobs[number], placement)
            return refusals(Accounts(self._teams, self._capacity), self._capacity, waiting)

    def choose(self, trial: Trial) -> None:
        """Find out who stays and who goes where, on the capacity that is there when the stopped ones have gone."""
        known = self._known
        movable = {number: entry for number, entry in self._running.items() if not entry.is_stopping}
        # Preemption would be the end of a job that does not allow it.
        fixed = {n for n, entry in movable.items() if Cause.PREEMPTED not in entry.job.retry.causes}
        if not self._is_round_over:
            fixed = set(movable)
        free = known.capacity.copy()
        for number in fixed:
            free[known.on[number]] -= movable[number].placement.whole_devices
        others = [number for number in range(len(known.jobs)) if number not in fixed]
        free = np.maximum(free, 0.0)
        wanted: list[int] | None = None
        if self._teams is None:
            target = targets(known, self._priorities, jobs=others, free=free)
        else:
            ahead = Ahead(self._teams, self._capacity, free)
            for entry in (
                *self._others,
                *(entry for number, entry in movable.items() if number not in fixed),
            ):
                ahead.add(entry.job, entry.placement, -1)
            wanted, target, most = entitled_targets(known, self._priorities, jobs=others, accounts=ahead)
            self._most = self._most.copy()
            self._most[wanted, target[wanted]] = most[wanted]
        self._staying = fixed | {number for number in movable if self._goes_on(number, int(target[number]))}
        going = [entry for number, entry in movable.items() if number not in self._staying]
        for entry in (*going, *self._others):
            trial.give(entry.job, entry.placement)
            self._busy[self._rows(entry.placement)] = True
        if self._teams is not None:
            self._accounts = Accounts(self._teams, self._capacity)
        self._place_targets(trial, target, wanted)
        self._place_rest(trial)

    def _goes_on(self, number: int, target: int) -> bool:
        """Return whether the job, which runs, has what it is to have."""
        if target != self._known.on[number]:
            return False
        most, has = self._most[number, target], self._known.has[number]
        if self._sizes is None or not self._sizes[number, target]:
            return not most or bool(has <= most)
        return bool(has == most)

    def _kind(self, placement: Placement) -> int:
        return int(self._capacity.kind[self._capacity.row[placement.shares[0].node_id]])

    def _take(self, trial: Trial, job: Job, placement: Placement) -> None:
        trial.take(job, placement)
        if self._accounts is not None:
            self._accounts.add(job, placement)

    def _may_stay(self, entry: RunningJob) -> bool:
        """Return whether the job, whose devices are given back in the trial, may have them again."""
        if not self._capacity.fits(entry.job, entry.placement):
            return False
        accounts, kind = self._accounts, self._kind(entry.placement)
        return accounts is None or accounts.room(entry.job.team, kind) >= entry.placement.milli

    def _rows(self, placement: Placement) -> list[int]:
        return [self._capacity.row[share.node_id] for share in placement.shares]

    def _place_targets(self, trial: Trial, target: IntArray, wanted: list[int] | None) -> None:
        """Put them where they are to go, in the order of ``wanted``; None: by falling priority."""
        if wanted is None:
            wanted = np.flatnonzero(target >= 0).tolist()
            wanted.sort(key=lambda number: (-self._priorities[number, target[number]], number))
        for number in wanted:
            if number in self._staying:
                continue
            self._put(trial, number, int(target[number]))

    def _place_rest(self, trial: Trial) -> None:
        """Let nothing be idle: who has no place yet takes what is left, where it is fastest."""
        known = self._known
        placed = {number for number, _ in self.placed} | self._staying
        rest = [number for number in range(len(known.jobs)) if number not in placed]
        best = self._priorities.max(1)
        rest.sort(key=lambda number: (-best[number], number))
        full: set[object] = set()
        for number in rest:
            job = known.jobs[number]
            entry = self._running.get(number)
            if entry is not None and not entry.is_stopping:
                if self._may_stay(entry):
                    self._take(trial, job, entry.placement)
                    self._staying.add(number)
                continue
            shape = (shape_of(job), None if self._accounts is None else job.team)
            if shape in full:
                continue
            kinds = sorted(
                np.flatnonzero(known.can_run[number]).tolist(),
                key=lambda kind: (-known.rate[number, kind], kind),
            )
            if not any(self._put(trial, number, kind) for kind in kinds):
                full.add(shape)

    def _put(self, trial: Trial, number: int, kind: int) -> bool:
        """Give the job a place on the kind, where nothing has to go first if it can be; return whether it has one."""
        job: Job | None = self._asked(number, kind)
        assert job is not None
        if self._accounts is not None and (job := fitted(self._accounts, job, kind)) is None:
            return False
        allowed = self._capacity.is_up & (self._capacity.kind == kind)
        placement = self._place.place(job, self._capacity, allowed & ~self._busy)
        if placement is None:
            placement = self._place.place(job, self._capacity, allowed)
        if placement is None:
            return False
        entry = self._running.get(number)
        if entry is not None and not entry.is_stopping:
            is_same_kind = kind == self._known.on[number]
            if is_same_kind and placement.devices == entry.placement.devices:
                if not self._may_stay(entry):
                    return False
                # There is no more to be had after all: it has what it would get.
                self._take(trial, job, entry.placement)
                self._staying.add(number)
                return True
            name = self._known.kinds[kind]
            self._moving[number] = f"{placement.devices} {name}" if is_same_kind else name
        self._take(trial, job, placement)
        self.placed.append((number, placement))
        return True

    def _asked(self, number: int, kind: int) -> Job:
        """Return the job, asking for no more devices than it is to have."""
        job = self._known.jobs[number]
        most = float(self._most[number, kind])
        if not most or all(request.max_devices <= most for request in job.devices):
            return job
        return replace(
            job,
            devices=tuple(
                replace(request, max_milli=max(request.min_milli, min(request.max_milli, int(most) * MILLI)))
                for request in job.devices
            ),
        )
