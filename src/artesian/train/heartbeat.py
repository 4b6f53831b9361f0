"""Signs of life: a page of memory that a worker writes and its launch agent reads.

Memory and not messages, because a step may take a few milliseconds: a beat costs the worker less than a
microsecond and the agent nothing until it looks. Times are seconds of the monotonic clock, which all
processes of a machine share. Every number is eight aligned bytes, so that none is read half written.
"""

import fcntl
import mmap
import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum

_PAGE = struct.Struct("=12q")
_SECOND = 1_000_000_000
_DECAY = 0.98
"""Per beat: a pause of long ago is forgotten in some hundred steps."""


class Activity(IntEnum):
    """What a worker says that it does."""

    STARTING = 0
    """Imports, process group, model, data, restoring: it may take any time."""
    STEPPING = 1
    BUSY = 2
    """Something that is known to take longer than a step: the checkpoint at the end, the end itself."""
    PAUSED = 3
    """No step comes for a while, as in an evaluation, but the interpreter runs."""


_ACTIVITIES = frozenset(Activity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a worker's page says. ``alive_s`` is written by a thread of its own, a few times a second.

    ``pace_s`` is the longest time between two of the last some hundred steps; None before there were two.
    ``step`` is the last committed step, None where the script does not count; ``restored_step`` what the
    worker took over, ``load_s`` how long the reading took. ``since_s`` is when the activity began, ``limit_s`` how
    long it may take by the worker's own word. ``first_s`` is when it committed its first step since it last started.
    """

    alive_s: float | None
    alive_pace_s: float | None
    beats: int
    beat_s: float | None
    pace_s: float | None
    activity: Activity
    step: int | None
    restored_step: int | None
    load_s: float | None
    since_s: float | None = None
    limit_s: float | None = None
    first_s: float | None = None


def make_page() -> int:
    """Return the file descriptor of a new page."""
    fd = os.memfd_create("artesian-heartbeat", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, mmap.PAGESIZE)
    fcntl.fcntl(
        fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK
    )  # the agent reads it, whatever the worker does to its files
    os.pwrite(fd, _PAGE.pack(0, 0, 0, 0, 0, 0, -1, -1, -1, time.monotonic_ns(), 0, 0), 0)
    return fd


class Heart:
    """The worker's side of a page."""

    def __init__(self, fd: int) -> None:
        self._numbers = memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("q")
        self._start_limit_s: float | None = None
        self._has_begun = False

    @property
    def has_begun(self) -> bool:
        """Whether there was a step, of the run or of an optimizer, since this process was started."""
        return bool(self._numbers[2])

    def alive(self) -> None:
        """Say that the interpreter runs."""
        self._note(0, 1)

    def beat(self, step: int | None = None) -> None:
        """Say that a step is done: ``step`` of the run, where it is known."""
        numbers = self._numbers
        if step is not None:
            numbers[6] = step
        if numbers[5] != Activity.STEPPING:
            numbers[3] = 0  # what lies between is no step
            self._step()
        self._note(3, 4)
        if not self._has_begun:
            self._has_begun = True
            numbers[11] = numbers[3]
        numbers[2] += 1

    def set(self, activity: Activity, limit_s: float | None = None) -> None:
        """Say what the worker does now, and how long it may take; a beat says that it is stepping again."""
        if activity is Activity.STARTING:
            self._start_limit_s, self._has_begun = limit_s, False
        numbers = self._numbers
        numbers[10] = 0  # a limit must not be read together with another activity's beginning
        numbers[9] = time.monotonic_ns()
        numbers[5] = activity
        numbers[10] = 0 if limit_s is None else int(limit_s * _SECOND)

    def go_on(self) -> None:
        """Say that steps come again, after something that was none: its time counts neither as one nor as a wait."""
        if not self._has_begun:
            self.set(Activity.STARTING, self._start_limit_s)
            return
        self._step()
        self._numbers[3] = time.monotonic_ns()

    def _step(self) -> None:
        # Until there is a pace to judge by, the second step is a part of the start.
        self.set(Activity.STEPPING, None if self._numbers[4] else self._start_limit_s)

    def restored(self, step: int, load_s: float) -> None:
        """Say what state the worker goes on from; step 0 is none."""
        self._numbers[7] = step
        self._numbers[8] = int(load_s * _SECOND)

    def _note(self, at: int, pace: int) -> None:
        numbers = self._numbers
        now = time.monotonic_ns()
        if before := numbers[at]:
            numbers[pace] = max(now - before, int(_DECAY * numbers[pace]))
        numbers[at] = now


def read_page(fd: int) -> Beat:
    """Return what the worker has said last."""
    page = _PAGE.unpack(os.pread(fd, _PAGE.size, 0))
    return Beat(
        alive_s=_seconds(page[0]),
        alive_pace_s=_seconds(page[1]),
        beats=page[2],
        beat_s=_seconds(page[3]),
        pace_s=_seconds(page[4]),
        # A worker that writes where it must not may do so here: what it does is unknown then.
        activity=Activity(page[5]) if page[5] in _ACTIVITIES else Activity.STARTING,
        step=page[6] if page[6] >= 0 else None,
        restored_step=page[7] if page[7] >= 0 else None,
        load_s=page[8] / _SECOND if page[8] >= 0 else None,
        since_s=_seconds(page[9]),
        limit_s=_seconds(page[10]),
        first_s=_seconds(page[11]),
    )


def _seconds(nanoseconds: int) -> float | None:
    return nanoseconds / _SECOND if nanoseconds > 0 else None
