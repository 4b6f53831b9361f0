"""What came of one training job: loss, tokens, MFU, and how it got over its failures."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from msgspec import Struct

from artesian.kernel.detections import diverged_replicas
from artesian.kernel.gang import Gang
from artesian.kernel.goodput import Goodput
from artesian.kernel.intervals import Times
from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.notes import ceiling_text
from artesian.kernel.progress import AttemptLog, JobLog, Progress, read_log
from artesian.kernel.stragglers import slow_workers
from artesian.model.ledger import US, Ceiling, Waterfall, to_us
from artesian.model.replicas import DivergedReplicas
from artesian.model.resources import MILLI
from artesian.model.stragglers import SlowWorker
from artesian.model.views import JobView
from artesian.wire import Layer, Recovered, StepCommitted

_SHELL_SIGNAL_BASE = 128
_Number = TypeVar("_Number", int, float)


class RecoveryCause(StrEnum):
    """What a job got over: what an attempt ended of, or a gang was formed anew for within one; see ``Cause``."""

    USER_ERROR = "user_error"
    SIGNAL = "signal"
    OOM_KILL = "oom_kill"
    NODE_LOST = "node_lost"
    START_FAILED = "start_failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    RESIZED = "resized"
    STRAGGLER = "straggler"
    """No end of an attempt: a worker was slower than the others, and its launch agent had another take its place."""


class Recovery(Struct, frozen=True, kw_only=True, gc=False):
    """An attempt that was cut short and followed by another, or a gang that its launch agent brought back within one.

    ``cause`` is why it ended, ``failed_s`` when, ``worker`` the rank that failed first where that is known.
    ``seconds`` is the time from ``failed_s`` to the first step after it (that it began; within an attempt: was
    committed), ``resumed_from_step`` the last step that was not lost (0: all were); both are None while no step
    has followed. ``layer`` is how the agent did it; None: it took another attempt.
    """

    cause: RecoveryCause
    failed_s: float
    seconds: float | None
    worker: int | None
    resumed_from_step: int | None
    layer: Layer | None = None


class TrainingSummary(Struct, frozen=True, kw_only=True, gc=False):
    """What a job has trained. Only steps that count are in it: each once, lost ones never. None is unknown.

    ``steps`` counts steps of the gang. ``losses`` has the mean loss over the ranks by step, the first and
    the last of which are ``first_loss`` and ``final_loss``. ``tokens`` is the sum over all ranks.
    ``tokens_per_s`` and ``model_flops_per_s`` are over the time in which at least one rank was in such a
    step; ``tokens_per_s_overall`` is over the job's life, from submit to end. ``mfu`` is the share of its
    ceiling that the devices reached in these steps; ``mfu_basis`` is what the ceiling rests on. ``stragglers`` are the
    workers that held the others up, ``divergences`` the replicas that went apart; None where the script does not look
    for them.
    """

    job_id: str
    steps: int | None
    first_loss: float | None
    final_loss: float | None
    tokens: int | None
    tokens_per_s: float | None
    tokens_per_s_overall: float | None
    model_flops_per_s: float | None
    mfu: float | None
    mfu_basis: str | None
    recoveries: tuple[Recovery, ...]
    losses: tuple[tuple[int, float], ...]
    stragglers: tuple[SlowWorker, ...] | None = None
    divergences: tuple[DivergedReplicas, ...] | None = None


class JobReport(Struct, frozen=True, kw_only=True, gc=False):
    """A job, what it has trained, its goodput, and where the whole fleet's compute went while it was there."""

    job: JobView
    training: TrainingSummary
    goodput: Goodput
    waterfall: Waterfall


def training_summary(
    record: JobRecord,
    progress: Progress,
    *,
    at_s: float,
    ceilings: Mapping[tuple[str, str], Ceiling],
) -> TrainingSummary:
    """Return what the job has trained by ``at_s``, which is now, or any later time once the job is over.

    ``progress`` has the messages of each attempt, ``ceilings`` those of one device by node id and dtype.
    ``mfu`` is unknown unless every step that counts has told its FLOPs and has a ceiling.
    """
    job = read_log(record, progress)
    steps = list(_kept(job))
    losses = _losses(job)
    tokens = _total(step.tokens for step in steps)
    flops = _total(step.model_flops for step in steps)
    in_steps_us = Times((to_us(step.start_s), to_us(step.end_s)) for step in steps).length
    life_s = (at_s if record.ended_s is None else record.ended_s) - record.submitted_s
    mfu, basis = _mfu(job, ceilings)
    is_measured = any(log.workers for log in job.attempts)
    return TrainingSummary(
        job_id=record.job.id,
        steps=len({step.step for step in steps}) if is_measured else None,
        first_loss=losses[0][1] if losses else None,
        final_loss=losses[-1][1] if losses else None,
        tokens=tokens,
        tokens_per_s=_rate(tokens, in_steps_us / US),
        tokens_per_s_overall=_rate(tokens, life_s),
        model_flops_per_s=_rate(flops, in_steps_us / US),
        mfu=mfu,
        mfu_basis=basis,
        recoveries=tuple(sorted(_recoveries(job.attempts), key=lambda recovery: recovery.failed_s)),
        losses=losses,
        stragglers=slow_workers(job),
        divergences=diverged_replicas(job),
    )


def _kept(job: JobLog) -> Iterator[StepCommitted]:
    for log in job.attempts:
        for worker in log.workers.values():
            yield from worker.kept_steps


def _total(amounts: Iterable[_Number | None]) -> _Number | None:
    """Return the sum; None when there is nothing, or when any part of it is unknown."""
    known = list(amounts)
    told = [amount for amount in known if amount is not None]
    return sum(told[1:], told[0]) if told and len(told) == len(known) else None


def _rate(amount: float | None, seconds: float) -> float | None:
    return None if amount is None or seconds <= 0 else amount / seconds


def _losses(job: JobLog) -> tuple[tuple[int, float], ...]:
    """Return the mean loss over the ranks by step; without steps that only a part of the gang has told yet."""
    means: dict[int, float] = {}
    for log in job.attempts:
        told: defaultdict[int, list[float]] = defaultdict(list)
        for worker in log.workers.values():
            for step in worker.kept_steps:
                if step.loss is not None:
                    told[step.step].append(step.loss)
        ranks = max((len(losses) for losses in told.values()), default=0)
        for number, losses in told.items():
            if len(losses) == ranks:
                means[number] = sum(losses) / ranks
    return tuple(sorted(means.items()))


def _mfu(job: JobLog, ceilings: Mapping[tuple[str, str], Ceiling]) -> tuple[float, str] | tuple[None, None]:
    """Return the share of the ceiling that was reached and what it rests on; None for both where unknown."""
    ideal_s = device_s = 0.0
    used: set[Ceiling] = set()
    for log in job.attempts:
        # What an attempt held counts, whatever the nodes are said to have by now.
        devices = {
            share.node_id: max(share.devices, default=-1) + 1 for share in log.attempt.placement.shares
        }
        gang = Gang(job.record.job, log, devices)
        for rank, worker in log.workers.items():
            steps = worker.kept_steps
            if not steps:
                continue
            flops = _total(step.model_flops for step in steps)
            parts = gang.ceilings_of(rank, worker.dtype, ceilings)
            for part, ceiling in parts:
                if flops is None or ceiling is None:
                    return None, None
                ideal_s += part * flops / ceiling.flops
                used.add(ceiling)
            device_s += _in_steps_s(steps) * sum(gang.milli) / (MILLI * gang.workers)
    if device_s == 0 or ideal_s > device_s:
        return None, None  # More FLOPs than the ceiling allows: one of the two is wrong.
    return ideal_s / device_s, ceiling_text(used)


def _in_steps_s(steps: Iterable[StepCommitted]) -> float:
    return Times((to_us(step.start_s), to_us(step.end_s)) for step in steps).length / US


def _recoveries(attempts: Sequence[AttemptLog]) -> Iterator[Recovery]:
    for log in attempts:
        yield from (_within(said, log) for said in log.recoveries if said.layer is not Layer.GROW)
    for index, log in enumerate(attempts[:-1]):
        outcome, ended_s = log.attempt.outcome, log.attempt.ended_s
        assert outcome is not None, "an attempt that another follows has ended"
        assert ended_s is not None, "an attempt that another follows has ended"
        failed_s = ended_s if log.failed_s is None else log.failed_s
        later = attempts[index + 1 :]
        first_step_s = next((s for each in later if (s := each.first_step_s) is not None), None)
        yield Recovery(
            cause=RecoveryCause(outcome.cause.value),
            failed_s=failed_s,
            seconds=None if first_step_s is None else max(0.0, first_step_s - failed_s),
            worker=log.failed_rank,
            resumed_from_step=next((s for each in later if (s := each.resumed_from_step) is not None), None),
        )


def _within(said: Recovered, log: AttemptLog) -> Recovery:
    """Return a recovery within an attempt. What no worker has failed of is the loss of a node."""
    failed_s = said.verdict_s - (said.detect_s or 0.0)
    seconds = said.at_s - failed_s
    workers = log.workers.values()
    restored = [each.step for worker in workers for each in worker.restored if each.at_s >= failed_s]
    steps = [each.step for worker in workers for each in worker.steps if each.start_s >= failed_s]
    return Recovery(
        cause=_cause(said),
        failed_s=failed_s,
        seconds=seconds,
        worker=said.rank if said.rank >= 0 else None,
        resumed_from_step=restored[0] if restored else max(0, min(steps) - 1) if steps else None,
        layer=said.layer,
    )


def _cause(said: Recovered) -> RecoveryCause:
    if said.is_straggler:
        return RecoveryCause.STRAGGLER
    if said.rank < 0:
        return RecoveryCause.NODE_LOST
    if said.is_oom_kill:
        return RecoveryCause.OOM_KILL
    is_error = said.signal is None and (said.exit_code or 0) <= _SHELL_SIGNAL_BASE
    return RecoveryCause.USER_ERROR if is_error else RecoveryCause.SIGNAL
