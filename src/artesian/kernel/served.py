"""What a job's attempts have had so far, by model of device."""

from artesian.kernel.lifecycle import Attempt, JobRecord


def served_by(record: JobRecord) -> dict[str, float]:
    """Return what the attempts that are over have had of each model of device, in device-seconds."""
    served: dict[str, float] = {}
    for attempt in record.attempts:
        if attempt.ended_s is not None:
            add_served(served, attempt)
    return served


def add_served(served: dict[str, float], attempt: Attempt) -> dict[str, float]:
    """Add what the attempt, which is over, has had."""
    assert attempt.ended_s is not None
    assert attempt.accelerator is not None
    device_s = (attempt.ended_s - attempt.decided_s) * attempt.placement.whole_devices
    served[attempt.accelerator] = served.get(attempt.accelerator, 0.0) + device_s
    return served
