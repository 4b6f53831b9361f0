"""Ranks that are slower than the others, and stay so.

In synchronous training all ranks' steps take equally long, as the fast wait for the slow in the collectives. So
what is compared is the time that a rank computes for itself, from when it has its batch to when its last gradient
is ready, before the collectives are waited for (``ComputeTimer``).
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch.utils.hooks import RemovableHandle

from artesian.train.exchange import Exchange, bits_of, float_of
from artesian.train.membership import Membership
from artesian.train.reporter import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A rank that took longer than the middle rank in each of the last ``windows`` windows, ``ratio`` times in the last.

    ``excess_s`` is how many seconds longer it computed, over all steps of the last ``fresh`` windows: those of which
    it was not said before. It is the middle step's excess times the steps, so that one hiccup does not count.
    """

    rank: int
    ratio: float
    windows: int
    fresh: int
    excess_s: float

    def __str__(self) -> str:
        return f"rank {self.rank} computes {self.ratio:.2f} times as long as the others ({self.windows} windows in a row)"


def slow_ranks(times_s: Sequence[float | None], *, factor: float) -> dict[int, float]:
    """Return the ranks that took more than ``factor`` times as long as the middle one, with their ratio.

    Of an even number the faster of the two in the middle counts, so that of two ranks one can be slow. None
    is a rank that did not tell. Fewer than two that did have nobody to be compared with.
    """
    middle = _middle(times_s)
    if middle is None:
        return {}
    return {
        rank: seconds / middle
        for rank, seconds in enumerate(times_s)
        if seconds is not None and seconds > factor * middle
    }


def _middle(times_s: Sequence[float | None]) -> float | None:
    """Return the time of the middle rank; None where there is none to compare with."""
    told = [seconds for seconds in times_s if seconds is not None]
    if len(told) < 2 or (middle := statistics.median_low(told)) <= 0:
        return None
    return middle


@dataclass(slots=True)
class _Streak:
    """Windows in a row in which a rank was slow, and by how many seconds in those of which no word was said."""

    windows: int = 0
    fresh: int = 0
    excess_s: float = 0.0


class Stragglers:
    """Finds slow ranks by the times that all tell each other, a window of steps at a time."""

    def __init__(
        self,
        control: dist.ProcessGroup | None,
        *,
        every: int = 16,
        factor: float = 1.3,
        patience: int = 3,
    ) -> None:
        """Compare the medians of ``every`` steps; name a rank that is slow ``patience`` windows in a row.

        Raises ValueError unless every and patience are positive and factor is above 1.
        """
        if every < 1 or patience < 1 or not factor > 1:
            raise ValueError(
                f"every and patience must be positive and factor above 1, got {every}, {patience} and {factor}"
            )
        self._exchange = Exchange(control)
        self._every, self._factor, self._patience = every, factor, patience
        self._times_s: list[float] = []
        self._notes = 0
        self._streaks: dict[int, _Streak] = {}

    def note(self, compute_s: float | None) -> list[Straggler]:
        """Take in a step's time, and return the stragglers, the same on all ranks; once a step on each.

        It answers at the last step of a window, about the window before; at others the list is empty.
        """
        self._notes += 1
        if compute_s is not None:
            self._times_s.append(compute_s)
        if self._notes % self._every:
            return []
        rows = self._exchange.settle()
        mine = statistics.median(self._times_s) if self._times_s else float("nan")
        self._times_s.clear()
        self._exchange.send(bits_of(mine))
        return [] if rows is None else self._judge([float_of(bits) for bits in rows])

    def _judge(self, times_s: list[float]) -> list[Straggler]:
        known = [None if each != each else each for each in times_s]
        slow, middle = slow_ranks(known, factor=self._factor), _middle(known)
        self._streaks = {rank: self._streaks.get(rank, _Streak()) for rank in slow}
        found = []
        for rank, streak in sorted(self._streaks.items()):
            assert middle is not None
            streak.windows += 1
            streak.fresh += 1
            streak.excess_s += (times_s[rank] - middle) * self._every
            if streak.windows < self._patience:
                continue
            found.append(
                Straggler(
                    rank=rank,
                    ratio=slow[rank],
                    windows=streak.windows,
                    fresh=streak.fresh,
                    excess_s=streak.excess_s,
                )
            )
            streak.fresh, streak.excess_s = 0, 0.0
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StragglerPolicy:
    """How ``Run`` looks for stragglers: see ``Stragglers``, whose parameters these are.

    ``replaces``: its launch agent is asked to put another in its place: a spare node where there is one, else, with
    all workers on one node, a new process. Otherwise stragglers are told, no more.
    """

    every: int = 16
    factor: float = 1.3
    patience: int = 3
    replaces: bool = False


class Tell(Protocol):
    """Takes in that a rank was slow: see ``StragglerFound``, whose fields these are."""

    def __call__(
        self, *, rank: int, step: int, ratio: float, steps: int, window: int, excess_s: float
    ) -> object:
        """Say so."""


class StragglerWatch:
    """What ``Run`` does at each step to find stragglers, and once one is found."""

    def __init__(
        self,
        policy: StragglerPolicy,
        model: torch.nn.Module,
        member: Membership,
        tell: Tell,
        ask_to_replace: Callable[[str], object] | None,
    ) -> None:
        """``tell`` is called on rank 0; ``ask_to_replace`` with the words, on the straggler itself."""
        self._policy = policy
        self._window_end = self._next_window_end = 0
        """The last steps of the window that is judged next, and of the one after it."""
        self._notes = 0
        self._member = member
        self._tell = tell
        self._ask = ask_to_replace if policy.replaces else None
        self._ranks = Stragglers(
            member.control, every=policy.every, factor=policy.factor, patience=policy.patience
        )
        self._timer = ComputeTimer(model, member.device)

    def begin(self) -> None:
        """Say that the batch of a step is there."""
        self._timer.begin()

    def note(self, step: int) -> None:
        """Say that ``step`` is applied."""
        every = self._policy.every
        self._notes += 1
        if self._notes % every == 0:  # kept, not counted back: a guard may have gone back to an earlier step
            self._window_end, self._next_window_end = self._next_window_end, step
        for found in self._ranks.note(self._timer.read_s()):
            if self._member.rank == 0:
                self._tell(
                    rank=found.rank,
                    step=self._window_end,
                    ratio=found.ratio,
                    steps=found.windows * every,
                    window=found.fresh * every,
                    excess_s=found.excess_s,
                )
            # To people, again when it has lasted twice as long: a word with every window would bury all others.
            windows = found.windows // self._policy.patience
            if found.windows % self._policy.patience or windows & (windows - 1):
                continue
            if self._member.rank == 0:
                say(str(found))
            if self._ask is not None and found.rank == self._member.rank:
                self._ask(str(found))

    def close(self) -> None:
        """Take the hook off the model."""
        self._timer.remove()


def watched(
    policy: StragglerPolicy | None,
    model: torch.nn.Module,
    member: Membership,
    tell: Tell,
    ask_to_replace: Callable[[str], object] | None,
) -> StragglerWatch | None:
    """Return the watch that ``policy`` asks for; None for a rank that is alone, who waits for nobody."""
    if policy is None or member.control is None:
        return None
    return StragglerWatch(policy, model, member, tell, ask_to_replace)


class ComputeTimer:
    """Measures how long a rank computes for itself in a step, up to its last gradient.

    The last gradient is that of the first parameter: backward goes from the end to the beginning. Under FSDP
    parameters are gathered in the forward pass, so that waiting for others is in the time there.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        """Hook into the first parameter of ``model`` that is trained. Raises ValueError where none is."""
        first = next((each for each in model.parameters() if each.requires_grad), None)
        if first is None:
            raise ValueError("a model to be timed must have a parameter that is trained, got none")
        self._is_host = device.type == "cpu"
        self._begin: Any = None
        self._end: Any = None
        self._hook: RemovableHandle = first.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda _: self._note_end()
        )

    def begin(self) -> None:
        """Say that the batch is there."""
        self._begin, self._end = self._mark(), None

    def read_s(self) -> float | None:
        """Return the seconds of the step that has ended, None where it had no backward pass.

        On an accelerator it waits for the gradient: call it once the step is applied.
        """
        if self._begin is None or self._end is None:
            return None
        if self._is_host:
            return float(self._end - self._begin)
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / 1000

    def remove(self) -> None:
        """Take the hook away."""
        self._hook.remove()

    def _note_end(self) -> None:
        self._end = self._mark()

    def _mark(self) -> Any:
        if self._is_host:
            return time.perf_counter()
        event = torch.Event(enable_timing=True)
        event.record()
        return event
