"""Workers that computed slower than the others: what was told of them, and how long the others waited."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from artesian.kernel.gang import Gang
from artesian.kernel.progress import AttemptLog, JobLog, WorkerLog
from artesian.model.stragglers import SlowWorker
from artesian.wire import Layer, StepCommitted, StragglerFound

_OVERDUE_WINDOWS = 3
"""The word on a window comes with the end of the next: so many windows without one, and the worker is slow no more."""
_RESEATED = (Layer.SPARE, Layer.SHRINK, Layer.GROW)
"""What may put a rank on another node than the placement says."""

_Indices = Mapping[int, Sequence[int]]
"""Of a worker's steps in order of time, which have this number."""


def waits_s(log: AttemptLog, worker: WorkerLog) -> dict[int, float]:
    """Return how many seconds the worker waited for slower ones in its steps, by index; the others are left out.

    Of several slow ones the slowest counts, less what the worker itself computed longer than the middle one. What
    was told of a window is spread over its steps by their length, and never more than that.
    """
    if not log.stragglers:
        return {}
    indices = _indices(worker)
    held_up: dict[int, float] = {}
    own: dict[int, float] = {}
    for said in log.stragglers:
        found = own if said.rank == worker.rank else held_up
        for index, excess_s in _excess(said, worker.steps, indices):
            found[index] = max(found.get(index, 0.0), excess_s)
    return {
        index: excess_s - own.get(index, 0.0)
        for index, excess_s in held_up.items()
        if excess_s > own.get(index, 0.0)
    }


def slow_workers(job: JobLog) -> tuple[SlowWorker, ...] | None:
    """Return the workers that were slow, by attempt and rank; None where no worker has said that it looks for them."""
    seeks = [worker.seeks_stragglers for log in job.attempts for worker in log.workers.values()]
    found = [slow for log in job.attempts for slow in _of_attempt(job, log)]
    return tuple(found) if found or any(seeks) else None


def slow_now(found: Sequence[SlowWorker] | None) -> tuple[SlowWorker, ...] | None:
    """Return those that still are."""
    return None if found is None else tuple(slow for slow in found if slow.is_now)


def _of_attempt(job: JobLog, log: AttemptLog) -> Iterator[SlowWorker]:
    words: defaultdict[int, list[StragglerFound]] = defaultdict(list)
    for said in sorted(log.stragglers, key=lambda said: (said.at_s, said.step)):
        words[said.rank].append(said)
    for rank, told in sorted(words.items()):
        worker = log.workers.get(rank) or WorkerLog(rank=rank)
        indices = _indices(worker)
        streak = _last_streak(told)
        first, last = (
            _window(streak[0], worker.steps, indices, streak[0].steps),
            _window(streak[-1], worker.steps, indices, 1),
        )
        excesses = [said.excess_s for said in streak if said.excess_s is not None]
        node, place = _place(job, log, rank)
        yield SlowWorker(
            worker=rank,
            epoch=log.attempt.epoch,
            since_s=worker.steps[first[0]].start_s if first else streak[0].at_s,
            until_s=worker.steps[last[-1]].end_s if last else streak[-1].at_s,
            ratio=streak[-1].ratio,
            wait_s=sum(excesses) if excesses else None,
            node=node,
            place=place,
            has_other_nodes=len(log.attempt.placement.shares) > 1,
            is_now=_is_now(job, log, worker, streak[-1], last),
        )


def _last_streak(told: Sequence[StragglerFound]) -> Sequence[StragglerFound]:
    """Return the last words of which each goes on from the one before."""
    begin = len(told) - 1
    while begin > 0 and told[begin - 1].steps < told[begin].steps:
        begin -= 1
    return told[begin:]


def _is_now(job: JobLog, log: AttemptLog, worker: WorkerLog, said: StragglerFound, last: range) -> bool:
    if log is not job.attempts[-1] or log.attempt.ended_s is not None:
        return False
    if any(one.at_s >= said.at_s for one in log.recoveries):
        return False
    since = len(worker.steps) - 1 - last[-1] if last else 0
    return since < _OVERDUE_WINDOWS * (said.window or said.steps)


def _place(job: JobLog, log: AttemptLog, rank: int) -> tuple[str | None, str | None]:
    """Return the node and the devices of a worker; None where they are not known, or not on one node."""
    if any(said.layer in _RESEATED for said in log.recoveries):
        return None, None
    devices = {share.node_id: max(share.devices, default=-1) + 1 for share in log.attempt.placement.shares}
    places = Gang(job.record.job, log, devices).places(rank)
    if len(places) != 1:
        return None, None
    return places[0].node_id, f"{places[0].node_id}[{','.join(map(str, places[0].devices))}]"


def _indices(worker: WorkerLog) -> _Indices:
    indices: defaultdict[int, list[int]] = defaultdict(list)
    for index, step in enumerate(worker.steps):
        indices[step.step].append(index)
    return indices


def _window(said: StragglerFound, steps: Sequence[StepCommitted], indices: _Indices, count: int) -> range:
    """Return the last ``count`` steps that ``said`` is about, by index; none where they are not known.

    They end with the last of its number that had ended when it was said: of steps that were trained again, it is
    the try that the word was about.
    """
    last = next((n for n in reversed(indices.get(said.step, ())) if steps[n].end_s <= said.at_s), None)
    return range(0) if last is None else range(max(0, last + 1 - count), last + 1)


def _excess(
    said: StragglerFound, steps: Sequence[StepCommitted], indices: _Indices
) -> Iterator[tuple[int, float]]:
    """Yield the steps of a worker that ``said`` is about, by index, with the seconds of excess in each."""
    if not said.window or said.window < 0 or not said.excess_s or said.excess_s < 0:
        return
    window = _window(said, steps, indices, said.window)
    lengths = [max(0.0, steps[index].end_s - steps[index].start_s) for index in window]
    total_s = sum(lengths)
    if total_s == 0:
        return
    known_s = said.excess_s * len(window) / said.window  # of steps that were not told, nothing is said here
    share = min(1.0, known_s / total_s)
    yield from ((index, share * length) for index, length in zip(window, lengths, strict=True))
