"""Who had the cores while something was measured: our processes, by name, and everybody else on the machine.

A latency that was measured while strangers had a core says little. A benchmark that shows this beside its
figures lets a reader tell; CPU time per request is the figure that strangers hardly change.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CONTENDED = 0.1
"""The share of the machine's cores above which what others had is called contention."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Cores in use on average: by process of ours, and by all others. ``cores`` is how many there are."""

    ours: Mapping[str, float]
    others: float
    cores: int

    @property
    def is_contended(self) -> bool:
        """Whether others had more than a tenth of the machine."""
        return self.others > CONTENDED * self.cores

    def __str__(self) -> str:
        parts = [f"{name} {used:.2f}" for name, used in {**self.ours, "others": self.others}.items()]
        return f"{', '.join(parts)} of {self.cores} cores{' (contended)' if self.is_contended else ''}"


class Watch:
    """Counts from its making on what the machine and the processes ``pids``, which must live on, use."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._begun = self._read()
        self._ended: dict[str, float] = {}

    def ended(self, name: str, cpu_s: float) -> None:
        """Tell of a process that came and went meanwhile, and used so much CPU time."""
        self._ended[name] = self._ended.get(name, 0.0) + cpu_s

    def cpu_s(self, name: str) -> float:
        """Return the CPU time that a process has used up to now."""
        return _process_s(self._pids[name]) - self._begun[name]

    def use(self) -> Use:
        """Return who had the cores up to now."""
        now = self._read()
        spent = {name: now[name] - before for name, before in self._begun.items()}
        cores = os.cpu_count() or 1
        seconds = (spent.pop("idle") + spent.pop("busy")) / cores
        busy_s = now["busy"] - self._begun["busy"]
        ours = {name: used / seconds for name, used in {**spent, **self._ended}.items()}
        return Use(ours=ours, others=max(0.0, busy_s / seconds - sum(ours.values())), cores=cores)

    def _read(self) -> dict[str, float]:
        # user nice system idle iowait irq softirq steal: see proc(5)
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        found = {"idle": idle * _TICK_S, "busy": (sum(ticks) - idle) * _TICK_S}
        return {**found, **{name: _process_s(pid) for name, pid in self._pids.items()}}


def _process_s(pid: int) -> float:
    """Return user and system time of a process, all its threads."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) * _TICK_S
