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
_UNTOLD_STUCK_FLOOR_S = 120.0
"""For a script that does not say what it does between its steps, such as an evaluation."""
_TIMES = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """A worker that does not work any more: since when, and what it looks like."""

    since_s: float
    what: str
    is_frozen: bool
    """Nothing of it runs: it alone is at fault. Otherwise it may wait for one that is."""


def verdict(beat: Beat, now_s: float, patience: float = 1.0) -> Hang | None:
    """Return what is wrong with the worker, None while it may be well.

    Before its first two steps, and while it says that it is busy, everything may take any time: libraries that
    are loaded from a cold disk hold the interpreter's lock for long, the rendezvous has a timeout of its own,
    and a script that never steps an optimizer may be an evaluation.
    """
    if beat.activity is not Activity.STEPPING or beat.pace_s is None or beat.beat_s is None:
        return None
    if beat.alive_s is not None:
        limit_s = (_FROZEN_FLOOR_S + _TIMES * min(beat.alive_pace_s or 0.0, 5.0)) * patience
        if now_s - beat.alive_s > limit_s:
            return Hang(
                since_s=beat.alive_s,
                what=f"gave no sign of life for {limit_s:.1f} s (stopped, or the interpreter's lock is held)",
                is_frozen=True,
            )
    floor_s = _UNTOLD_STUCK_FLOOR_S if beat.step is None else _STUCK_FLOOR_S
    limit_s = (floor_s + _TIMES * beat.pace_s) * patience
    if now_s - beat.beat_s > limit_s:
        return Hang(
            since_s=beat.beat_s,
            what=f"made no step for {limit_s:.1f} s, while its process runs",
            is_frozen=False,
        )
    return None
