"""What a job's workers told of its training, as the curves of its page: read and added up beside the event loop."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artesian.kernel.lifecycle import JobRecord
from artesian.kernel.progress import read_log
from artesian.kernel.training import TrainingSummary, training_summary
from artesian.server.config import StateDir
from artesian.server.report import ceilings_in, read_progress
from artesian.wire import StepCommitted

MOST_POINTS = 500
Points = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """The summary, and by step tokens/s and MFU of the gang; a curve of what was not told has no points."""

    summary: TrainingSummary
    tokens_per_s: Points
    mfu: Points


def read_curves(dir_: StateDir, record: JobRecord, at_s: float) -> Curves:
    """Return the curves of a job by ``at_s``. Reads all that its workers said."""
    progress = read_progress(dir_.jobs, [record])
    summary = training_summary(record, progress, at_s=at_s, ceilings=ceilings_in(dir_.census))
    kept = [
        step
        for log in read_log(record, progress).attempts
        for worker in log.workers.values()
        for step in worker.kept_steps
    ]
    return Curves(
        summary=summary,
        tokens_per_s=thinned(tokens_per_s(kept)),
        mfu=thinned(mfu_by_step(kept, summary.mfu)),
    )


def tokens_per_s(steps: Sequence[StepCommitted]) -> Points:
    """Return the tokens of all ranks in each step by the time from its first begin to its last end."""
    found = []
    for number, parts in _by_number(steps):
        told = [step.tokens for step in parts if step.tokens is not None]
        seconds = max(step.end_s for step in parts) - min(step.start_s for step in parts)
        if len(told) == len(parts) and seconds > 0:
            found.append((number, sum(told) / seconds))
    return tuple(found)


def mfu_by_step(steps: Sequence[StepCommitted], mean: float | None) -> Points:
    """Return the MFU of each step, given that of all steps: against the mean ceiling of the job's ranks.

    That ceiling is what makes ``mean`` of all FLOPs in all seconds of the ranks.
    """
    if not mean:
        return ()
    flops = sum(step.model_flops or 0.0 for step in steps)
    ceiling = flops / (mean * sum(step.end_s - step.start_s for step in steps))
    found = []
    for number, parts in _by_number(steps):
        told = [step.model_flops for step in parts if step.model_flops is not None]
        seconds = sum(step.end_s - step.start_s for step in parts)
        if len(told) == len(parts) and seconds > 0:
            found.append((number, sum(told) / (seconds * ceiling)))
    return tuple(found)


def thinned(points: Sequence[tuple[int, float]], most: int = MOST_POINTS) -> Points:
    """Return up to ``most`` of the points, evenly, with the first and the last."""
    if len(points) <= most:
        return tuple(points)
    return tuple(points[round(place * (len(points) - 1) / (most - 1))] for place in range(most))


def _by_number(steps: Sequence[StepCommitted]) -> list[tuple[int, list[StepCommitted]]]:
    by_number: defaultdict[int, list[StepCommitted]] = defaultdict(list)
    for step in steps:
        by_number[step.step].append(step)
    return sorted(by_number.items())


def read_tail(path: Path, most_bytes: int) -> str:
    """Return the last lines of a file that has lines of text, or of what begins as such; "" where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most_bytes))
            data = file.read(most_bytes)
    except FileNotFoundError:
        return ""
    if size > most_bytes:
        data = data.partition(b"\n")[2] or data
    return data.decode(errors="replace")
