"""Who holds how much of a fleet, and what kinds of jobs run on it: counts that grow and shrink with them."""

from artesian.model.job import Job
from artesian.model.placement import Placement
from artesian.model.resources import MILLI, DeviceRequest


def amounts(job: Job, placement: Placement) -> tuple[int, int, int]:
    """Return what the job holds there: thousandths of devices, thousandths of CPUs, and bytes of memory.

    Of CPUs and memory it has one ration per device, or per node where it has no device.
    """
    milli = rations = 0
    for share in placement.shares:
        devices = len(share.devices)
        milli += share.milli * devices
        rations += devices or 1
    cpus, memory_bytes = job.cpus_per_device, job.memory_bytes_per_device
    return milli, round(cpus * MILLI) * rations if cpus else 0, memory_bytes * rations if memory_bytes else 0


class Usage:
    """Counts of what is held, on K kinds of devices.

    ``held`` counts the attempts by what their jobs ask for, and ``mix_changes`` grows when one of these counts
    passes a power of two. ``used`` has what the jobs of a team and priority hold: thousandths of devices of each
    kind, of CPUs, and bytes of memory.
    """

    def __init__(self, kinds: int) -> None:
        self._kinds = kinds
        self.held: dict[tuple[tuple[DeviceRequest, ...], float | None], int] = {}
        self.mix_changes = 0
        self.used: dict[tuple[str, int], list[int]] = {}

    def copy(self) -> "Usage":
        """Return a copy of its own."""
        twin = Usage(self._kinds)
        twin.held, twin.mix_changes = dict(self.held), self.mix_changes
        twin.used = {key: list(value) for key, value in self.used.items()}
        return twin

    def count(self, job: Job, placement: Placement, kind: int, sign: int) -> None:
        """Count an attempt of the job, with devices of the kind, in (+1) or out (-1)."""
        wish = (job.devices, job.cpus_per_device)
        before = self.held.get(wish, 0)
        after = before + sign
        if after:
            self.held[wish] = after
        else:
            del self.held[wish]
        if before.bit_length() != after.bit_length():
            self.mix_changes += 1
        self.charge(job, placement, kind, sign)

    def charge(self, job: Job, placement: Placement, kind: int, sign: int) -> None:
        """Count a placement on devices of the kind among what the job's team uses (+1), or no more (-1)."""
        account = (job.team, job.priority)
        used = self.used.get(account)
        if used is None:
            used = self.used[account] = [0] * (self._kinds + 2)
        if job.wants_host:
            milli, cpu_milli, memory_bytes = amounts(job, placement)
            used[kind] += sign * milli
            used[-2] += sign * cpu_milli
            used[-1] += sign * memory_bytes
        else:
            for share in placement.shares:
                used[kind] += sign * share.milli * len(share.devices)
        if not any(used):
            del self.used[account]
