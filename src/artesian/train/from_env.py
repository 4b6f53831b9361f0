"""What the environment says of a run: where it reports and saves, how often, and what is to go wrong in it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from artesian.train.interval import BestInterval, EverySteps, Interval
from artesian.train.membership import Membership
from artesian.train.persist import Report
from artesian.train.reporter import Reporter
from artesian.train.restorable import Restorable
from artesian.train.saver import Saver
from artesian.train.saves import Saves
from artesian.wire import environment
from artesian.wire.faults import Fault, decode_faults

_DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a ``Run`` is made of that the environment has a say in."""

    reporter: Reporter
    saves: Saves
    faults: tuple[Fault, ...]


def read_parts(
    what: Restorable,
    *,
    member: Membership,
    dtype: torch.dtype | None,
    progress_dir: Path | str | None,
    checkpoint_dir: Path | str | None,
    checkpoint_every: int | Literal["auto"] | None,
    keep_last: int,
    keep_every: int | None,
    memory: str | None,
    memory_every: int | None,
    environ: Mapping[str, str],
) -> Parts:
    """Return the parts; the arguments are those of ``Run.from_env``, and win over the environment.

    Raises ValueError for a variable that does not parse.
    """
    progress = progress_dir or environ.get(environment.PROGRESS_DIR)
    folder = checkpoint_dir or environ.get(environment.CHECKPOINT_DIR)
    if checkpoint_every is None:
        checkpoint_every = _interval_of(environ)
    if isinstance(checkpoint_every, int) and checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be positive, got {checkpoint_every}")
    memory = memory or environ.get(environment.MEMORY) or None
    epoch = _whole_number(environ, environment.EPOCH) or 1
    restart = _whole_number(environ, environment.RESTART) or 0
    reporter = Reporter(
        member,
        None if dtype is None else _DTYPE_NAMES.get(dtype, str(dtype).removeprefix("torch.")),
        Path(progress) if progress else None,
    )
    reports: deque[Report] = deque()
    saver = None
    if memory is not None or (folder and member.rank == 0):
        saver = Saver(
            (folder or None) if member.rank == 0 else None,
            job=memory,
            rank=member.local_rank,  # what a node remembers does not depend on which node it is
            interval=_interval(checkpoint_every, epoch + restart - 1),
            memory_every=memory_every,
            copy_costs=member.device.type != "cpu",
            keep_last=keep_last,
            keep_every=keep_every,
            on_report=reports.append,
        )
    return Parts(
        reporter=reporter,
        saves=Saves(saver, reports, what, member, reporter, has_storage=bool(folder)),
        faults=tuple(
            fault
            for fault in decode_faults(environ.get(environment.FAULTS) or "[]")
            if (fault.worker, fault.epoch, fault.restart) == (member.rank, epoch, restart)
        ),
    )


def _interval_of(environ: Mapping[str, str]) -> int | Literal["auto"] | None:
    if environ.get(environment.CHECKPOINT_EVERY) == "auto":
        return "auto"
    return _whole_number(environ, environment.CHECKPOINT_EVERY)


def _interval(every: int | Literal["auto"] | None, failures: int) -> Interval | None:
    """Return when to save to storage; ``failures`` is how often this job has failed before."""
    if every is None:
        return None
    if every == "auto":
        best = BestInterval()
        best.observed(failures=failures, duration_s=0.0)
        return best
    return EverySteps(every)


def _whole_number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise ValueError(f"${name} must be a whole number, got {text!r}")
    return int(text)
