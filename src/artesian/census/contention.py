"""Is the machine ours while we measure? What the kernel says about CPU time, before and after a run."""

import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

MIN_CPU_SHARE = 0.90
"""Below it the process did not get the cores that it asked for."""
MAX_OTHERS_SHARE = 0.10
MAX_STEAL_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuUse:
    """CPU time between two looks, in CPU-seconds; ``busy_s`` and ``steal_s`` are None where unknown."""

    wall_s: float
    own_s: float
    busy_s: float | None
    steal_s: float | None

    def cpu_share(self, threads: int) -> float:
        """CPU time that this process got, over what ``threads`` busy threads would use."""
        return self.own_s / (self.wall_s * threads)

    def others_share(self, threads: int) -> float | None:
        """CPU time of other processes on the same CPUs, over what the threads would use."""
        if self.busy_s is None:
            return None
        return max(0.0, self.busy_s - self.own_s) / (self.wall_s * threads)

    def steal_share(self, threads: int) -> float | None:
        """CPU time that the hypervisor gave to other machines, over what the threads would use."""
        return None if self.steal_s is None else self.steal_s / (self.wall_s * threads)


class CpuClock:
    """Looks at the CPU time of this process and of everything on the logical CPUs ``cpus``.

    Without ``cpus`` it looks at this process only.
    """

    def __init__(self, cpus: Collection[int], *, stat: Path = Path("/proc/stat")) -> None:
        self._names = frozenset(f"cpu{cpu}" for cpu in cpus)
        self._stat = stat
        self._tick_s = 1 / os.sysconf("SC_CLK_TCK")
        self._last = self._look()

    def lap(self) -> CpuUse:
        """Return the use since the last call, or since the start."""
        before, self._last = self._last, self._look()
        wall, own, busy, steal = self._last
        is_known = busy is not None and before[2] is not None
        return CpuUse(
            wall_s=max(wall - before[0], 1e-9),
            own_s=own - before[1],
            busy_s=(busy or 0) - (before[2] or 0) if is_known else None,
            steal_s=(steal or 0) - (before[3] or 0) if is_known else None,
        )

    def _look(self) -> tuple[float, float, float | None, float | None]:
        busy = steal = 0
        found = 0
        try:
            lines = self._stat.read_text().splitlines()
        except OSError:
            lines = []
        for line in lines:
            name, *fields = line.split()
            if name in self._names and len(fields) >= 8:
                user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, fields[:8])
                busy += user + nice + system + irq + softirq
                steal += stolen
                found += 1
        wall, own = time.perf_counter(), time.process_time()
        if not self._names or found < len(self._names):
            return wall, own, None, None
        return wall, own, busy * self._tick_s, steal * self._tick_s


def contention_of(
    cpu_share: float | None, others_share: float | None, steal_share: float | None
) -> str | None:
    """Return why a run with these shares is no measurement of the hardware; None where it is one."""
    reasons = []
    if cpu_share is not None and cpu_share < MIN_CPU_SHARE:
        reasons.append(f"the benchmark got {cpu_share:.0%} of the CPU time that it asked for")
    if others_share is not None and others_share > MAX_OTHERS_SHARE:
        reasons.append(f"other processes took {others_share:.0%} of the CPUs")
    if steal_share is not None and steal_share > MAX_STEAL_SHARE:
        reasons.append(f"the hypervisor took {steal_share:.1%}")
    return "; ".join(reasons) or None
