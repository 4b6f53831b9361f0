"""Which part of an attempt's devices each of its workers stands for."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from msgspec.structs import replace

from artesian.kernel.progress import AttemptLog
from artesian.model.job import Job
from artesian.model.ledger import Ceiling
from artesian.model.placement import NodeShare


class Gang:
    """The workers of an attempt, in order of rank, laid over its devices, in order of the placement.

    W workers over D devices stand for D / W devices each: for several, for one, or for a part of one, on
    one node or across two. Amounts are whole numbers of a thousandth of a device divided by W, so that
    they add up. ``devices`` is how many devices each node has; those beyond are nobody's.
    """

    def __init__(self, job: Job, log: AttemptLog, devices: Mapping[str, int]) -> None:
        shares = log.attempt.placement.shares
        self.workers = _worker_count(job, log)
        self.nodes = tuple(share.node_id for share in shares)
        self.milli = tuple(
            share.milli * sum(device < devices[share.node_id] for device in share.devices) for share in shares
        )
        """Thousandths of a device that the attempt holds of each share."""
        self._starts = [0, *(end * self.workers for end in accumulate(self.milli))]
        self._total_milli = sum(self.milli)
        self._shares = shares

    def seats(self, rank: int) -> list[tuple[int, int]]:
        """Return the shares that the worker stands on, by index, and how much of each."""
        start, end = rank * self._total_milli, (rank + 1) * self._total_milli
        seats = []
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self.milli)):
            if self._starts[index] >= end:
                break
            weight = min(end, self._starts[index + 1]) - max(start, self._starts[index])
            if weight > 0:
                seats.append((index, weight))
        return seats

    def places(self, rank: int) -> tuple[NodeShare, ...]:
        """Return the devices that the worker stands on, by node."""
        places = []
        start, end = rank * self._total_milli, (rank + 1) * self._total_milli
        for index, _ in self.seats(rank):
            share, first = self._shares[index], self._starts[index]
            wide = share.milli * self.workers  # one device
            low = (max(start, first) - first) // wide
            high = -(-(min(end, self._starts[index + 1]) - first) // wide)
            places.append(replace(share, devices=share.devices[low:high]))
        return tuple(places)

    def ceilings_of(
        self, rank: int, dtype: str | None, ceilings: Mapping[tuple[str, str], Ceiling]
    ) -> list[tuple[float, Ceiling | None]]:
        """Return which part (0 to 1) of the worker's FLOPs falls under which ceiling; None where unknown."""
        seats = self.seats(rank)
        total = sum(weight for _, weight in seats)
        return [
            (weight / total, None if dtype is None else ceilings.get((self.nodes[index], dtype)))
            for index, weight in seats
        ]


def _worker_count(job: Job, log: AttemptLog) -> int:
    told = log.world_size
    if told is None:
        told = job.gang_size(log.attempt.placement.devices)
    return max(1, told, 1 + max(log.workers, default=0))
