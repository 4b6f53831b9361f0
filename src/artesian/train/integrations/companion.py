"""What a callback does beside a loop that is not ours: it tells what the time went into, and hears SIGTERM."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from artesian.train.membership import Membership, current
from artesian.train.reporter import Reporter
from artesian.train.signals import StopRequest
from artesian.train.stragglers import StragglerPolicy, watched
from artesian.train.vote import Vote
from artesian.wire import environment
from artesian.wire.messages import Phase

_SHORT_S = 1e-4
"""A phase shorter than this is not worth a message."""


class Companion:
    """One worker's reports and stop requests, next to a loop of another library.

    Time is told by marks: each call says what the time since the one before went into.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device,
        *,
        dtype: str | None = None,
        stragglers: StragglerPolicy | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Start to report. All ranks make theirs together, once torch.distributed is set up, if it is.

        ``stragglers`` says how to look for ranks that compute ``model`` slower than the others (None: not at all).
        Raises ValueError where it has them replaced: that is for ``Run``, which tells its agent of every step.
        """
        if stragglers is not None and stragglers.replaces:
            raise ValueError(
                "stragglers: a callback names them and does not replace them: expected replaces=False, got True"
            )
        folder = environ.get(environment.PROGRESS_DIR)
        self.member: Membership = current(device)
        self._reporter = Reporter(self.member, dtype, Path(folder) if folder else None)
        self._stop = StopRequest(self.member.control)
        control = self.member.control
        self._all_well = None if control is None else Vote(control, dist.ReduceOp.MIN)
        self._slow = watched(stragglers, model, self.member, self._reporter.straggler, None)
        self._reporter.started(seeks_stragglers=stragglers is not None)
        self._stop.install()
        self._is_ready = False
        self._mark_s = self._step_start_s = self._reporter.now_s()

    def restored(self, step: int, start_s: float | None) -> None:
        """Say that training goes on after ``step``; ``start_s`` is when reading it began, where that is known."""
        self._reporter.end_start_up()
        self._reporter.restored(step, self._reporter.now_s() if start_s is None else start_s)

    def step_begins(self) -> None:
        """Say that the batch of the next step is there."""
        if not self._is_ready:
            self._reporter.ready()
            self._is_ready = True
            self._mark_s = self._reporter.now_s()
        self._step_start_s = self.phase(Phase.DATA_WAIT)
        if self._slow is not None:
            self._slow.begin()

    def step_ends(self, step: int, loss: float | None, tokens: int | None = None) -> bool:
        """Say that ``step`` is applied; return whether all ranks are to stop after it."""
        self._reporter.step(step, self._step_start_s, loss, tokens, None)
        self._mark_s = self._reporter.now_s()
        if self._slow is not None:
            self._slow.note(step)
        return self._stop.is_granted()

    def phase(self, phase: Phase) -> float:
        """Say that the time since the last mark went into ``phase``, and return the time."""
        now_s = self._reporter.now_s()
        if now_s - self._mark_s > _SHORT_S:
            self._reporter.phase(phase, self._mark_s, now_s)
        self._mark_s = now_s
        return now_s

    def mark(self) -> None:
        """Begin anew: what was until now has been told, or is nothing in particular."""
        self._mark_s = self._reporter.now_s()

    def meet(self, *, is_well: bool = True) -> bool:
        """Wait for the other ranks, and return on each whether all are well."""
        return is_well if self._all_well is None else self._all_well.hold(int(is_well)) == (1,)

    def saved(self, step: int, size_bytes: int) -> None:
        """Say that the checkpoint of ``step`` is durable."""
        self._reporter.checkpoint(step, size_bytes)

    def close(self) -> None:
        """Give SIGTERM back and end the reports. Calling it again does nothing."""
        self._stop.settle()
        self._stop.remove()
        if self._slow is not None:
            self._slow.close()
            self._slow = None
        self._reporter.close()
