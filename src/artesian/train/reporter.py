"""What one worker says on the wire, and when its start-up began and ended."""

import contextlib
import os
import sys
import time
from pathlib import Path

from artesian.train.membership import Membership
from artesian.wire.channel import ProgressWriter, worker_file
from artesian.wire.clock import AnchoredClock
from artesian.wire.messages import (
    CheckpointCommitted,
    Message,
    Phase,
    PhaseEnded,
    ReplicasDiverged,
    Restored,
    StepCommitted,
    StragglerFound,
    WorkerStarted,
)


class Reporter:
    """Sends a worker's messages to its progress file; without a folder for it, to nobody.

    A file that cannot be written (a full disk) costs messages, which are counted and told once on
    stderr, but not the training.
    """

    def __init__(self, member: Membership, dtype: str | None, progress_dir: Path | None) -> None:
        self._member = member
        self._dtype = dtype
        self._clock = AnchoredClock()
        self._writer = ProgressWriter(worker_file(progress_dir, member.rank)) if progress_dir else None
        age_s = process_age_s() if _again_s is None else time.monotonic() - _again_s
        self._start_up_s: float | None = self._clock.now_s() - age_s
        """Since when the worker has been starting up; None once it has started."""
        self.lost_messages = 0

    def now_s(self) -> float:
        """Return seconds since the Unix epoch, on this worker's clock."""
        return self._clock.now_s()

    def started(self, *, seeks_stragglers: bool = False, checks_replicas: bool = False) -> None:
        """Say that the worker runs, since its process was started, and what it looks for."""
        assert self._start_up_s is not None
        self._send(
            WorkerStarted(
                rank=self._member.rank,
                at_s=self._start_up_s,
                world_size=self._member.world_size,
                pid=os.getpid(),
                device=str(self._member.device),
                dtype=self._dtype,
                seeks_stragglers=seeks_stragglers,
                checks_replicas=checks_replicas,
            )
        )

    def end_start_up(self) -> float:
        """Say that the start-up goes no further for now, and return the time."""
        now_s = self.now_s()
        if self._start_up_s is not None:
            self.phase(Phase.START_UP, self._start_up_s, now_s)
            self._start_up_s = None
        return now_s

    def ready(self) -> float:
        """Say that the first step can begin: what went before was start-up. Return the time."""
        return self.end_start_up()

    def restored(self, step: int, start_s: float) -> None:
        """Say that the state of ``step`` was restored since ``start_s``; start-up goes on after it."""
        now_s = self.now_s()
        self.phase(Phase.RESTORE, start_s, now_s)
        self._send(Restored(rank=self._member.rank, at_s=now_s, step=step))
        self._start_up_s = now_s

    def phase(self, phase: Phase, start_s: float, end_s: float) -> None:
        """Say what the time from ``start_s`` to ``end_s`` went into."""
        self._send(PhaseEnded(rank=self._member.rank, phase=phase, start_s=start_s, end_s=end_s))

    def step(
        self,
        step: int,
        start_s: float,
        loss: float | None,
        tokens: int | None,
        model_flops: float | None,
    ) -> None:
        """Say that ``step``, begun at ``start_s``, is applied."""
        self._send(
            StepCommitted(
                rank=self._member.rank,
                step=step,
                start_s=start_s,
                end_s=self.now_s(),
                loss=loss,
                tokens=tokens,
                model_flops=model_flops,
            )
        )

    def straggler(
        self, *, rank: int, step: int, ratio: float, steps: int, window: int, excess_s: float
    ) -> None:
        """Say that ``rank`` has held the gang up for ``steps`` steps up to ``step``, the last ``window`` by so much."""
        self._send(
            StragglerFound(
                rank=rank,
                at_s=self.now_s(),
                step=step,
                ratio=ratio,
                steps=steps,
                window=window,
                excess_s=excess_s,
            )
        )

    def replicas_diverged(self, *, step: int, ranks: tuple[int, ...], is_certain: bool) -> None:
        """Say that after ``step`` the parameters of ``ranks`` were not those of the others."""
        self._send(
            ReplicasDiverged(
                rank=self._member.rank, at_s=self.now_s(), step=step, ranks=ranks, is_certain=is_certain
            )
        )

    def checkpoint(self, step: int, size_bytes: int) -> None:
        """Say that the checkpoint of ``step`` is durable."""
        self._send(
            CheckpointCommitted(rank=self._member.rank, at_s=self.now_s(), step=step, size_bytes=size_bytes)
        )

    def close(self) -> None:
        """Close the file. Calling it again does nothing."""
        if self._writer is not None:
            self._writer.close()

    def _send(self, message: Message) -> None:
        if self._writer is None:
            return
        try:
            self._writer.send(message)
        except OSError as error:
            self.lost_messages += 1
            if self.lost_messages == 1:
                say(f"progress reports are being lost: {error}; training goes on")


_again_s: float | None = None
"""When this process last began to start up again, on the monotonic clock; None: it started once."""


def start_up_again() -> None:
    """Note that the worker starts up anew, in the same process."""
    global _again_s  # noqa: PLW0603  a fact about the process
    _again_s = time.monotonic()


def say(text: str) -> None:
    """Print a line on stderr. Where that is a file on a full disk too, training still goes on."""
    with contextlib.suppress(OSError):
        print(f"artesian: {text}", file=sys.stderr, flush=True)  # noqa: T201


def process_age_s() -> float:
    """Return for how many seconds this process has run, to a hundredth."""
    stat = Path("/proc/self/stat").read_text()
    ticks = int(stat.rpartition(")")[2].split()[19])  # field 22, counted from the name's closing parenthesis
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
