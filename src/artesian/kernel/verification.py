"""Whether a plan can be carried out: what a policy plans is looked through before anything is done."""

from artesian.model.capacity import Capacity, Trial
from artesian.model.job import Cause, Job
from artesian.model.placement import Placement
from artesian.model.plan import Plan
from artesian.model.resources import MILLI
from artesian.model.running import RunningJobs
from artesian.model.snapshot import Snapshot


class PlanRejected(Exception):  # noqa: N818 - the event, in Nomad's word for it
    """A policy planned what cannot be: a device twice, half a gang, a job that does not wait."""


def verify(plan: Plan, snapshot: Snapshot, trial: Trial) -> bool:
    """Raise PlanRejected unless every part of the plan can be carried out as it stands.

    Return whether what it starts is taken then, on the trial on which it was decided, and nothing else.
    """
    is_taken = _is_taken(plan, snapshot, trial)
    if not is_taken:
        trial.undo()
    stopped = set()
    for stop in plan.stops:
        entry = snapshot.running.get(stop.job_id)
        if entry is None or entry.epoch != stop.epoch or entry.is_stopping or stop.job_id in stopped:
            raise PlanRejected(f"{stop.id}: no such attempt is running")
        if stop.cause is not Cause.PREEMPTED:
            raise PlanRejected(f"{stop.id}: a policy can only preempt, not stop as {stop.cause}")
        stopped.add(stop.job_id)
    told: set[str] = set()
    if plan.starts or plan.claims:
        _verify_devices(plan, snapshot, trial, told, is_taken=is_taken)
    waiting = snapshot.waiting
    for hold in plan.holds:
        job_id = hold.job_id
        if job_id not in waiting or job_id in told:
            raise PlanRejected(f"hold/{job_id}: the job does not wait, or is held twice")
        told.add(job_id)
    return is_taken


def _is_taken(plan: Plan, snapshot: Snapshot, trial: Trial) -> bool:
    """Return whether the trial has taken what the plan starts, in order, and nothing else.

    If so, nobody needs to look whether it was free: a capacity lets nobody take what is not. That goes for devices,
    and not for what jobs want of the host.
    """
    taken, at_s = trial.taken, snapshot.at_s
    if not taken or len(taken) != len(plan.starts) or plan.claims or plan.at_s != at_s:
        return False
    for start, (job, placement, sign, since_s, _) in zip(plan.starts, taken, strict=True):
        wanting = snapshot.waiting.get(start.job_id)
        is_it = wanting is not None and wanting.job is job and placement is start.placement
        if not is_it or sign < 0 or since_s != at_s or job.wants_host:
            return False
    return True


def _verify_devices(plan: Plan, snapshot: Snapshot, trial: Trial, told: set[str], *, is_taken: bool) -> None:
    """Raise PlanRejected unless every start, and every claim, gets devices of its own; add the starts to ``told``."""
    for start in plan.starts:
        wanting = snapshot.waiting.get(start.job_id)
        if wanting is None or wanting.next_epoch != start.epoch or start.job_id in told:
            raise PlanRejected(f"{start.id}: the job does not wait for this attempt")
        fault = _fault(wanting.job, start.placement, trial.capacity, is_taken=is_taken)
        if fault is not None:
            raise PlanRejected(f"{start.id}: {fault}")
        told.add(start.job_id)
        if not is_taken and (len(told) < len(plan.starts) or plan.claims):
            trial.take(wanting.job, start.placement)  # what nobody comes after need not be taken
    if plan.claims:
        _verify_claims(plan, snapshot, trial, told)


def _verify_claims(plan: Plan, snapshot: Snapshot, trial: Trial, started: set[str]) -> None:
    """Raise PlanRejected unless all that is claimed is there once everybody has left who is to."""
    stopped = {stop.job_id for stop in plan.stops}
    stopping = RunningJobs.of(snapshot.running).stopping
    for entry in [*stopping.values(), *[snapshot.running[job_id] for job_id in sorted(stopped)]]:
        trial.give(entry.job, entry.placement)
    claimed = set()
    for claim in plan.claims:
        entries = (snapshot.waiting.get(claim.job_id), snapshot.running.get(claim.job_id))
        job = next((entry.job for entry in entries if entry is not None), None)
        is_going_on = job is not None and (job.id in snapshot.waiting or job.id in stopped)
        if job is None or not is_going_on or job.id in started or job.id in claimed:
            raise PlanRejected(
                f"claim/{claim.job_id}: the job neither waits nor stops, or has a place already"
            )
        if (fault := _fault(job, claim.placement, trial.capacity)) is not None:
            raise PlanRejected(f"claim/{claim.job_id}: {fault}")
        claimed.add(job.id)
        trial.take(job, claim.placement)


def _fault(job: Job, placement: Placement, free: Capacity, *, is_taken: bool = False) -> str | None:
    """Return what keeps the job from being placed like this on what is free; None when nothing does.

    ``is_taken``: it is placed like this, and the question is whether it may be.
    """
    hosted = free.hosted(job) if job.wants_host else None
    rows = []
    for share in placement.shares:
        row = free.row.get(share.node_id)
        if row is None or not free.is_up[row]:
            return f"node {share.node_id} is not there, or takes no attempts"
        rows.append(row)
        if share.devices and not is_taken:
            if (last := max(share.devices)) >= free.nodes[row].devices:
                return f"node {share.node_id} has no device {last}"
            if not free.has_free(row, share):
                return f"a device of {share.node_id}[{','.join(map(str, share.devices))}] is taken"
        if hosted is not None and max(1, len(share.devices)) > hosted[row]:
            wanted = f"{len(share.devices)} devices" if share.devices else "the job"
            return f"node {share.node_id} has not the CPUs and the memory for {wanted}"
    if len(rows) > 1 and len(set(free.kind[rows].tolist())) > 1:
        return f"{placement} mixes models of device"
    count = placement.devices
    for request in job.devices:
        milli = request.max_milli if request.is_fraction else MILLI
        is_gang = request.min_devices <= count <= request.max_devices
        if (
            is_gang
            and (not request.is_host_only or len(rows) == 1)
            and all(share.milli == milli for share in placement.shares)
            and all(map(free.eligible(request).item, rows))
        ):
            return None
    return f"{placement} is no gang that the job asked for"
