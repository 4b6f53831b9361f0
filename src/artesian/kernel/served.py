"""What a job's attempts have had so far, by model of device, and how long they were at work."""

from collections.abc import Mapping

from msgspec import Struct

from artesian.kernel.lifecycle import Attempt, JobRecord
from artesian.model.queue import NOTHING_RAN, NOTHING_SERVED


class Served(Struct, frozen=True, gc=False):
    """What attempts that are over have had: device-seconds ``by_accelerator``, for all that they held; and how long they
    were at work, ``ran_s`` in seconds by model and number of devices, which may be fewer."""

    by_accelerator: Mapping[str, float]
    ran_s: Mapping[tuple[str, float], float]

    def __bool__(self) -> bool:
        return bool(self.by_accelerator)

    @property
    def device_s(self) -> float:
        """All that they have had, in device-seconds."""
        return sum(self.by_accelerator.values()) if self.by_accelerator else 0.0

    def and_by(self, attempt: Attempt) -> "Served":
        """Return the same with an attempt more, which is over."""
        assert attempt.ended_s is not None
        assert attempt.accelerator is not None
        # New ones: what a policy was shown does not change.
        had, ran_s = dict(self.by_accelerator), dict(self.ran_s)
        device_s = (attempt.ended_s - attempt.decided_s) * attempt.placement.whole_devices
        had[attempt.accelerator] = had.get(attempt.accelerator, 0.0) + device_s
        for part in attempt.worked_by(attempt.ended_s):
            key = (attempt.accelerator, part.devices)
            ran_s[key] = ran_s.get(key, 0.0) + part.seconds
        return Served(had, ran_s)


NOTHING = Served(NOTHING_SERVED, NOTHING_RAN)
"""Shared by all jobs that had no device yet."""


def served_by(record: JobRecord) -> Served:
    """Return what the attempts that are over have had."""
    served = NOTHING
    for attempt in record.attempts:
        if attempt.ended_s is not None:
            served = served.and_by(attempt)
    return served
