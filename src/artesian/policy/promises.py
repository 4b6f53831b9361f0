"""Promises: when a job that waits could start, as the estimates of what runs say.

A promise does not count on what teams are guaranteed that do not lend, whether they use it or not. So it puts off no
job of theirs on that, and those put off none.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from msgspec import Struct

from artesian.model.capacity import Capacity, FloatArray, IntArray
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import MILLI
from artesian.model.units import format_duration
from artesian.policy.accounts import Accounts

_NOBODY: frozenset[str] = frozenset()


class Promise(Struct, kw_only=True, gc=False):
    """The earliest start of a job that waits: at ``at_s``, infinity where no estimate tells when.

    It is for devices of the ``kind`` (see ``Capacity.kind``); ``spare`` more of them will be free then, for
    others to hold beyond it. ``nodes`` are those that the job could run on, as a set of bits. ``keepers`` are teams
    that do not lend: it does not count on what they are guaranteed, so that their jobs on that put nothing off.
    """

    job: Job
    at_s: float
    kind: int | None
    spare: int
    nodes: int
    keepers: frozenset[str] = _NOBODY


def promise_of(
    job: Job,
    nodes: int,
    pools: Sequence[tuple[int, int, IntArray]],
    free: Capacity,
    at_s: float,
    accounts: Accounts | None,
    holders: Callable[[], Iterable[tuple[Job, Placement]]],
) -> Promise | None:
    """Return the earliest start of a job that waits; None where teams that do not lend keep too much from it.

    ``nodes`` are those that it could run on, as a set of bits; ``pools`` has, for each kind of devices, how many it
    takes, and where they are among all devices [N * D]. ``holders`` returns who has devices now: asked where teams do not lend.
    """
    ends_s = free.expected_ends_s(at_s)
    best = Promise(job=job, at_s=math.inf, kind=None, spare=0, nodes=nodes)
    is_possible = accounts is None
    for needed, kind, devices in pools:
        pool_s, count, keepers = ends_s.take(devices), needed, _NOBODY
        if accounts is not None:
            # Perhaps a share of one; who wants none of them has them kept by nobody.
            milli = needed * MILLI if needed > 1 else min(request.min_milli for request in job.devices)
            if accounts.limiting(job.team, kind, milli) is not None:
                continue
            if milli and not accounts.is_within(accounts.teams.path(job.team)[-1], kind, milli):
                keepers = accounts.withholding(job.team, kind)
            if keepers:
                count += _set_aside(pool_s, kind, devices, keepers, accounts, holders(), free)
            if not keepers or count <= pool_s.size:
                is_possible = True
                if best.at_s == math.inf:
                    best.keepers |= keepers
        when_s, spare = _earliest(count, pool_s)
        if when_s < best.at_s:
            best = Promise(
                job=job, at_s=max(when_s, at_s), kind=kind, spare=spare, nodes=nodes, keepers=keepers
            )
    return best if is_possible else None


def _earliest(needed: int, ends_s: FloatArray) -> tuple[float, int]:
    """Return when so many of the devices are free, and how many more are then."""
    if ends_s.size < needed:
        return math.inf, 0
    ends_s.partition(needed - 1)
    when_s = float(ends_s[needed - 1])
    return when_s, int(np.count_nonzero(ends_s <= when_s)) - needed


def _set_aside(
    ends_s: FloatArray,
    kind: int,
    devices: IntArray,
    keepers: Collection[str],
    accounts: Accounts,
    holders: Iterable[tuple[Job, Placement]],
    free: Capacity,
) -> int:
    """Return how many of ``devices``, numbers among all [N * D], the ``keepers`` have or keep.

    ``ends_s`` says when each comes free. Those that the keepers have count as free from now on, for they go over into
    what is kept; so what comes free beyond the number returned is others' to have.
    """
    width = free.free_milli.shape[1]
    is_theirs = np.zeros(free.free_milli.size, dtype=np.bool_)
    teams = {
        team for team, _ in free.used if any(above.name in keepers for above in accounts.teams.path(team))
    }
    for job, placement in holders:
        if job.team in teams:
            for share in placement.shares:
                row = free.row[share.node_id]
                is_theirs[[row * width + device for device in share.devices]] = True
    theirs = is_theirs[devices]
    ends_s[theirs] = -np.inf
    unused = sum(accounts.own(team, kind, (team,)) for team in keepers)
    return int(np.count_nonzero(theirs)) + math.ceil(unused / MILLI)


def due(promise: Promise, at_s: float) -> str:
    """Return when the promise is due, in words that go on after what the job waits for."""
    if promise.at_s == math.inf:
        return "; when is not known, for what runs there has no estimated duration"
    return f", in {format_duration(max(0.0, promise.at_s - at_s))} by the estimates of what runs"
