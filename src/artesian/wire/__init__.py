"""Ground floor: what a running job and artesian say to each other. Standard library only.

``messages``     the closed set of progress messages, and their JSON-lines form
``channel``      an append-only file per worker: written by the worker, tailed by the control plane
``environment``  the names of the variables that artesian sets for a worker
``faults``       faults as data, for tests and examples: ``Kill(worker=1, step=60)``
``oom``          whether the kernel's out-of-memory killer ended a process
``clock``        wall-clock seconds that never run backwards within a process
"""

from artesian.wire.channel import ProgressReader, ProgressWriter
from artesian.wire.clock import AnchoredClock
from artesian.wire.faults import Fault, FaultKind
from artesian.wire.messages import (
    CheckpointCommitted,
    Layer,
    Message,
    Phase,
    PhaseEnded,
    Recovered,
    ReplicasDiverged,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerFailed,
    WorkerStarted,
    decode,
    encode,
)

__all__ = [
    "AnchoredClock",
    "CheckpointCommitted",
    "Fault",
    "FaultKind",
    "Layer",
    "Message",
    "Phase",
    "PhaseEnded",
    "ProgressReader",
    "ProgressWriter",
    "Recovered",
    "ReplicasDiverged",
    "Restored",
    "StepCommitted",
    "StragglerFound",
    "WorkerFailed",
    "WorkerStarted",
    "decode",
    "encode",
]
