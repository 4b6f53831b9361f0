"""What the environment says of a run: where it reports and saves, how often, and what is to go wrong in it."""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import torch

from artesian.train.interval import Age, BestInterval, EverySeconds, EverySteps, Interval
from artesian.train.membership import Membership
from artesian.train.persist import Report
from artesian.train.reporter import Reporter
from artesian.train.restorable import Restorable
from artesian.train.saver import Saver
from artesian.train.saves import Saves
from artesian.wire import environment
from artesian.wire.faults import Fault, decode_faults

if TYPE_CHECKING:
    from artesian.train.sharded_saves import ShardedSaves

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?s")
_DTYPE_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


Every = int | timedelta | Literal["auto"]
"""When to save: after so many steps, after so much time, or as often as is best."""
AnySaves: TypeAlias = "Saves | ShardedSaves"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a ``Run`` is made of that the environment has a say in."""

    reporter: Reporter
    saves: AnySaves
    faults: tuple[Fault, ...]
    age: Age


def read_parts(
    what: Restorable,
    *,
    member: Membership,
    dtype: torch.dtype | None,
    progress_dir: Path | str | None,
    checkpoint_dir: Path | str | None,
    checkpoint_every: Every | None,
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
    every = every_of(environ) if checkpoint_every is None else checkpoint_every
    memory = memory or environ.get(environment.MEMORY) or None
    epoch = _whole_number(environ, environment.EPOCH) or 1
    restart = _whole_number(environ, environment.RESTART) or 0
    reporter = Reporter(
        member,
        None if dtype is None else _DTYPE_NAMES.get(dtype, str(dtype).removeprefix("torch.")),
        Path(progress) if progress else None,
    )
    nodes = _whole_number(environ, "GROUP_WORLD_SIZE") or 1
    interval = None if every is None else interval_of(every, nodes=nodes)
    age = Age(interval, failures=epoch + restart - 1)
    faults = _faults(environ, member, epoch, restart)
    if what.is_sharded:
        # Imports what a run of replicas need not wait for.
        from artesian.train.holder_process import decode
        from artesian.train.sharded_back import Places
        from artesian.train.sharded_saves import ShardedSaves

        holder = environ.get(environment.HOLDER)
        places = Places(
            folder=folder or None,
            interval=interval,
            memory=memory,
            memory_every=memory_every,
            keep_last=keep_last,
            keep_every=keep_every,
            node=_whole_number(environ, "GROUP_RANK") or 0,
            holder=decode(holder) if holder else None,
            environ=environ,
        )
        sharded = ShardedSaves(places, what, member, reporter)
        return Parts(reporter=reporter, saves=sharded, faults=faults, age=age)
    reports: deque[Report] = deque()
    saver = None
    if memory is not None or (folder and member.rank == 0):
        saver = Saver(
            (folder or None) if member.rank == 0 else None,
            job=memory,
            rank=member.local_rank,  # what a node remembers does not depend on which node it is
            interval=interval,
            memory_every=memory_every,
            copy_costs=member.device.type != "cpu",
            keep_last=keep_last,
            keep_every=keep_every,
            on_report=reports.append,
            environ=environ,
        )
    return Parts(
        reporter=reporter,
        saves=Saves(saver, reports, what, member, reporter, has_storage=bool(folder)),
        faults=faults,
        age=age,
    )


def _faults(environ: Mapping[str, str], member: Membership, epoch: int, restart: int) -> tuple[Fault, ...]:
    """Return the faults that are this worker's, at this time."""
    return tuple(
        fault
        for fault in decode_faults(environ.get(environment.FAULTS) or "[]")
        if (fault.worker, fault.epoch, fault.restart) == (member.rank, epoch, restart)
    )


def interval_of(every: Every, *, nodes: int = 1) -> Interval:
    """Return when to save to storage, for a job on so many ``nodes``.

    Raises ValueError unless the steps or the time are positive.
    """
    if every == "auto":
        return BestInterval(nodes=nodes)
    if isinstance(every, timedelta):
        return EverySeconds(every.total_seconds())
    return EverySteps(every)


def every_of(environ: Mapping[str, str]) -> Every | None:
    """Return what the environment says; None where it says nothing. Raises ValueError where it does not parse."""
    text = environ.get(environment.CHECKPOINT_EVERY)
    if not text or text == "auto":
        return "auto" if text else None
    if text.isascii() and text.isdigit():
        return int(text)
    if _SECONDS.fullmatch(text):
        return timedelta(seconds=float(text[:-1]))
    raise ValueError(
        f"${environment.CHECKPOINT_EVERY} must be a number of steps, seconds such as 600s, or auto, got {text!r}"
    )


def _whole_number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise ValueError(f"${name} must be a whole number, got {text!r}")
    return int(text)
