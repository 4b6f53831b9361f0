"""What jobs are like, so that a placement can keep room for those that are yet to come."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from artesian.model.capacity import Capacity
from artesian.model.job import Job
from artesian.model.resources import MILLI, DeviceRequest
from artesian.policy.scored import Wish


@dataclass(frozen=True, slots=True)
class JobClass:
    """Jobs that ask for the same: ``milli`` of each of ``devices`` devices, and ``cpu_milli`` in all.

    ``requests`` are the alternatives that say which devices will do.
    """

    requests: tuple[DeviceRequest, ...]
    devices: int
    milli: int
    cpu_milli: int

    @classmethod
    def of(cls, requests: tuple[DeviceRequest, ...], cpus_per_device: float | None) -> "JobClass":
        """Return the class of jobs with this wish; of alternatives, the first counts."""
        wish = Wish.of(requests[0], cpus_per_device)
        return cls(requests, wish.devices, wish.milli, wish.cpu_milli)


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """Classes of jobs and how many there are of each, the most frequent first.

    Two mixes are equal only if they are the same object.
    """

    classes: tuple[JobClass, ...]
    count: tuple[int, ...]

    @classmethod
    def of(cls, jobs: Iterable[Job], covered: float = 1.0) -> "Mix":
        """Return the mix of the jobs: of the most frequent classes, as many as make up ``covered`` of them."""
        return cls._of_counts(Counter((job.devices, job.cpus_per_device) for job in jobs), covered)

    @classmethod
    def of_what_runs(cls, capacity: Capacity, covered: float = 1.0) -> "Mix":
        """Return the mix of the jobs that hold something, each count rounded down to a power of two.

        It is the same for as long as ``capacity.mix_changes`` is.
        """
        return cls._of_counts(
            {wish: 1 << count.bit_length() - 1 for wish, count in capacity.held.items()}, covered
        )

    @classmethod
    def _of_counts(
        cls, counts: Mapping[tuple[tuple[DeviceRequest, ...], float | None], int], covered: float
    ) -> "Mix":
        # Sorted by more than the count: the order in which jobs came must not decide.
        ranked = sorted(counts.items(), key=lambda entry: (-entry[1], str(entry[0])))
        least = covered * sum(counts.values())
        kept = []
        total = 0
        for wish, count in ranked:
            if total >= least:
                break
            kept.append((JobClass.of(*wish), count))
            total += count
        return cls(tuple(found for found, _ in kept), tuple(count for _, count in kept))

    @property
    def using_devices(self) -> list[tuple[JobClass, float]]:
        """The classes that want devices, each with its share of all jobs, those without devices included."""
        total = sum(self.count)
        pairs = zip(self.classes, self.count, strict=True)
        return [(found, count / total) for found, count in pairs if found.devices]

    @property
    def sizes(self) -> dict[int, int]:
        """How many jobs ask for so many thousandths of one device, where that is less than all of it."""
        sizes: dict[int, int] = {}
        for found, count in zip(self.classes, self.count, strict=True):
            if 0 < found.milli < MILLI:
                sizes[found.milli] = sizes.get(found.milli, 0) + count
        return sizes
