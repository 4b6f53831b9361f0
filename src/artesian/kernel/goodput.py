"""Goodput of one job: which share of the device time it has had became progress, in all and lately."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from artesian.kernel.accounting import held_by_job
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.progress import JobLog, Progress, read_log
from artesian.kernel.state import State
from artesian.model.ledger import US, Loss, to_us
from artesian.model.resources import MILLI
from artesian.model.units import format_duration

SLIDING_S = 3600.0
"""How far back the sliding goodput looks."""
_NAMED = 3
"""Losses that are named in words."""


class Window(Struct, frozen=True, kw_only=True, gc=False):
    """A job's device time between two times, in device-microseconds.

    ``lost_us`` has each loss once. ``waiting`` in it is the time between two attempts, on the devices of the
    one before: they may have been lent to others, but the job did not go on.
    """

    start_s: float
    end_s: float
    productive_us: int
    lost_us: Mapping[Loss, int]

    @property
    def total_us(self) -> int:
        """All device time."""
        return self.productive_us + sum(self.lost_us.values())

    @property
    def share(self) -> float | None:
        """Goodput, 0 to 1; None where the job had no device."""
        return self.productive_us / self.total_us if self.total_us else None


class Goodput(Struct, frozen=True, kw_only=True, gc=False):
    """Goodput from the job's first attempt on, and over the last while; None where it is unknown.

    It is unknown where no worker has reported. Time of workers that reported nothing, next to others that
    did, is lost to ``unmeasured``.
    """

    job_id: str
    cumulative: Window | None
    sliding: Window | None


def job_goodput(
    state: State, record: JobRecord, progress: Progress, *, at_s: float, sliding_s: float = SLIDING_S
) -> Goodput:
    """Return the goodput of a job by ``at_s``, which is now, or any later time once the job is over.

    The sliding one is over the last ``sliding_s`` before ``at_s`` or the job's end. Time before the first
    attempt is the queue's, and in neither.

    Raises ValueError unless sliding_s is positive.
    """
    if not sliding_s > 0:
        raise ValueError(f"sliding_s must be positive, got {sliding_s}")
    if not record.attempts:
        return Goodput(job_id=record.job.id, cumulative=None, sliding=None)
    log = read_log(record, progress)
    first_s = record.attempts[0].decided_s
    end_s = max(first_s, at_s if record.ended_s is None else min(at_s, record.ended_s))
    return Goodput(
        job_id=record.job.id,
        cumulative=_window(state, record, log, first_s, end_s),
        sliding=_window(state, record, log, max(first_s, end_s - sliding_s), end_s),
    )


def _window(state: State, record: JobRecord, log: JobLog, start_s: float, end_s: float) -> Window | None:
    held = held_by_job(state, record, log, start_s=start_s, end_s=end_s)
    if held is None:
        return None
    productive_us = held.pop(None, 0)
    lost_us = {cause: amount for cause, amount in held.items() if cause is not None}
    if waited_us := _waited_us(record, to_us(start_s), to_us(end_s)):
        lost_us[Loss.WAITING] = waited_us
    return Window(start_s=start_s, end_s=end_s, productive_us=productive_us, lost_us=lost_us)


def _waited_us(record: JobRecord, start: int, end: int) -> int:
    """Return the time between attempts, and after the last one while another is to come, times its devices."""
    waited = 0
    nexts = [to_us(attempt.decided_s) for attempt in record.attempts[1:]]
    nexts.append(end if record.ended_s is None else min(end, to_us(record.ended_s)))
    for attempt, until in zip(record.attempts, nexts, strict=True):
        if attempt.ended_s is None:
            continue
        milli = attempt.placement.milli
        gap = min(until, end) - max(to_us(attempt.ended_s), start)
        waited += milli * max(0, gap)
    return waited // MILLI


def goodput_text(goodput: Goodput) -> str:
    """Return both shares and the largest losses in words: ``97.3% of 1.25 device-hours; ...``."""
    whole, sliding = goodput.cumulative, goodput.sliding
    if whole is None or whole.share is None:
        return "unknown"
    hours = whole.total_us / US / 3600
    text = f"{whole.share:.1%} of {hours:,.2f} device-hours"
    if sliding is not None and sliding.share is not None and sliding.start_s > whole.start_s:
        text += f", {sliding.share:.1%} in the last {format_duration(sliding.end_s - sliding.start_s)}"
    largest = sorted(whole.lost_us.items(), key=lambda item: (-item[1], item[0].value))[:_NAMED]
    if largest:
        named = ", ".join(
            f"{cause.value.replace('_', ' ')} {us / whole.total_us:.1%}" for cause, us in largest
        )
        text += f"; lost most to {named}"
    return text


def goodput_json(goodput: Goodput) -> dict[str, Any]:
    """Return both windows as plain JSON types, in device-seconds; None for what is unknown."""
    return {"cumulative": _window_json(goodput.cumulative), "sliding": _window_json(goodput.sliding)}


def _window_json(window: Window | None) -> dict[str, Any] | None:
    if window is None:
        return None
    return {
        "start_s": window.start_s,
        "end_s": window.end_s,
        "share": window.share,
        "productive": window.productive_us / US,
        "lost": [
            {"cause": cause.value, "device_s": us / US}
            for cause, us in sorted(window.lost_us.items(), key=lambda item: (-item[1], item[0].value))
        ],
    }
