"""Whether a worker that has not ended still works: a verdict from its heartbeat alone.

Two silences mean two things. The thread that says "alive" needs no more than the interpreter's lock and
a process that is scheduled: when it is silent the process is stopped, or something holds the lock. When
steps do not come while that thread goes on, the worker waits: for a peer, a device, a disk.

Both limits follow what was measured. A verdict that was wrong costs a restart, and must not come again
for the same reason: ``patience`` grows with every one that may have been. A process in which nothing runs at
all, nor wants to, was no victim of a busy machine: it leaves the patience as it is.
"""

from dataclasses import dataclass

from artesian.train.heartbeat import Activity, Beat

CHECK_EVERY_S = 0.25
_FROZEN_FLOOR_S = 1.5
_STUCK_FLOOR_S = 30.0
_UNTOLD_STUCK_FLOOR_S = 600.0
"""For a script that does not say what it does between its steps, such as an evaluation."""
START_LIMIT_S = 1800.0
"""From ``Run``'s beginning to its first step: restoring, data, compilation."""
_TIMES = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """A worker that does not work any more: since when, and what it looks like."""

    since_s: float
    what: str
    is_frozen: bool
    """Nothing of it runs: it alone is at fault. Otherwise it may wait for one that is."""


def verdict(
    beat: Beat, now_s: float, patience: float = 1.0, start_limit_s: float | None = None
) -> Hang | None:
    """Return what is wrong with the worker, None while it may be well.

    Before its first two steps everything may take long: libraries that are loaded from a cold disk hold the
    interpreter's lock, and a script that never steps an optimizer may be an evaluation. So a start is judged by
    ``start_limit_s`` alone, or by the limit that the worker itself has told; and so is what it is busy with.
    """
    if beat.activity is Activity.STARTING or beat.pace_s is None or beat.beat_s is None:
        return _too_long(beat, now_s, beat.limit_s if start_limit_s is None else start_limit_s)
    if beat.activity is Activity.BUSY:
        return _too_long(beat, now_s, beat.limit_s)
    if beat.alive_s is not None:
        limit_s = (_FROZEN_FLOOR_S + _TIMES * min(beat.alive_pace_s or 0.0, 5.0)) * patience
        if now_s - beat.alive_s > limit_s:
            return Hang(
                since_s=beat.alive_s,
                what=f"gave no sign of life for {limit_s:.1f} s (stopped, or the interpreter's lock is held)",
                is_frozen=True,
            )
    if beat.activity is Activity.PAUSED:
        return _too_long(beat, now_s, beat.limit_s)
    floor_s = _UNTOLD_STUCK_FLOOR_S if beat.step is None else _STUCK_FLOOR_S
    limit_s = (floor_s + _TIMES * beat.pace_s) * patience
    if now_s - beat.beat_s > limit_s:
        return Hang(
            since_s=beat.beat_s,
            what=f"made no step for {limit_s:.1f} s, while its process runs",
            is_frozen=False,
        )
    return None


def _too_long(beat: Beat, now_s: float, limit_s: float | None) -> Hang | None:
    """Return a hang where what the worker does takes longer than it may; None also where nobody said how long."""
    if limit_s is None or beat.since_s is None or now_s - beat.since_s <= limit_s:
        return None
    doing = {
        Activity.STARTING: "has not come to its first step",
        Activity.STEPPING: "has not come to its second step",
        Activity.BUSY: "is not done with what it does between its steps",
        Activity.PAUSED: "is not done with what it has paused for",
    }
    what = f"{doing[beat.activity]} within {limit_s:.1f} s"
    return Hang(since_s=beat.since_s, what=what, is_frozen=False)
