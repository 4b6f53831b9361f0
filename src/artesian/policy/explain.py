"""Reasons in words: why a job starts, why it waits, and what would let it start."""

from collections.abc import Callable, Iterable

import numpy as np

from artesian.model.capacity import BoolArray, Capacity
from artesian.model.job import Job, Outcome
from artesian.model.placement import Placement
from artesian.model.plan import HoldCode, Reason
from artesian.model.queue import shape_of
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.units import format_duration

_NAMED_HOLDERS = 3


def start(placement: Placement, *, is_first: bool) -> str:
    """Return why the job starts now, and there."""
    turn = (
        "it is first in the queue for its devices" if is_first else "no job ahead of it wants these devices"
    )
    first = placement.shares[0]
    if first.milli < MILLI:
        return f"{turn}, and {first.node_id} has {first.milli / MILLI:g} of a device free: {placement}"
    where = f"{len(placement.shares)} nodes hold" if len(placement.shares) > 1 else f"{first.node_id} holds"
    return f"{turn}, and {where} the whole gang: {placement}"


def start_kept(placement: Placement) -> str:
    """Return why a job starts that others were stopped for."""
    return f"the devices that were kept for it are free: {placement}"


def stop_for(job: Job, why: str, to: Placement | None) -> str:
    """Return why a running job stops for another; ``to`` is where it goes on at once."""
    goes_on = "it goes on when devices are free" if to is None else f"it goes on at once: {to}"
    return f"makes room for {job.name} ({job.id}): {why}; {goes_on}"


def stop_to_grow(now: Placement, to: Placement | None) -> str:
    """Return why a running job stops to go on with more devices."""
    return f"grows from {_devices(now.devices)} into what nobody wants: {to}"


def room_is_made(names: tuple[str, ...]) -> Reason:
    """Return why a job waits that others are being stopped for."""
    named = ", ".join(names[:_NAMED_HOLDERS])
    more = f" and {len(names) - _NAMED_HOLDERS} more" if len(names) > _NAMED_HOLDERS else ""
    return Reason(
        code=HoldCode.DEVICES_BUSY,
        text=f"room is being made for it: {named}{more} {'is' if len(names) == 1 else 'are'} being stopped, and what they give back is kept for it",
        unblock=f"{'it has' if len(names) == 1 else 'they have'} saved and left",
    )


def is_possible(job: Job, capacity: Capacity) -> bool:
    """Return whether the job could run on the empty fleet. Remembered for all jobs of its shape."""
    return capacity.remember(("possible", shape_of(job)), lambda: impossible(job, capacity) is None)


def impossible_code(job: Job, capacity: Capacity) -> HoldCode:
    """Return why the job could not run on the empty fleet, in short."""
    reason = impossible(job, capacity)
    assert reason is not None, job.id
    return reason.code


def impossible(job: Job, capacity: Capacity) -> Reason | None:
    """Return why the job could not run even on the empty fleet; None when it could."""
    most = 0
    for request in job.devices:
        count = _most(job, request, capacity)
        if count >= max(1, request.min_devices):
            return None
        most = max(most, count)
    if not any(bool(capacity.eligible(request).any()) for request in job.devices):
        kinds = sorted({node.accelerator for row, node in enumerate(capacity.nodes) if capacity.is_up[row]})
        return Reason(
            code=HoldCode.NO_SUCH_DEVICES,
            text=f"no node that is up has devices for {_wish(job)}; the fleet has {', '.join(kinds) or 'no nodes'}",
            unblock="a node with such devices joins, or the job names another kind",
        )
    if most == 0:
        host_only = all(request.is_host_only for request in job.devices)
        per = "" if host_only else f" with each device of {_wish(job)}"
        return Reason(
            code=HoldCode.LARGER_THAN_FLEET,
            text=f"no node has the CPUs and the memory that the job wants{per}",
            unblock="ask for less CPU and memory with each device; or larger nodes join",
        )
    return _too_large(job, f"the whole fleet could give it {_devices(most)}", most)


def larger_than_pools(job: Job, most: int) -> Reason:
    """Return why a job could not run that no pool has more than ``most`` devices for."""
    return _too_large(job, f"no pool could give it more than {_devices(most)}", most)


def most_devices(job: Job, capacity: Capacity) -> int:
    """Return the most devices that the empty fleet could give the job under any of its alternatives."""
    return max(_most(job, request, capacity) for request in job.devices)


def _too_large(job: Job, what: str, most: int) -> Reason:
    less = ", or for less CPU and memory with each" if job.wants_host else ""
    return Reason(
        code=HoldCode.LARGER_THAN_FLEET,
        text=f"the job asks for {_wish(job)}, and {what}",
        unblock=f"ask for at most {_devices(most)}{less}; or nodes join",
    )


def devices_busy(
    job: Job,
    holders: Iterable[tuple[Job, Placement]] | None,
    free: Capacity,
    allowed: Callable[[DeviceRequest], BoolArray] | None = None,
) -> Reason:
    """Return why the first in the queue cannot start: who has the devices (``holders`` None: that is not told).

    Of the job's alternatives it names the one that is nearest to what it needs. ``allowed`` returns the nodes [N]
    that it may have an alternative on at all (None: any).
    """

    def nodes(wish: DeviceRequest) -> BoolArray:
        return free.eligible(wish) if allowed is None else free.eligible(wish) & allowed(wish)

    wishes = [wish for wish in job.devices if nodes(wish).any()] or job.devices
    missing, available, request = min(
        (
            (max(1, wish.min_devices) - available, available, wish)
            for wish in wishes
            for available in [int(free.by_kind(np.where(nodes(wish), free.startable(job, wish), 0)).max())]
        ),
        key=lambda choice: choice[0],
    )
    by = "" if holders is None else _held_by(holders, nodes(request), free)
    if request.is_fraction:
        return Reason(
            code=HoldCode.DEVICES_BUSY,
            text=f"no device has {request.max_milli / MILLI:g} of itself free{_with_host(job)}{by}",
            unblock="one of them ends" if by else "a device becomes free",
        )
    if request.is_host_only:
        return Reason(
            code=HoldCode.DEVICES_BUSY,
            text="no node has the CPUs and the memory free that the job wants",
            unblock="a node has them free",
        )
    least = "at least " if request.max_devices > request.min_devices else ""
    return Reason(
        code=HoldCode.DEVICES_BUSY,
        text=f"needs {least}{_devices(request.min_devices)} ({_wish(job)}){_with_host(job)}, {available} can be had now{by}",
        unblock=f"{missing} more {'device becomes' if missing == 1 else 'devices become'} free{_with_host(job)}",
    )


def behind(blocker: Job, passes_with: int | None) -> Reason:
    """Return why a job waits that another one is ahead of; ``passes_with`` is the least priority with which it would
    not be (None: priorities do not decide)."""
    priority = "" if passes_with is None else f", or this job has a priority above {passes_with - 1}"
    return Reason(
        code=HoldCode.BEHIND_ANOTHER,
        text=f"{blocker.name} ({blocker.id}) is ahead of it and waits for the same devices",
        unblock=f"{blocker.name} starts or is cancelled{priority}",
    )


def backing_off(epoch: int, outcome: Outcome, left_s: float) -> Reason:
    """Return why a job waits whose attempt ``epoch`` ended so; the next one may start in ``left_s``."""
    return Reason(
        code=HoldCode.BACKING_OFF,
        text=f"attempt {epoch} ended with {outcome.cause}; the next one may start in {format_duration(max(0.0, left_s))}",
        unblock="the delay is over",
    )


def _held_by(holders: Iterable[tuple[Job, Placement]], wanted: BoolArray, free: Capacity) -> str:
    counts = [
        (job.name, count)
        for job, placement in holders
        if (count := sum(len(share.devices) for share in placement.shares if wanted[free.row[share.node_id]]))
    ]
    if foreign := sum(len(node.occupied) for row, node in enumerate(free.nodes) if wanted[row]):
        counts.append(("others outside of artesian", foreign))
    counts.sort(key=lambda holder: (-holder[1], holder[0]))
    named = ", ".join(f"{name} ({count})" for name, count in counts[:_NAMED_HOLDERS])
    more = f" and {len(counts) - _NAMED_HOLDERS} more" if len(counts) > _NAMED_HOLDERS else ""
    return f"; held by {named}{more}" if counts else ""


def _wish(job: Job) -> str:
    return " | ".join(str(request) for request in job.devices)


def _devices(count: int) -> str:
    return f"{count} device" if count == 1 else f"{count} devices"


def _with_host(job: Job) -> str:
    return " with CPUs and memory for each" if job.wants_host else ""


def _most(job: Job, request: DeviceRequest, capacity: Capacity) -> int:
    """Return the most devices of one model that the empty fleet could give the job under this alternative."""
    return int(capacity.by_kind(capacity.ownable(job, request)).max())
