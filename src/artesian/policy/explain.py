"""Reasons in words: why a job starts, why it waits, and what would let it start."""

from artesian.model.capacity import Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Reason
from artesian.model.resources import DeviceRequest
from artesian.model.snapshot import Snapshot

_NAMED_HOLDERS = 3


def start(placement: Placement, *, is_first: bool) -> str:
    """Return why the job starts now, and there."""
    turn = (
        "it is first in the queue for its devices" if is_first else "no job ahead of it wants these devices"
    )
    several = len(placement.shares) > 1
    where = f"{len(placement.shares)} nodes hold" if several else f"{placement.shares[0].node_id} holds"
    return f"{turn}, and {where} the whole gang: {placement}"


def impossible(job: Job, capacity: Capacity) -> Reason | None:
    """Return why the job could not run even on the empty fleet; None when it could."""
    if not any(bool(capacity.eligible(request).any()) for request in job.devices):
        kinds = sorted({node.accelerator for node in capacity.nodes})
        return Reason(
            code=HoldCode.NO_SUCH_DEVICES,
            text=f"no node has devices of the kind {_wish(job)}; the fleet has {', '.join(kinds) or 'no nodes'}",
            unblock="a node with such devices joins, or the job names another kind",
        )
    most = max(_most(job, request, capacity) for request in job.devices)
    if any(_most(job, request, capacity) >= request.min_devices for request in job.devices):
        return None
    return Reason(
        code=HoldCode.LARGER_THAN_FLEET,
        text=f"the job asks for {_wish(job)}, and the whole fleet could give it {most}",
        unblock=f"ask for at most {most}, or for less CPU and memory with each; or nodes join",
    )


def devices_busy(job: Job, snapshot: Snapshot, free: Capacity) -> Reason:
    """Return why the first in the queue cannot start: who has the devices."""
    request = max(job.devices, key=lambda wish: int(free.startable(job, wish).sum()))
    available = int(free.startable(job, request).sum())
    wanted = free.eligible(request)
    holders = [
        (entry.job.name, count)
        for entry in snapshot.running
        if (
            count := sum(
                len(share.devices) for share in entry.placement.shares if wanted[free.row[share.node_id]]
            )
        )
    ]
    holders.sort(key=lambda holder: (-holder[1], holder[0]))
    named = ", ".join(f"{name} ({count})" for name, count in holders[:_NAMED_HOLDERS])
    more = f" and {len(holders) - _NAMED_HOLDERS} more" if len(holders) > _NAMED_HOLDERS else ""
    by = f"; held by {named}{more}" if holders else ""
    if request.is_fraction:
        return Reason(
            code=HoldCode.DEVICES_BUSY,
            text=f"no device has {request.max_milli / 1000:g} of itself free{by}",
            unblock="one of them ends",
        )
    missing = max(request.min_devices - available, 1)
    return Reason(
        code=HoldCode.DEVICES_BUSY,
        text=f"needs {request.min_devices} devices ({_wish(job)}), {available} can be had now{by}",
        unblock=f"{missing} more {'device becomes' if missing == 1 else 'devices become'} free",
    )


def behind(blocker: Job) -> Reason:
    """Return why a job waits that another one is ahead of."""
    return Reason(
        code=HoldCode.BEHIND_ANOTHER,
        text=f"{blocker.name} ({blocker.id}) is ahead of it and waits for the same devices",
        unblock=f"{blocker.name} starts or is cancelled, or this job has a priority above {blocker.priority}",
    )


def _wish(job: Job) -> str:
    return " | ".join(str(request) for request in job.devices)


def _most(job: Job, request: DeviceRequest, capacity: Capacity) -> int:
    """Return the most devices that the empty fleet could give the job under this alternative."""
    return int(capacity.ownable(job, request).sum())
