"""The ledger behind the waterfall: every device-second that was owned, by what became of it.

Amounts add up by construction: what a worker's time went into is a partition of it (``timeline``), a
worker's devices are a partition of its attempt's (``gang``), and the rest of a node is idle or waited for.
They are counted in whole thousandths of a device times microseconds and rounded once, at the end, so that a
figure is off by less than a microsecond per stage and the sums are exact.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from msgspec import Struct, field

from artesian.kernel.gang import Gang
from artesian.kernel.intervals import Times
from artesian.kernel.lifecycle import JobRecord, JobState
from artesian.kernel.notes import ceiling_note, unknown_flops_notes
from artesian.kernel.progress import AttemptLog, JobLog, Progress, WorkerLog, read_log
from artesian.kernel.state import State
from artesian.kernel.timeline import NO_STEP, Piece, pieces
from artesian.model.ledger import US, Ceiling, Loss, Stage, StageResult, Waterfall, to_us
from artesian.model.resources import MILLI

Ceilings = Mapping[tuple[str, str], Ceiling]
"""The ceiling of one device by node id and dtype."""

_ROUNDING = 1e-9
"""How far a sum of FLOPs, which are floats, can be off."""

_K = TypeVar("_K", bound=Hashable)


def waterfall(
    state: State,
    progress: Progress,
    *,
    start_s: float,
    end_s: float,
    ceilings: Ceilings,
    is_simulated: bool,
    waited: Iterable[tuple[float, float | None]] | None = None,
) -> Waterfall:
    """Return where the device-seconds from ``start_s`` up to ``end_s`` went.

    Nameplate is every node's devices, as they are known now, from when the node joined. ``progress`` has
    the messages of each attempt, in any order; an attempt without any is held, but unmeasured. What came
    after ``end_s`` still tells: a step in the window that was lost later is lost work.

    ``productive`` is unknown when devices were held and no worker reported at all. ``model_flops`` is unknown
    unless every step that counts has told its FLOPs and has a ceiling: a mean over some of the work would pass
    for all of it. It is also unknown when a worker claims more FLOPs than its ceiling allows. A step that is
    still under way has done no FLOPs yet. ``notes`` say which of these holds.

    ``waited`` is when at least one job waited, from and up to (None: one still does), for a caller who keeps
    book of it; jobs that never had an attempt may then be left out of ``state``.

    Raises ValueError if the window ends before it starts.
    """
    if end_s < start_s:
        raise ValueError(f"the window must not end before it starts, got {start_s} to {end_s}")
    start, end = to_us(start_s), to_us(end_s)
    owned, up, shut = _owned_up_and_shut(state, start, end)
    devices = {node_id: record.node.devices for node_id, record in state.nodes.items()}
    tally = _Tally(waited=_waited(state, end) if waited is None else _times(waited, end))
    for record in state.records(ended_after_s=start_s):
        if any(_is_in(a.decided_s, a.ended_s, start, end) for a in record.attempts):
            for log in read_log(record, progress).attempts:
                if _is_in(log.attempt.decided_s, log.attempt.ended_s, start, end):
                    _count(tally, record, log, up=up, shut=shut, devices=devices, end=end, ceilings=ceilings)

    nameplate_us = sum(devices[node_id] * times.length for node_id, times in owned.items())
    up_us = sum(devices[node_id] * times.length for node_id, times in up.items())
    waited_milli = sum(
        MILLI * devices[node_id] * tally.waited.length_within(*interval)
        for node_id, times in up.items()
        for interval in (times.without(shut[node_id]) if node_id in shut else times)
    )
    waiting = waited_milli - tally.held_while_waited
    shut_milli = MILLI * sum(devices[node_id] * times.length for node_id, times in shut.items())
    excluded = shut_milli - tally.held_while_shut
    free = {Loss.WAITING: waiting, Loss.IDLE: MILLI * up_us - tally.held - excluded - waiting}
    gone = {Loss.NODE_LOST: MILLI * (nameplate_us - up_us), Loss.EXCLUDED: excluded}
    healthy = _stage(Stage.HEALTHY, nameplate_us, gone)
    assert healthy.left_us is not None
    allocated = _stage(Stage.ALLOCATED, healthy.left_us, free, tally.held)
    productive = _productive(tally, allocated.left_us)
    model_flops, why_unknown = _model_flops(tally, productive.left_us, state)
    return Waterfall(
        nameplate_us=nameplate_us,
        stages=(healthy, allocated, productive, model_flops),
        is_simulated=is_simulated,
        notes=(*_notes(tally, productive), *why_unknown),
    )


def held_by_job(
    state: State, record: JobRecord, job: JobLog, *, start_s: float, end_s: float
) -> dict[Loss | None, int] | None:
    """Return what the device time of one job's attempts went into between two times; None is productive.

    Amounts are device-microseconds, each of which has one cause; None where devices were held and no worker
    reported at all.
    """
    start, end = to_us(start_s), to_us(end_s)
    _, up, _ = _owned_up_and_shut(state, start, end)
    devices = {node_id: node.node.devices for node_id, node in state.nodes.items()}
    tally = _Tally(waited=Times())
    for log in job.attempts:
        if _is_in(log.attempt.decided_s, log.attempt.ended_s, start, end):
            _count(tally, record, log, up=up, shut={}, devices=devices, end=end, ceilings={})
    if tally.held and not tally.reports:
        return None
    parts: dict[Loss | None, int] = {None: tally.productive, **dict(tally.lost.items())}
    return _apportion(parts, MILLI, tally.held // MILLI)


def _owned_up_and_shut(
    state: State, start: int, end: int
) -> tuple[dict[str, Times], dict[str, Times], dict[str, Times]]:
    """Return when each node was owned; when it was there; and, of those that ever were, when it was there and
    excluded.
    """
    owned = {
        node_id: Times([(max(start, to_us(record.joined_s)), end)]) for node_id, record in state.nodes.items()
    }
    up = {
        node_id: owned[node_id].without(
            Times((to_us(o.start_s), end if o.end_s is None else to_us(o.end_s)) for o in record.outages)
        )
        for node_id, record in state.nodes.items()
    }
    shut = {
        node_id: up[node_id].within(
            Times((to_us(e.start_s), end if e.end_s is None else to_us(e.end_s)) for e in record.exclusions)
        )
        for node_id, record in state.nodes.items()
        if record.exclusions
    }
    return owned, up, shut


class _Tally(Struct, kw_only=True, gc=False):
    """What the attempts add up to, in thousandths of a device times microseconds."""

    waited: Times
    held: int = 0
    held_while_waited: int = 0
    """Held on nodes that were not excluded, while a job waited."""
    held_while_shut: int = 0
    """Held on nodes that were excluded."""
    productive: int = 0
    lost: dict[Loss, int] = field(default_factory=dict)
    at_ceiling: int = 0
    reports: bool = False
    is_flops_missing: bool = False
    ceilings: dict[Ceiling, set[str]] = field(default_factory=dict)
    """The ceilings that were used, and the nodes that they are of."""
    no_ceiling: set[tuple[str, str | None]] = field(default_factory=set)
    """Nodes and dtypes for which there is none."""
    above_ceiling: set[str] = field(default_factory=set)
    """Jobs that claim more FLOPs than their ceiling allows."""


def _is_in(decided_s: float, ended_s: float | None, start: int, end: int) -> bool:
    return to_us(decided_s) < end and (ended_s is None or to_us(ended_s) > start)


def _waited(state: State, end: int) -> Times:
    """Return when at least one job waited."""
    intervals = []
    for record in state.records():
        changes = record.history
        for index, change in enumerate(changes):
            if change.state in (JobState.QUEUED, JobState.BACKING_OFF):
                until = to_us(changes[index + 1].at_s) if index + 1 < len(changes) else end
                intervals.append((to_us(change.at_s), until))
    return Times(intervals)


def _times(waited: Iterable[tuple[float, float | None]], end: int) -> Times:
    return Times((to_us(from_s), end if to_s is None else to_us(to_s)) for from_s, to_s in waited)


def _count(
    tally: _Tally,
    record: JobRecord,
    log: AttemptLog,
    *,
    up: Mapping[str, Times],
    shut: Mapping[str, Times],
    devices: Mapping[str, int],
    end: int,
    ceilings: Ceilings,
) -> None:
    """Add one attempt to the tally."""
    attempt = log.attempt
    gang = Gang(record.job, log, devices)
    until = end if attempt.ended_s is None else to_us(attempt.ended_s)
    held = [up[node_id].clipped(to_us(attempt.decided_s), until) for node_id in gang.nodes]
    total = sum(milli * times.length for milli, times in zip(gang.milli, held, strict=True))
    if total == 0:
        return
    tally.held += total
    for node_id, milli, times in zip(gang.nodes, gang.milli, held, strict=True):
        in_use = times.without(shut[node_id]) if node_id in shut else times
        tally.held_while_shut += milli * (times.length - in_use.length)
        tally.held_while_waited += sum(milli * tally.waited.length_within(*interval) for interval in in_use)
    tally.reports |= bool(log.workers)
    parts: dict[Loss | None, int] = {Loss.UNMEASURED: total * gang.workers}
    ideal_s = 0.0
    for rank, worker in log.workers.items():
        seats = gang.seats(rank)
        timeline = pieces(log, worker, end_us=end)
        for (index, weight), (part, ceiling) in zip(
            seats, gang.ceilings_of(rank, worker.dtype, ceilings), strict=True
        ):
            use = _use(worker, timeline, held[index])
            parts[Loss.UNMEASURED] -= weight * held[index].length
            for loss, length in use.lengths.items():
                parts[loss] = parts.get(loss, 0) + weight * length
            tally.is_flops_missing |= use.is_flops_missing
            if use.model_flops is None:
                continue
            if ceiling is None:
                tally.no_ceiling.add((gang.nodes[index], worker.dtype))
            else:
                tally.ceilings.setdefault(ceiling, set()).add(gang.nodes[index])
                ideal_s += part * use.model_flops / ceiling.flops
    whole = _apportion(parts, gang.workers, total)
    productive = whole.pop(None, 0)
    tally.productive += productive
    for cause, amount in whole.items():
        assert cause is not None
        tally.lost[cause] = tally.lost.get(cause, 0) + amount
    if ideal_s * US * MILLI > productive * (1 + _ROUNDING):
        tally.above_ceiling.add(record.job.id)
    tally.at_ceiling += min(productive, round(ideal_s * US * MILLI))


class _Use(Struct, kw_only=True, gc=False):
    """What a worker's time in some part of the window went into; None is productive.

    ``model_flops`` is None when no step in it told any.
    """

    lengths: dict[Loss | None, int] = field(default_factory=dict)
    model_flops: float | None = None
    is_flops_missing: bool = False


def _use(worker: WorkerLog, timeline: list[Piece], times: Times) -> _Use:
    """Return the part of ``timeline`` in ``times``. A step's FLOPs are spread evenly over its productive time."""
    lengths: dict[Loss | None, int] = {}
    step_us = [0] * len(worker.steps)
    for piece in timeline:
        if piece.step != NO_STEP:
            step_us[piece.step] += piece.end_us - piece.start_us
    use = _Use(lengths=lengths)
    intervals = list(times)
    first = 0
    for piece in timeline:
        while first < len(intervals) and intervals[first][1] <= piece.start_us:
            first += 1
        index = first
        while index < len(intervals) and intervals[index][0] < piece.end_us:
            start, end = intervals[index]
            length = min(end, piece.end_us) - max(start, piece.start_us)
            index += 1
            lengths[piece.loss] = lengths.get(piece.loss, 0) + length
            if piece.loss is not None:
                continue
            flops = worker.steps[piece.step].model_flops  # under way: whether the last step told any
            if flops is None:
                use.is_flops_missing = True
            else:
                done = 0.0 if piece.step == NO_STEP else flops * length / step_us[piece.step]
                use.model_flops = (use.model_flops or 0.0) + done
    return use


def _apportion(parts: Mapping[_K, int], divisor: int, total: int) -> dict[_K, int]:
    """Return ``parts`` divided by ``divisor``, as whole numbers that add up to ``total``.

    Each is rounded down or up; up goes first where most was cut off. ``total`` must be the exact sum
    rounded down or up. What is 0 stays 0.
    """
    whole = {key: amount // divisor for key, amount in parts.items() if amount}
    missing = total - sum(whole.values())
    for key in sorted(whole, key=lambda key: -(parts[key] % divisor))[:missing]:
        assert parts[key] % divisor, f"{parts} over {divisor} cannot add up to {total}"
        whole[key] += 1
    return {key: amount for key, amount in whole.items() if amount}


def _stage(stage: Stage, came_in_us: int, lost: Mapping[Loss, int], left: int | None = None) -> StageResult:
    """Return a stage's result; ``lost`` and ``left`` (None: the rest) in thousandths of microseconds."""
    rest = MILLI * came_in_us - sum(lost.values()) if left is None else left
    parts: dict[Loss | None, int] = {None: rest}
    parts.update(lost.items())
    whole = _apportion(parts, MILLI, came_in_us)
    left_us = whole.pop(None, 0)
    return StageResult(
        stage=stage,
        left_us=left_us,
        lost_us={cause.value: amount for cause, amount in whole.items() if cause is not None},
    )


def _unknown(stage: Stage) -> StageResult:
    return StageResult(stage=stage, left_us=None, lost_us={})


def _productive(tally: _Tally, allocated_us: int | None) -> StageResult:
    assert allocated_us is not None
    if tally.held and not tally.reports:
        return _unknown(Stage.PRODUCTIVE)
    return _stage(Stage.PRODUCTIVE, allocated_us, tally.lost, tally.productive)


def _model_flops(
    tally: _Tally, productive_us: int | None, state: State
) -> tuple[StageResult, tuple[str, ...]]:
    if productive_us is None:
        return _unknown(Stage.MODEL_FLOPS), ()
    if tally.is_flops_missing or tally.no_ceiling or tally.above_ceiling:
        return _unknown(Stage.MODEL_FLOPS), unknown_flops_notes(
            is_flops_missing=tally.is_flops_missing,
            no_ceiling=tally.no_ceiling,
            above_ceiling=tally.above_ceiling,
        )
    below = {Loss.BELOW_CEILING: tally.productive - tally.at_ceiling}
    note = ceiling_note(
        {
            ceiling: any(state.nodes[node_id].node.peak_flops is not None for node_id in nodes)
            for ceiling, nodes in tally.ceilings.items()
        }
    )
    return _stage(Stage.MODEL_FLOPS, productive_us, below, tally.at_ceiling), note


def _notes(tally: _Tally, productive: StageResult) -> tuple[str, ...]:
    if productive.left_us is None:
        return ("productive and model FLOPs are unknown: no worker reported its progress",)
    if Loss.UNMEASURED in tally.lost:
        return ("unmeasured: held for workers that reported nothing; it may or may not have been productive",)
    return ()
