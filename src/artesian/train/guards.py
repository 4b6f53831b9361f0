"""Losses that are no numbers, and losses that leap: noticed, agreed on by all ranks, and acted on.

Each rank makes a vote of three numbers, the votes are summed over the ranks by whatever reduction there is
already, and every rank comes to the same verdict, as it depends on nothing but the sums so far:

::

    votes = guard.vote(loss)                 # three whole numbers, to be summed over the ranks
    verdict = guard.decide(votes, step=run.step + 1, taken=batch.taken)

A batch can only be skipped before the optimizer has stepped. For that the sum is needed at once:
``inspect`` reduces by itself. To roll back or to stop, a sum that comes a step later will do.
"""

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch.distributed as dist
from torch import Tensor

from artesian.train.cursor import Taken
from artesian.train.errors import UnstableError
from artesian.train.vote import Vote

_NORMAL = 1.4826
"""What the median absolute deviation of normal noise has to be multiplied with to be its standard deviation."""

_LEVEL = 5
"""Losses whose median is the level: an odd number, so that two strange ones do not move it far."""

_FIXED = 1 << 20
"""Losses are summed as whole numbers of this fraction: the same sum, whatever order it is made in."""
_LARGEST = 1e9
"""A loss or norm as large as that is no number to go on with; its sum over eight thousand ranks, or that of eight
millions over a million ranks, stays in 64 bits."""


class Action(StrEnum):
    """What to do about a step."""

    GO_ON = "go_on"
    SKIP = "skip"
    """Do not apply the gradients, and pass over the samples."""
    ROLL_BACK = "roll_back"
    """Go back to a checkpoint from before the step, and pass over the samples from there on."""
    STOP = "stop"


class Symptom(StrEnum):
    """What is wrong with a step."""

    NOT_FINITE = "not_finite"
    SPIKE = "spike"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What to do about each symptom, and what counts as one.

    A spike is a loss above the level by more than ``deviations`` robust standard deviations and by more than
    ``least_leap`` of the level. The level is the median of the last 5 losses, so that it follows a loss that
    falls; the standard deviation is 1.4826 × the median of how far the last ``window`` losses were off the level
    before them. The first ``warm_up`` losses have nothing to be compared with. To roll back is to go to a checkpoint at least
    ``back`` steps before, and to pass over the samples of the last ``forget`` steps. After ``limit``
    interventions at the same step or with no good step beyond it, the action is to stop.
    """

    not_finite: Action = Action.SKIP
    spike: Action = Action.GO_ON
    window: int = 128
    warm_up: int = 32
    deviations: float = 10.0
    least_leap: float = 0.1
    back: int = 1
    forget: int = 1
    limit: int = 3

    def __post_init__(self) -> None:
        if not 2 <= self.warm_up <= self.window:
            raise ValueError(
                f"warm_up must be at least 2 and not above the window of {self.window}, got {self.warm_up}"
            )
        if self.deviations <= 0 or self.least_leap < 0:
            raise ValueError(
                f"deviations must be positive and least_leap not negative, got {self.deviations} and {self.least_leap}"
            )
        if min(self.back, self.forget, self.limit) < 1:
            raise ValueError(
                f"back, forget and limit must be positive, got {self.back}, {self.forget} and {self.limit}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What all ranks do about ``step``. ``symptom`` is None for a good step.

    ``loss`` is the mean over the ranks that told a finite one, None where none did; ``ranks`` says how many
    told one that is not finite. ``threshold`` is what a spike is measured against, None in the warm-up. To
    roll back, take a checkpoint of ``to_step`` or before (None for other actions), and pass over ``exclude``.
    """

    step: int
    action: Action
    symptom: Symptom | None = None
    loss: float | None = None
    ranks: int = 0
    threshold: float | None = None
    to_step: int | None = None
    exclude: tuple[range, ...] = ()

    def __str__(self) -> str:
        if self.symptom is None:
            return f"step {self.step} is good"
        what = (
            f"the loss of {self.ranks} ranks is not finite"
            if self.symptom is Symptom.NOT_FINITE
            else f"the loss leaps to {self.loss:.4g}, above {self.threshold:.4g}"
        )
        return f"step {self.step}: {what}; action: {self.action.value.replace('_', ' ')}"


class Guard:
    """Watches the losses of a job. Every rank has one, and gives it the same sums in the same order."""

    def __init__(self, policy: Policy | None = None, *, control: dist.ProcessGroup | None = None) -> None:
        """``control`` is a group of CPUs for ``inspect``; None for a worker that is alone."""
        self.policy = policy or Policy()
        self._sum = None if control is None else Vote(control, dist.ReduceOp.SUM, 3)
        self._losses: deque[float] = deque(maxlen=_LEVEL)
        self._leaps: deque[float] = deque(maxlen=self.policy.window)
        self._recent: deque[tuple[int, tuple[range, ...]]] = deque(maxlen=self.policy.forget)
        self._bad_step = 0
        self._in_a_row = 0
        self.interventions = dict.fromkeys(Symptom, 0)
        """How often something was done, by symptom."""

    def vote(
        self, loss: Tensor | float | None, *, gradient_norm: Tensor | float | None = None
    ) -> tuple[int, int, int]:
        """Return this rank's vote, to be summed over the ranks; None where it knows no loss.

        The three numbers are: whether one of the two is not finite, the loss in fixed point, whether there is one.
        """
        value, norm = _number(loss), _number(gradient_norm)
        is_bad = not all(each is None or abs(each) < _LARGEST for each in (value, norm))
        if value is None or not abs(value) < _LARGEST:
            return int(is_bad), 0, 0
        return int(is_bad), round(value * _FIXED), 1

    def inspect(
        self,
        loss: Tensor | float | None,
        *,
        step: int,
        taken: Taken | None = None,
        gradient_norm: Tensor | float | None = None,
    ) -> Verdict:
        """Vote, sum, decide; all ranks call it together, with gradients ready and not yet applied."""
        votes: Sequence[int] = self.vote(loss, gradient_norm=gradient_norm)
        if self._sum is not None:
            votes = self._sum.hold(*votes)
        return self.decide(votes, step=step, taken=taken)

    def decide(self, votes: Sequence[int], *, step: int, taken: Taken | None = None) -> Verdict:
        """Return what to do about ``step``, given the sum of all ranks' votes and the samples of the step.

        Each step is given once in each pass over it, in order.
        """
        bad, total, told = votes
        self._recent.append((step, () if taken is None else taken.ranges))
        loss = total / _FIXED / told if told else None
        threshold = self._threshold()
        symptom, action = None, Action.GO_ON
        if bad:
            symptom, action = Symptom.NOT_FINITE, self.policy.not_finite
        elif loss is not None and threshold is not None and loss > threshold:
            symptom, action = Symptom.SPIKE, self.policy.spike
        if symptom is None or action is Action.GO_ON:
            self._note_good(step, loss if symptom is None or not bad else None)
            return Verdict(
                step=step,
                action=Action.GO_ON,
                symptom=symptom,
                loss=loss,
                ranks=bad,
                threshold=threshold,
            )
        self._bad_step = max(self._bad_step, step)
        self._in_a_row += 1
        self.interventions[symptom] += 1
        if self._in_a_row > self.policy.limit:
            action = Action.STOP
        is_back = action is Action.ROLL_BACK
        return Verdict(
            step=step,
            action=action,
            symptom=symptom,
            loss=loss,
            ranks=bad,
            threshold=threshold,
            to_step=max(0, step - self.policy.back) if is_back else None,
            exclude=self._forgotten() if is_back else (),
        )

    def stop(self, verdict: Verdict) -> UnstableError:
        """Return the error to raise for a verdict to stop."""
        return UnstableError(
            f"{verdict} after {sum(self.interventions.values())} interventions",
            hint="look at the samples of this step, lower the learning rate, or clip the gradients",
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a restart needs to come to the same verdicts, as plain data."""
        return {
            "losses": list(self._losses),
            "leaps": list(self._leaps),
            "bad_step": self._bad_step,
            "in_a_row": self._in_a_row,
            "interventions": {symptom.value: count for symptom, count in self.interventions.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``. What was counted since it was saved stays counted: a roll-back undoes no intervention."""
        self._losses = deque(map(float, state["losses"]), maxlen=_LEVEL)
        self._leaps = deque(map(float, state["leaps"]), maxlen=self.policy.window)
        self._recent.clear()
        self._bad_step = max(self._bad_step, int(state["bad_step"]))
        self._in_a_row = max(self._in_a_row, int(state["in_a_row"]))
        for symptom in Symptom:
            count = int(state["interventions"].get(symptom.value, 0))
            self.interventions[symptom] = max(self.interventions[symptom], count)

    def _threshold(self) -> float | None:
        if len(self._leaps) < self.policy.warm_up:
            return None
        level = statistics.median(self._losses)
        deviation = _NORMAL * statistics.median(self._leaps)
        return level + max(self.policy.deviations * deviation, self.policy.least_leap * abs(level))

    def _note_good(self, step: int, loss: float | None) -> None:
        if loss is not None:
            if self._losses:
                self._leaps.append(abs(loss - statistics.median(self._losses)))
            self._losses.append(loss)
        if step > self._bad_step:  # steps before it, replayed after a roll-back, prove nothing
            self._in_a_row = 0

    def _forgotten(self) -> tuple[range, ...]:
        return tuple(each for _, ranges in self._recent for each in ranges)


def _number(value: Tensor | float | None) -> float | None:
    return float(value.item()) if isinstance(value, Tensor) else value
