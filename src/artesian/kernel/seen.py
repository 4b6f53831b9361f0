"""Jobs and nodes as a policy sees them."""

from collections.abc import Collection

from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.nodes import NodeRecord
from artesian.kernel.served import Served
from artesian.model.capacity import Capacity
from artesian.model.queue import WaitingJob
from artesian.model.snapshot import RunningJob


def as_waiting(record: JobRecord, served: Served) -> WaitingJob:
    """Return a job that waits. ``served`` is what its earlier attempts have had."""
    return WaitingJob(
        job=record.job,
        submitted_s=record.submitted_s,
        next_epoch=record.epoch + 1,
        waits_since_s=record.history[-1].at_s,
        served_device_s=served.device_s,
        claim=record.claim,
        served_by_accelerator=served.by_accelerator,
        ran_s=served.ran_s,
    )


def as_running(record: JobRecord, served: Served) -> RunningJob:
    """Return a job that holds devices. ``served`` is what its earlier attempts have had."""
    attempt = record.attempt
    return RunningJob(
        job=record.job,
        epoch=attempt.epoch,
        placement=attempt.placement,
        since_s=attempt.decided_s,
        is_stopping=attempt.stop_cause is not None,
        submitted_s=record.submitted_s,
        served_device_s=served.device_s,
        served_by_accelerator=served.by_accelerator,
        ran_s=served.ran_s,
        claim=record.claim,
        started_s=attempt.started_s if record.job.checkpoint_every_s else None,
        saved_s=record.saved_s,
        worked=attempt.worked,
        told_s=attempt.told_s,
    )


def capacity_of(nodes: Collection[NodeRecord], running: Collection[RunningJob]) -> Capacity:
    """Return what is free of the nodes beside what runs."""
    capacity = Capacity(record.node for record in nodes)
    for record in nodes:
        if not record.is_open:
            capacity.set_up(record.node.id, False)
    for entry in running:
        capacity.take(entry.job, entry.placement)
        capacity.expect(entry.job, entry.placement, entry.since_s)
    capacity.occupy()
    return capacity
