"""What a callback does beside a loop that is not ours: it tells what the time went into, and hears SIGTERM."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist

from artesian.train import fence
from artesian.train.directory import Directory
from artesian.train.errors import CheckpointError, SupersededError
from artesian.train.fence import Writer
from artesian.train.membership import Membership, current
from artesian.train.reporter import Reporter, say
from artesian.train.signals import StopRequest
from artesian.train.stragglers import StragglerPolicy, watched
from artesian.train.vote import Vote
from artesian.wire import environment
from artesian.wire.messages import Phase

_SHORT_S = 1e-4
"""A phase shorter than this is not worth a message."""


def place_of(folder: str | Path, environ: Mapping[str, str] = os.environ) -> Directory:
    """Return the folder in which a trainer saves, fenced for the attempt of a job that ``environ`` speaks of.

    Raises ValueError for an epoch that is no number.
    """
    return Directory(Path(folder), Writer.from_env(environ))


def act_on(place: Directory, act: Callable[[Directory], None]) -> SupersededError | None:
    """Look at who saves there, by ``act`` of the fence, and return why this attempt may not any more.

    Where that cannot be told, it is said, and training goes on: the trainer saves in its own way all the same.
    """
    try:
        act(place)
    except SupersededError as error:
        return error
    except (CheckpointError, OSError) as error:
        say(f"cannot tell whether a later attempt saves to {place.name}: {error}; training goes on")
    return None


def claim(folder: str | Path) -> None:
    """Keep earlier attempts of the job from saving to ``folder``; before it is looked at for what to go on from.

    Raises SupersededError where a later one has come.
    """
    refused = act_on(place_of(folder), fence.claim)
    if refused is not None:
        raise refused


class Companion:
    """One worker's reports and stop requests, next to a loop of another library.

    Time is told by marks: each call says what the time since the one before went into.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device,
        folder: str | Path,
        *,
        dtype: str | None = None,
        stragglers: StragglerPolicy | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """Start to report. All ranks make theirs together, once torch.distributed is set up, if it is.

        ``folder`` is where the trainer saves: earlier attempts of the job may not, from now on.
        ``stragglers`` says how to look for ranks that compute ``model`` slower than the others (None: not at all).
        Raises ValueError where it has them replaced: that is for ``Run``, which tells its agent of every step;
        SupersededError where a later attempt has come.
        """
        if stragglers is not None and stragglers.replaces:
            raise ValueError(
                "stragglers: a callback names them and does not replace them: expected replaces=False, got True"
            )
        progress = environ.get(environment.PROGRESS_DIR)
        self.place = place_of(folder, environ)
        self.member: Membership = current(device)
        self._reporter = Reporter(self.member, dtype, Path(progress) if progress else None)
        self._stop = StopRequest(self.member.control)
        control = self.member.control
        self._all_well = None if control is None else Vote(control, dist.ReduceOp.MIN)
        self._slow = watched(stragglers, model, self.member, self._reporter.straggler, None)
        self._reporter.started(seeks_stragglers=stragglers is not None)
        self._stop.install()
        self._is_ready = False
        self._mark_s = self._step_start_s = self._reporter.now_s()
        self._agree(fence.claim if self.member.rank == 0 else fence.check)

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

    def look(self) -> None:
        """Before a save, on all ranks: raise SupersededError on each where a later attempt of the job has come."""
        self._agree(fence.check)

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

    def _agree(self, act: Callable[[Directory], None]) -> None:
        if self.place.writer is None:
            return
        refused = act_on(self.place, act)
        if not self.meet(is_well=refused is None):
            self.close()
            raise refused or SupersededError(f"another rank has found a later attempt in {self.place.name}")
