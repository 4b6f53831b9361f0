"""Which samples a job has used: one position that the job owns, whatever ranks come and go.

A cursor is a value: taking samples gives a new one. So what was handed out and what is committed are two
cursors, a rollback is an assignment, and a prefetcher may run ahead with a third.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from artesian.train.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The samples of a job, counted on from pass to pass: those before ``position`` are used or passed over.

    ``excluded`` are ranges of positions to pass over, in order, disjoint, none before ``position``;
    ``excluded_samples`` counts the samples that were passed over before it.
    """

    position: int = 0
    excluded: tuple[range, ...] = ()
    excluded_samples: int = 0

    def take(self, count: int) -> tuple["Taken", Self]:
        """Return the next ``count`` samples that are not excluded, and the cursor after them.

        Raises ValueError unless count is positive.
        """
        if count < 1:
            raise ValueError(f"count must be positive, got {count}")
        ranges: list[range] = []
        position, passed, missing = self.position, self.excluded_samples, count
        ahead = list(self.excluded)
        while missing:
            end = min(position + missing, ahead[0].start) if ahead else position + missing
            if end > position:
                ranges.append(range(position, end))
                missing -= end - position
            position = end
            if missing:  # else: what is excluded next stays ahead, to be counted when it is passed
                gap = ahead.pop(0)
                position, passed = gap.stop, passed + len(gap)
        after = type(self)(position=position, excluded=tuple(ahead), excluded_samples=passed)
        return Taken(ranges=tuple(ranges)), after

    def excluding(self, ranges: Iterable[range]) -> Self:
        """Return a cursor that passes over ``ranges``, too; what lies before ``position`` is left out."""
        wanted = sorted((max(each.start, self.position), each.stop) for each in (*self.excluded, *ranges))
        merged: list[tuple[int, int]] = []
        for start, stop in wanted:
            if stop <= start:
                continue
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        return replace(self, excluded=tuple(range(start, stop) for start, stop in merged))

    def having_excluded(self, samples: int) -> Self:
        """Return a cursor here that counts so many of the samples before it as passed over."""
        return replace(self, excluded_samples=self.excluded_samples + samples)

    def state_dict(self) -> dict[str, Any]:
        """Return the cursor as plain data, for a checkpoint."""
        return {
            "position": self.position,
            "excluded": [[each.start, each.stop] for each in self.excluded],
            "excluded_samples": self.excluded_samples,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the cursor that ``state_dict`` was made of. Raises DataError where it is none."""
        try:
            return cls(
                position=int(state["position"]),
                excluded=tuple(range(start, stop) for start, stop in state["excluded"]),
                excluded_samples=int(state["excluded_samples"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"the position in the data is damaged: {error!r}", hint="go back to an older checkpoint"
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The samples of one global batch, as ranges of positions in order."""

    ranges: tuple[range, ...]

    def __len__(self) -> int:
        return sum(len(each) for each in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for each in self.ranges:
            yield from each

    def slice(self, start: int, stop: int) -> list[int]:
        """Return the positions of the samples ``start`` up to ``stop`` of the batch."""
        found: list[int] = []
        for each in self.ranges:
            found += each[max(0, start) : max(0, stop)]
            start, stop = start - len(each), stop - len(each)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one rank trains on between two backward passes. ``positions`` are samples.

    ``weight`` is what the rank's mean loss is multiplied with, so that the gradient, once averaged over the
    ranks, is the mean over all samples of the global batch: share of samples × world size. It is 1 where
    the batch splits evenly. A rank for which nothing is left gets one sample with weight 0: it must take part in the
    collectives, and its sample counts as unused.
    """

    positions: Sequence[int]
    weight: float


def deal(taken: Taken, *, rank: int, world_size: int, micro_batch: int | None = None) -> list[Share]:
    """Return what ``rank`` trains on of a global batch: one share, or several to accumulate gradients over.

    The first ranks get one sample more where the batch does not split evenly. With ``micro_batch`` no share
    has more samples than that, and all ranks have equally many shares: when the gang shrinks, each rank
    does more of them, and needs no more memory.

    Raises ValueError unless 0 <= rank < world_size, and micro_batch is positive.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be at least 0 and below the world size {world_size}, got {rank}")
    if micro_batch is not None and micro_batch < 1:
        raise ValueError(f"micro_batch must be positive, got {micro_batch}")
    total = len(taken)
    largest = -(-total // world_size)
    parts = 1 if micro_batch is None else -(-largest // micro_batch)
    first, last = _part(total, rank, world_size)
    shares = []
    for number in range(parts):
        start, stop = _part(last - first, number, parts)
        positions = taken.slice(first + start, first + stop)
        weight = len(positions) * world_size / total
        shares.append(Share(positions=positions or taken.slice(0, 1), weight=weight))
    return shares


def _part(count: int, index: int, parts: int) -> tuple[int, int]:
    """Return where part ``index`` begins and ends when ``count`` things are dealt to ``parts``."""
    size, rest = divmod(count, parts)
    start = index * size + min(index, rest)
    return start, start + size + (index < rest)
