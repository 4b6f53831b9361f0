"""How often to save: by itself, from what a save costs and how often the job fails; or fixed."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from artesian.formulas.goodput import mttf_s as prior_mttf_s
from artesian.formulas.goodput import optimal_interval_s

PRIOR_FAILURES_PER_NODE_DAY = 3.8e-3
"""What Llama 3's training met per node of eight GPUs: 419 unexpected interruptions of 16,384 GPUs in 54 days."""

_REMEMBERED_STALLS = 20


class Interval(Protocol):
    """Says when the next save is due."""

    def is_due(self, step: int, last_step: int, elapsed_s: float) -> bool:
        """Say whether to save after ``step``, ``elapsed_s`` after that of ``last_step`` was saved."""
        ...

    def stalled(self, stall_s: float) -> None:
        """Learn that a save has held training up for ``stall_s``."""
        ...


@dataclass(frozen=True, slots=True)
class EverySteps:
    """A fixed interval, in steps."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"the interval must be at least one step, got {self.steps}")

    def is_due(self, step: int, last_step: int, elapsed_s: float) -> bool:  # noqa: ARG002
        # Counted from the start: a run that was resumed in between saves where it would have.
        return step % self.steps == 0

    def stalled(self, stall_s: float) -> None:
        """Learn nothing: the interval is fixed."""


@dataclass(frozen=True, slots=True)
class EverySeconds:
    """A fixed interval, in seconds: the first step after it is saved."""

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"the interval must be above 0, got {self.seconds} s")

    def is_due(self, step: int, last_step: int, elapsed_s: float) -> bool:
        return step > last_step and elapsed_s >= self.seconds

    def stalled(self, stall_s: float) -> None:
        """Learn nothing: the interval is fixed."""


class BestInterval:
    """The interval that wastes least, by Daly, from the measured stall and the observed failures.

    The rate of failures is (1 + failures) / (prior MTTF + observed time): the prior counts as one failure
    seen in its mean time to failure, and what is observed outweighs it as it comes in. Time that passes is observed.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        failures_per_node_day: float = PRIOR_FAILURES_PER_NODE_DAY,
        least_s: float = 1.0,
        most_s: float = 1800.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``least_s`` and ``most_s`` bound the interval; it is ``least_s`` until a first stall is known. ``clock`` tells
        seconds.

        Raises ValueError unless 0 < least_s <= most_s, and nodes and the rate are positive.
        """
        if not 0 < least_s <= most_s:
            raise ValueError(f"0 < least_s <= most_s must hold, got {least_s} and {most_s}")
        self._prior_mttf_s = prior_mttf_s(nodes, failures_per_node_day)
        self._least_s = least_s
        self._most_s = most_s
        self._clock = clock
        self._failures = 0
        self._begun_s = clock()
        self._stalls: deque[float] = deque(maxlen=_REMEMBERED_STALLS)

    def observed(self, *, failures: int, duration_s: float) -> None:
        """Learn how many failures the job has met in how many seconds, all in, from its beginning until now."""
        if failures < 0 or duration_s < 0:
            raise ValueError(f"failures and duration_s must not be negative, got {failures} and {duration_s}")
        self._failures, self._begun_s = failures, self._clock() - duration_s

    def stalled(self, stall_s: float) -> None:
        self._stalls.append(stall_s)

    @property
    def mttf_s(self) -> float:
        """The job's mean time to failure, as far as is known, in seconds."""
        observed_s = self._clock() - self._begun_s
        return (self._prior_mttf_s + observed_s) / (1 + self._failures)

    @property
    def seconds(self) -> float:
        """The interval between two saves, in seconds."""
        if not self._stalls:
            return self._least_s
        stall_s = statistics.median(self._stalls)
        if stall_s <= 0:
            return self._least_s
        mttf_s = self.mttf_s
        # Beyond the formula's range no interval is good; Daly takes the mean time to failure.
        best_s = optimal_interval_s(stall_s, mttf_s) if stall_s < mttf_s / 2 else mttf_s
        return min(max(best_s, self._least_s), self._most_s)

    def is_due(self, step: int, last_step: int, elapsed_s: float) -> bool:
        return step > last_step and elapsed_s >= self.seconds


class Age:
    """How long a job has run, in all its attempts: what ``seconds`` says is kept with its state.

    Told to an ``interval`` that chooses itself, with how often the job has failed in that time.
    """

    def __init__(
        self,
        interval: Interval | None = None,
        failures: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = interval
        self._failures = failures
        self._clock = clock
        self._begun_s = clock()
        self.resume(0.0)

    @property
    def seconds(self) -> float:
        return self._clock() - self._begun_s

    def resume(self, seconds: float) -> None:
        """Go on from a state of that age. A run that goes back to an earlier state does not become younger."""
        self._begun_s = min(self._begun_s, self._clock() - seconds)
        if isinstance(self._interval, BestInterval):
            self._interval.observed(failures=self._failures, duration_s=self.seconds)
