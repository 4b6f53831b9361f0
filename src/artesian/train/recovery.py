"""One recovery, from the verdict to the first new step, and the record of it."""

import contextlib
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artesian.train.heartbeat import Activity, Beat
from artesian.wire.channel import ProgressWriter, agent_file
from artesian.wire.messages import Layer, Message, Recovered

PREEMPTED = 128 + signal.SIGTERM
"""Exit code of a worker that was asked to stop, and has: 143."""
NOBODY_THERE = 69
"""Exit code of an agent that found no gang to be part of (sysexits' EX_UNAVAILABLE)."""
CANNOT_START, NOT_FOUND = 126, 127
_SHELL_SIGNAL_BASE = 128
_FINAL_CODES = (PREEMPTED, CANNOT_START, NOT_FOUND)
CAUSES = ("signal", "oom_kill", "user_error")
"""What a worker can fail of, in the words that job files have for the end of an attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong with one worker. ``detect_s`` is how long it took to see it; None: at once.

    ``is_suspect`` says that it may be an effect of another worker's failure: it was an error, and not a
    death by a signal or a silence. ``is_straggler``: the worker was too slow for the others, and nothing else.
    ``is_final``: it would come again, by the worker's word. ``trace`` is the traceback where the worker has not printed it itself.
    """

    rank: int
    text: str
    is_suspect: bool
    exit_code: int | None = None
    signal: int | None = None
    is_oom_kill: bool = False
    is_straggler: bool = False
    is_final: bool = False
    detect_s: float | None = None
    trace: str | None = None

    @property
    def is_worth_a_restart(self) -> bool:
        """Whether a new start may go better: not after a stop that was asked for, nor without a program."""
        return not self.is_final and self.exit_code not in _FINAL_CODES

    @property
    def code(self) -> int:
        """What the agent ends with, where the gang ends of this: an exit code, or 128 + the signal as shells have it."""
        return self.exit_code if self.exit_code is not None else _SHELL_SIGNAL_BASE + (self.signal or 0)

    @property
    def cause(self) -> str:
        """One of ``CAUSES``, or ``straggler``. A code above 128 is a shell's way to tell of a signal's end."""
        if self.is_straggler:
            return "straggler"
        if self.is_oom_kill:
            return "oom_kill"
        is_signal = self.signal is not None or (self.exit_code or 0) > _SHELL_SIGNAL_BASE
        return "signal" if is_signal else "user_error"


def cause_of(failures: Sequence[Failure]) -> Failure:
    """Return the one of ``failures``, oldest first, that was the cause of the others.

    A stop that was asked for comes first: all workers leave then, and some agents before others. A straggler that is
    about to be replaced causes errors, and no deaths.
    """
    return min(
        failures, key=lambda failure: (failure.is_worth_a_restart, failure.is_suspect, failure.is_straggler)
    )


@dataclass(slots=True, kw_only=True)
class Recovery:
    """A recovery under way. Times are the monotonic clock's. ``step_before`` is the last committed step.

    ``restart`` numbers the formation, ``failures`` counts the restarts up to it that were for one.
    """

    restart: int
    failures: int
    cause: Failure
    layer: Layer
    detected_s: float
    step_before: int | None

    def record(self, beats: Sequence[Beat], now_s: float, wall_s: float) -> Recovered | None:
        """Return the record once all workers have committed a step that is new; None before.

        ``beats`` are the workers' of this node, ``wall_s`` is ``now_s`` on the clock of the wire.
        """
        if not beats or not all(self._is_past(beat) for beat in beats):
            return None
        new_s = max(beat.beat_s or now_s for beat in beats)
        load_s = max((beat.load_s for beat in beats if beat.load_s is not None), default=None)
        restored = max((beat.restored_step for beat in beats if beat.restored_step is not None), default=None)
        recomputed = None
        if self.step_before is not None and restored is not None:
            recomputed = max(0, self.step_before - restored)
        first_s = max(
            (beat.first_s for beat in beats if beat.first_s is not None and beat.first_s >= self.detected_s),
            default=new_s,
        )
        if not recomputed:  # the first one was new, and others may have followed until this look
            new_s = first_s
        return Recovered(
            rank=self.cause.rank,
            at_s=wall_s - (now_s - new_s),
            restart=self.restart,
            cause=self.cause.text,
            layer=self.layer,
            detect_s=self.cause.detect_s,
            restart_s=max(0.0, first_s - self.detected_s - (load_s or 0.0)),
            load_s=load_s,
            recomputed_steps=recomputed,
            exit_code=self.cause.exit_code,
            signal=self.cause.signal,
            is_oom_kill=self.cause.is_oom_kill,
            recompute_s=None if recomputed is None else max(0.0, new_s - first_s),
            is_straggler=self.cause.is_straggler,
            failures=self.failures,
        )

    def _is_past(self, beat: Beat) -> bool:
        if beat.activity is Activity.STARTING or beat.beat_s is None or beat.beat_s < self.detected_s:
            return False
        if self.step_before is None or beat.step is None:
            return True
        return beat.step > self.step_before or beat.step == beat.restored_step


def describe(record: Recovered) -> str:
    """Return the record as a sentence for people."""
    parts = [] if record.detect_s is None else [f"seen after {record.detect_s:.2f} s"]
    parts.append(f"restarted in {record.restart_s:.2f} s")
    if record.load_s is not None:
        parts.append(f"state read in {record.load_s:.2f} s")
    if record.recomputed_steps is not None:
        took = (
            f" in {record.recompute_s:.2f} s"
            if record.recomputed_steps and record.recompute_s is not None
            else ""
        )
        parts.append(f"{record.recomputed_steps} steps trained again{took}")
    return f"recovered ({record.layer.value}, restart {record.restart}): {', '.join(parts)}; cause: {record.cause}"


def report(progress_dir: Path, node_rank: int, message: Message) -> str | None:
    """Write the agent's ``message`` to its progress file; return what went wrong, None when nothing did."""
    try:
        with contextlib.closing(ProgressWriter(agent_file(progress_dir, node_rank))) as writer:
            writer.send(message)
    except OSError as error:
        return f"cannot report the failure in {progress_dir}: {error}"
    return None
