"""Devices kept for jobs that others were stopped for, from the decision until they start.

A claim (``Plan.claims``) says where a job is to go. Until those who hold its devices have left, it is
looked at anew in each cycle, from the snapshot alone, and what of it is free is taken before anybody else is
served. It holds as long as nobody but those who leave is in its way: where a node is lost, its job
waits like any other.
"""

from dataclasses import dataclass, field

from msgspec.structs import replace

from artesian.model.capacity import Capacity, Trial
from artesian.model.job import Job
from artesian.model.placement import NodeShare, Placement
from artesian.model.queue import WaitingJob
from artesian.model.running import RunningJobs
from artesian.model.snapshot import RunningJob, Snapshot


@dataclass(slots=True)
class Claims:
    """What became of the claims in a cycle: who starts where, and who waits for whom to leave."""

    starts: list[tuple[WaitingJob, Placement]] = field(default_factory=list)
    pending: dict[str, tuple[RunningJob, ...]] = field(default_factory=dict)


def reserve(snapshot: Snapshot, trial: Trial) -> Claims:
    """Serve those with a claim, and keep what of the others' is free already."""
    claims = Claims()
    stopping = list(RunningJobs.of(snapshot.running).stopping.values())
    free = trial.capacity
    for entry in sorted(snapshot.waiting.claims.values(), key=lambda entry: entry.job.id):
        placement = entry.claim
        assert placement is not None
        if not is_known(placement, free):
            continue
        if free.fits(entry.job, placement):
            trial.take(entry.job, placement, at_s=snapshot.at_s)
            claims.starts.append((entry, placement))
        elif leaving := _leaving(placement, stopping, free):
            keep(entry.job, placement, trial, snapshot.at_s)
            claims.pending[entry.job.id] = leaving
    for holder in sorted(stopping, key=lambda holder: holder.job.id):
        # One that makes room and is to go on at once has its place kept while it is still leaving.
        if holder.claim is not None and is_known(holder.claim, free):
            is_free = free.fits(holder.job, holder.claim)
            if is_free or _leaving(holder.claim, stopping, free):
                keep(holder.job, holder.claim, trial, snapshot.at_s)
    return claims


def keep(job: Job, placement: Placement, trial: Trial, at_s: float) -> None:
    """Take the part of a placement that is free; the rest counts as the job's already, and is not taken."""
    now, later = _split(job, placement, trial.capacity)
    for part in now:
        trial.take(job, part, at_s=at_s)
    for part in later:
        trial.charge(job, part, +1)


def is_known(placement: Placement, free: Capacity) -> bool:
    """Return whether all its nodes are there, take attempts, and have these devices."""
    return all(
        (row := free.row.get(share.node_id)) is not None
        and free.is_up[row]
        and max(share.devices, default=-1) < free.devices[row]
        for share in placement.shares
    )


def _leaving(placement: Placement, stopping: list[RunningJob], free: Capacity) -> tuple[RunningJob, ...]:
    """Return those who are about to leave the placement's nodes; none where others are in its way as well."""
    nodes = {share.node_id for share in placement.shares}
    leaving = tuple(
        holder for holder in stopping if any(share.node_id in nodes for share in holder.placement.shares)
    )
    given: dict[tuple[str, int], int] = {}
    for holder in leaving:
        for share in holder.placement.shares:
            for device in share.devices:
                given[share.node_id, device] = given.get((share.node_id, device), 0) + share.milli
    for share in placement.shares:
        row = free.row[share.node_id]
        for device in share.devices:
            if free.free_milli[row, device] + given.get((share.node_id, device), 0) < share.milli:
                return ()
    return leaving


def _split(job: Job, planned: Placement, free: Capacity) -> tuple[list[Placement], list[Placement]]:
    """Return the parts of a placement that are free, and the others.

    Of a device that others still have a share of, the rest is free: left alone, somebody else would get it.
    """
    now: list[NodeShare] = []
    later: list[NodeShare] = []
    parts: tuple[list[Placement], list[Placement]] = ([], [])
    for share in planned.shares:
        row = free.row[share.node_id]
        if not share.devices:
            (now if free.hosted(job)[row] >= 1 else later).append(share)
            continue
        left = {device: int(free.free_milli[row, device]) for device in share.devices}
        for devices, shares in (
            ([device for device, milli in left.items() if milli >= share.milli], now),
            ([device for device, milli in left.items() if milli <= 0], later),
        ):
            if devices:
                shares.append(replace(share, devices=tuple(devices)))
        for device, milli in left.items():
            if 0 < milli < share.milli:
                one = replace(share, devices=(device,))
                parts[0].append(Placement(shares=(replace(one, milli=milli),)))
                parts[1].append(Placement(shares=(replace(one, milli=share.milli - milli),)))
    for shares, found in ((now, parts[0]), (later, parts[1])):
        if shares:
            found.append(Placement(shares=tuple(shares)))
    return parts
