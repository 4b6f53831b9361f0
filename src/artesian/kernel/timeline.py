"""What a worker's time went into, from the start of its attempt to the end: no moment twice, none left out.

What is known of a moment is laid down in layers, and the highest layer that covers it says what it was:

========== ============================================================ ================================
layer      from, to                                                     is
========== ============================================================ ================================
failed     the failure, the end                                         recovery
restored   a restore, in the first attempt                              restore
boot       the decision, the first step                                 start-up, or recovery in a later
                                                                        attempt (restores included)
phases     restore, checkpoint stall, evaluation, data wait, as told    that
lost       a step that is not kept                                      lost work
waited     the end of a step that is kept, as long as a slower worker   straggler
           is known to have held it up
kept       a step that is kept                                          productive
detected   the last sign of life, the verdict; of a recovery within the detection
           attempt
recovered  the verdict, the first new step after it                     recovery
           the last step before it, the verdict                         lost work
base       the first step, the last                                     between steps
tail       the last step, the end or the failure                        wind-down; lost work before a
                                                                        failure; see below
========== ============================================================ ================================

While an attempt runs, a step is under way that nobody has told of yet: the tail is productive so far, for as
long as the attempt's longest step took; beyond that it is between steps.
"""

import heapq
from operator import itemgetter

from msgspec import Struct

from artesian.kernel.progress import AttemptLog, WorkerLog
from artesian.kernel.stragglers import waits_s
from artesian.model.job import Cause
from artesian.model.ledger import Loss, to_us
from artesian.wire import Phase

NO_STEP = -1
"""The step of a piece of time that belongs to no committed step."""

_BASE, _RECOVERED, _DETECTED, _KEPT, _WAITED, _LOST, _FIRST_PHASE = range(7)
_PHASES = {
    Phase.DATA_WAIT: Loss.DATA_WAIT,
    Phase.EVALUATION: Loss.EVALUATION,
    Phase.CHECKPOINT_STALL: Loss.CHECKPOINT_STALL,
    Phase.RESTORE: Loss.RESTORE,
}
"""Phases that are losses of their own, the more telling later. Start-up is what lies before the first step."""
_LAYERS = {phase: _FIRST_PHASE + index for index, phase in enumerate(_PHASES)}
_BOOT = _FIRST_PHASE + len(_PHASES)
_RESTORED = _BOOT + 1
_FAILED = _BOOT + 2


class Piece(Struct, gc=False):
    """A piece of a worker's time. ``loss`` is None where it was productive.

    ``step`` is the index of the kept step that it belongs to, ``NO_STEP`` for none.
    """

    start_us: int
    end_us: int
    loss: Loss | None
    step: int = NO_STEP


_ASKED_TO_GO = (Cause.CANCELLED, Cause.PREEMPTED, Cause.RESIZED)

_Layered = tuple[int, int, int, Loss | None, int]
"""Start, end, layer, loss, step."""


def pieces(log: AttemptLog, worker: WorkerLog, *, end_us: int) -> list[Piece]:
    """Return the worker's time in order: it covers the attempt from its decision to its end, exactly.

    ``end_us`` is the end of an attempt that has not ended yet. The messages may overlap, lie outside of
    the attempt or end before they start: what is counted never does.
    """
    attempt = log.attempt
    start = to_us(attempt.decided_s)
    end = max(start, end_us if attempt.ended_s is None else to_us(attempt.ended_s))
    failed = end if log.failed_s is None else min(max(to_us(log.failed_s), start), end)
    layered = [
        *_steps(worker),
        *_waits(log, worker),
        *_recoveries(log, worker),
        *_phases(worker, is_first_attempt=attempt.epoch == 1),
        *_frame(log, worker, start, failed, end),
    ]
    clipped = [
        (max(start, first), min(end, last), layer, loss, step)
        for first, last, layer, loss, step in layered
        if first < end and last > start and first < last
    ]
    return _highest(clipped)


def _steps(worker: WorkerLog) -> list[_Layered]:
    return [
        (to_us(step.start_s), to_us(step.end_s), _KEPT, None, index)
        if kept
        else (to_us(step.start_s), to_us(step.end_s), _LOST, Loss.LOST_WORK, NO_STEP)
        for index, (step, kept) in enumerate(zip(worker.steps, worker.is_kept, strict=True))
    ]


def _waits(log: AttemptLog, worker: WorkerLog) -> list[_Layered]:
    """Return by how much the worker's kept steps were longer for slower workers: at their end, in the collectives."""
    layered: list[_Layered] = []
    for index, wait_s in waits_s(log, worker).items():
        if worker.is_kept[index]:
            step = worker.steps[index]
            start, end = to_us(step.start_s), to_us(step.end_s)
            layered.append((max(start, end - to_us(wait_s)), end, _WAITED, Loss.STRAGGLER, NO_STEP))
    return layered


def _recoveries(log: AttemptLog, worker: WorkerLog) -> list[_Layered]:
    """Return what recoveries within the attempt took: steps that were trained again in them are steps."""
    layered: list[_Layered] = []
    for said in log.recoveries:
        verdict_s = said.verdict_s
        alive_s = verdict_s - (said.detect_s or 0.0)
        last_s = max((step.end_s for step in worker.steps if step.end_s <= verdict_s), default=alive_s)
        layered.append((to_us(last_s), to_us(verdict_s), _RECOVERED, Loss.LOST_WORK, NO_STEP))
        layered.append((to_us(alive_s), to_us(verdict_s), _DETECTED, Loss.DETECTION, NO_STEP))
        layered.append((to_us(verdict_s), to_us(said.at_s), _RECOVERED, Loss.RECOVERY, NO_STEP))
    return layered


def _phases(worker: WorkerLog, *, is_first_attempt: bool) -> list[_Layered]:
    layered: list[_Layered] = []
    for said in worker.phases:
        loss = _PHASES.get(said.phase)
        if loss is None:
            continue
        is_own = is_first_attempt and loss is Loss.RESTORE
        layer = _RESTORED if is_own else _LAYERS[said.phase]
        layered.append((to_us(said.start_s), to_us(said.end_s), layer, loss, NO_STEP))
    return layered


def _frame(log: AttemptLog, worker: WorkerLog, start: int, failed: int, end: int) -> list[_Layered]:
    """Return what holds where nothing else is known; together it covers [start, end)."""
    boot = Loss.START_UP if log.attempt.epoch == 1 else Loss.RECOVERY
    after: _Layered = (failed, end, _FAILED, Loss.RECOVERY, NO_STEP)
    if not worker.steps:
        return [(start, failed, _BOOT, boot, NO_STEP), after]
    first = max(start, min(to_us(step.start_s) for step in worker.steps))
    last = max(first, to_us(worker.steps[-1].end_s))
    frame: list[_Layered] = [
        (start, first, _BOOT, boot, NO_STEP),
        (first, last, _BASE, Loss.BETWEEN_STEPS, NO_STEP),
        after,
    ]
    if log.failed_s is not None:
        frame.append((last, failed, _BASE, Loss.LOST_WORK, NO_STEP))
    elif log.attempt.ended_s is not None or log.attempt.stop_cause in _ASKED_TO_GO:
        frame.append((last, end, _BASE, Loss.WIND_DOWN, NO_STEP))
    else:
        longest = max(to_us(step.end_s) - to_us(step.start_s) for step in worker.steps)
        overdue = last + max(0, longest)
        frame.append((last, overdue, _BASE, None, NO_STEP))
        frame.append((overdue, end, _BASE, Loss.BETWEEN_STEPS, NO_STEP))
    return frame


def _highest(layered: list[_Layered]) -> list[Piece]:
    """Return, for every moment that any of ``layered`` covers, the highest (of equals: the latest begun)."""
    layered.sort(key=itemgetter(0))
    found: list[Piece] = []
    covering: list[tuple[int, int, int, int]] = []  # -layer, -start, end, index; a heap
    count = len(layered)
    now = upcoming = 0
    while upcoming < count or covering:
        while covering and covering[0][2] <= now:
            heapq.heappop(covering)
        if not covering:
            if upcoming == count:
                break
            now = layered[upcoming][0]
        while upcoming < count and layered[upcoming][0] <= now:
            start, end, layer, _, _ = layered[upcoming]
            heapq.heappush(covering, (-layer, -start, end, upcoming))
            upcoming += 1
        if covering[0][2] <= now:
            continue
        _, _, end, index = covering[0]
        until = end if upcoming == count else min(end, layered[upcoming][0])
        found.append(Piece(now, until, *layered[index][3:]))
        now = until
    return found
