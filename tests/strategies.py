"""Hypothesis strategies for the nouns: fleets and jobs that are small, and so meet each other often."""

from hypothesis import strategies as st
from msgspec.structs import replace

from artesian.model.capacity import Capacity
from artesian.model.fleet import Node
from artesian.model.job import Cause, Job, RetryPolicy
from artesian.model.placement import Placement
from artesian.model.queue import WaitingJob, WaitingQueue
from artesian.model.resources import MILLI, DeviceRequest
from artesian.model.snapshot import Snapshot
from artesian.policy.place import Pack
from artesian.wire import (
    CheckpointCommitted,
    Message,
    Phase,
    PhaseEnded,
    ReplicasDiverged,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerFailed,
    WorkerStarted,
)
from builders import GIB, a_snapshot

KINDS = ((None, "cpu", None), ("nvidia", "H100-SXM5-80GB", 80 * GIB), ("nvidia", "A100-SXM4-40GB", 40 * GIB))
"""Vendor, accelerator and device memory of the nodes that ``fleets`` makes."""

ENDS = (
    Cause.COMPLETED,
    Cause.USER_ERROR,
    Cause.SIGNAL,
    Cause.OOM_KILL,
    Cause.NODE_LOST,
    Cause.START_FAILED,
    Cause.CANCELLED,
)
"""Causes that an engine may report."""


@st.composite
def fleet_nodes(draw: st.DrawFn, id: str) -> Node:
    """A node of up to 8 devices, often short of CPUs or memory."""
    vendor, accelerator, device_memory = draw(st.sampled_from((KINDS[0], KINDS[0], *KINDS)))
    devices = draw(st.sampled_from([0, 1, 2, 4, 4, 8]))
    return Node(
        id=id,
        accelerator=accelerator,
        vendor=vendor,
        device_memory_bytes=device_memory,
        devices=devices,
        cpus=draw(st.sampled_from([1, 8, 32])),
        memory_bytes=draw(st.sampled_from([2, 8, 64])) * GIB,
        occupied=tuple(draw(st.sets(st.sampled_from(range(devices)), max_size=2))) if devices else (),
    )


@st.composite
def fleets(draw: st.DrawFn, most_nodes: int = 4) -> list[Node]:
    """No node to ``most_nodes`` nodes, of mixed kinds."""
    return [draw(fleet_nodes(f"n{number}")) for number in range(draw(st.integers(0, most_nodes)))]


@st.composite
def device_requests(draw: st.DrawFn) -> DeviceRequest:
    """A request for a fixed gang, an elastic one, or a share of a device."""
    vendor, accelerator, memory = draw(
        st.sampled_from(
            [
                *[(None, None, None)] * 3,
                *[(None, "cpu", None)] * 3,
                (None, "H100", None),
                ("nvidia", None, 80 * 10**9),
                ("nvidia", "A100", 40 * 10**9),
                (None, "910B", None),
            ]
        )
    )
    if draw(st.integers(0, 3)) == 0:
        low = high = draw(st.sampled_from([1, 250, 500, 999]))
    else:
        low, high = sorted(MILLI * draw(st.sampled_from([1, 1, 2, 2, 3, 4, 5, 9])) for _ in range(2))
        if draw(st.booleans()):
            high = low
    return DeviceRequest(
        min_milli=low, max_milli=high, vendor=vendor, accelerator=accelerator, memory_bytes=memory
    )


def retry_policies() -> st.SearchStrategy[RetryPolicy]:
    """Few retries, short delays, any causes."""
    return st.builds(
        RetryPolicy,
        limit=st.sampled_from([0, 1, 3, 3]),
        backoff_s=st.sampled_from([0.0, 1.0, 5.0, 5.0]),
        max_backoff_s=st.sampled_from([5.0, 8.0]),
        causes=st.sampled_from([frozenset(Cause), RetryPolicy().causes, frozenset({Cause.USER_ERROR})]),
    )


@st.composite
def jobs(draw: st.DrawFn, id: str) -> Job:
    """A job with up to three alternatives, and often a wish for CPUs and memory."""
    return Job(
        id=id,
        name=draw(st.sampled_from(["train", "eval", id])),
        command=("true",),
        workdir="/",
        devices=tuple(draw(device_requests()) for _ in range(draw(st.sampled_from([1, 1, 2, 3])))),
        cpus_per_device=draw(st.sampled_from([None, None, 1.0, 3.0])),
        memory_bytes_per_device=draw(st.sampled_from([None, None, GIB, 4 * GIB])),
        priority=draw(st.integers(-1, 1)),
        grace_s=draw(st.sampled_from([0.0, 10.0])),
        retry=draw(retry_policies()),
    )


@st.composite
def waiting_jobs(draw: st.DrawFn, most: int = 8) -> list[WaitingJob]:
    """Jobs that wait: of few shapes, many at the same time, some for their second attempt or a later one."""
    entries: list[WaitingJob] = []
    for number in draw(st.permutations(range(draw(st.integers(0, most))))):
        job = draw(jobs(f"w{number}"))
        if draw(st.booleans()) and entries:
            like = draw(st.sampled_from(entries)).job
            job = replace(
                job,
                devices=like.devices,
                cpus_per_device=like.cpus_per_device,
                memory_bytes_per_device=like.memory_bytes_per_device,
            )
        next_epoch = draw(st.sampled_from([1, 1, 2, 5]))
        submitted_s = draw(st.sampled_from([0.0, 1.0, 2.0]))
        entries.append(
            WaitingJob(
                job=job,
                submitted_s=submitted_s,
                next_epoch=next_epoch,
                waits_since_s=submitted_s if next_epoch == 1 else 3.0,
                served_device_s=0.0 if next_epoch == 1 else draw(st.sampled_from([0.0, 50.0])),
            )
        )
    return entries


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A fleet with nodes down, with jobs that hold devices, or are about to give them back, and that wait."""
    fleet = draw(fleets())
    capacity = Capacity(fleet)
    running: list[tuple[Job, Placement]] = []
    for number in range(draw(st.integers(0, 3))):
        job = draw(jobs(f"r{number}"))
        placement = Pack().place(job, capacity, capacity.is_up)
        if placement is not None:
            capacity.take(job, placement)
            running.append((job, placement))
    snapshot = a_snapshot(fleet, running=running, at_s=10.0)
    for node in fleet:
        snapshot.capacity.set_up(node.id, draw(st.integers(0, 4)) != 0)
    holders = {id: replace(entry, is_stopping=draw(st.booleans())) for id, entry in snapshot.running.items()}
    return replace(snapshot, waiting=WaitingQueue(draw(waiting_jobs())), running=holders)


def messages() -> st.SearchStrategy[Message]:
    """Any progress message, with losses that are no number and texts that hold anything."""
    rank, step, at_s = st.integers(0, 2**20), st.integers(0, 2**53), st.floats(0, 4e9)
    text = st.text(max_size=40)
    return st.one_of(
        st.builds(
            WorkerStarted,
            rank=rank,
            at_s=at_s,
            world_size=rank,
            pid=rank,
            device=text,
            dtype=st.none() | st.sampled_from(["bf16", "fp32"]),
            seeks_stragglers=st.none() | st.booleans(),
            checks_replicas=st.none() | st.booleans(),
        ),
        st.builds(PhaseEnded, rank=rank, phase=st.sampled_from(Phase), start_s=at_s, end_s=at_s),
        st.builds(Restored, rank=rank, at_s=at_s, step=step),
        st.builds(
            StepCommitted,
            rank=rank,
            step=step,
            start_s=at_s,
            end_s=at_s,
            loss=st.none() | st.floats(),
            tokens=st.none() | step,
            model_flops=st.none() | st.floats(0, 1e30),
        ),
        st.builds(
            StragglerFound,
            rank=rank,
            at_s=at_s,
            step=step,
            ratio=st.floats(1, 1e6),
            steps=step,
            window=st.none() | step,
            excess_s=st.none() | st.floats(0, 1e6),
        ),
        st.builds(
            ReplicasDiverged,
            rank=rank,
            at_s=at_s,
            step=step,
            ranks=st.lists(rank, max_size=4).map(tuple),
            is_certain=st.booleans(),
        ),
        st.builds(CheckpointCommitted, rank=rank, at_s=at_s, step=step, size_bytes=step),
        st.builds(
            WorkerFailed,
            rank=rank,
            at_s=at_s,
            exit_code=st.none() | st.integers(0, 255),
            signal=st.none() | st.integers(1, 64),
            is_oom_kill=st.booleans(),
            message=text,
        ),
    )
