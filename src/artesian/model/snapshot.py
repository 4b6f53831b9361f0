"""What a policy sees: one consistent, read-only view per scheduling cycle."""

from collections.abc import Sequence
from dataclasses import dataclass

from artesian.model.capacity import Capacity
from artesian.model.job import Job
from artesian.model.placement import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingJob:
    """A job that could start now if there was room; ``next_epoch`` numbers the attempt it would be."""

    job: Job
    submitted_s: float
    next_epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job that holds devices, from ``since_s`` on; ``is_stopping`` when it is about to give them back."""

    job: Job
    epoch: int
    placement: Placement
    since_s: float
    is_stopping: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The fleet and the jobs at one moment. A policy must not change ``capacity``; it copies it.

    ``waiting`` is in the order of submission, ``running`` in the order of the decision to start; ids
    break ties.
    """

    at_s: float
    waiting: Sequence[WaitingJob]
    running: Sequence[RunningJob]
    capacity: Capacity
