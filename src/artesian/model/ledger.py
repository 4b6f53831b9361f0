"""The waterfall: where device-seconds went, from nameplate to model FLOPs, without a gap.

Amounts are whole microseconds of one device, so that sums are exact; they become seconds only where
they are printed.
"""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any

from msgspec import Struct

US = 1_000_000
"""Microseconds in a second."""


class Stage(StrEnum):
    """The factors of effective compute, in order."""

    HEALTHY = "healthy"
    ALLOCATED = "allocated"
    PRODUCTIVE = "productive"
    MODEL_FLOPS = "model_flops"


class Loss(StrEnum):
    """What device time is lost to, by the stage that loses it."""

    # healthy
    NODE_LOST = "node_lost"
    """Devices of a node that was gone."""
    EXCLUDED = "excluded"
    """Devices of a node that an operator kept out of use, while no attempt held them."""

    # allocated
    IDLE = "idle"
    """Devices that were free, and that no job waited for."""
    WAITING = "waiting"
    """Devices that were free while a job waited (queued, or backing off) that could not use them."""

    # productive
    START_UP = "start_up"
    """A job's first attempt, from the decision to start it to its first step, without restoring."""
    DETECTION = "detection"
    """From a worker's last sign of life to the verdict that it hangs, where the launch agent went on from there."""
    RECOVERY = "recovery"
    """From a failure to the end of the attempt, and a later attempt up to its first step, restoring included.

    Where the launch agent restarts the gang within an attempt: from the verdict to the first new step, without
    restoring and without the steps that are trained again.
    """
    RESTORE = "restore"
    """Reading a checkpoint back: in a first attempt, and where the gang was restarted within an attempt."""
    DATA_WAIT = "data_wait"
    """Waiting for the next batch."""
    CHECKPOINT_STALL = "checkpoint_stall"
    """Training held up by a save."""
    EVALUATION = "evaluation"
    """Validation between steps."""
    LOST_WORK = "lost_work"
    """Steps that had to be done again, or whose result is gone, and the step under way at a failure."""
    WIND_DOWN = "wind_down"
    """From the last step to the end of an attempt that did not fail."""
    BETWEEN_STEPS = "between_steps"
    """Between the first step and the last, and none of the above."""
    UNMEASURED = "unmeasured"
    """Held for workers that report nothing: it may or may not have been productive."""

    # model_flops
    BELOW_CEILING = "below_ceiling"
    """Time in steps beyond what their model FLOPs take at the ceiling."""


class Ceiling(Struct, frozen=True, kw_only=True, gc=False):
    """The FLOP/s of one device that MFU is taken against; ``basis`` is what that rests on.

    ``basis`` reads ``nameplate bf16``, ``measured fp32``, and so on.
    """

    flops: float
    basis: str


class StageResult(Struct, frozen=True, kw_only=True, gc=False):
    """What is left after a stage, and what was lost in it, by cause, in device-microseconds.

    ``left_us`` is None when the stage was not measured; it then has no losses, and what was lost in it
    is part of the next measured stage's losses.
    """

    stage: Stage
    left_us: int | None
    lost_us: Mapping[str, int]


class Waterfall(Struct, frozen=True, kw_only=True, gc=False):
    """Nameplate and the four stages below it.

    Nameplate = all losses + what is left at the last measured stage, exactly; the constructor checks
    it. ``notes`` say what a figure rests on, such as the peak that MFU is taken against.
    """

    nameplate_us: int
    stages: tuple[StageResult, ...]
    is_simulated: bool
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if tuple(result.stage for result in self.stages) != tuple(Stage):
            raise ValueError(f"a waterfall has the stages {[s.value for s in Stage]}, in this order")
        left = self.nameplate_us
        if left < 0:
            raise ValueError(f"a waterfall's nameplate must not be negative, got {left} µs")
        for result in self.stages:
            lost = sum(result.lost_us.values())
            if any(amount < 0 for amount in result.lost_us.values()):
                raise ValueError(f"stage {result.stage}: a loss is negative: {dict(result.lost_us)}")
            if result.left_us is None:
                if lost:
                    raise ValueError(f"stage {result.stage} is unknown, but has losses of {lost} µs")
                continue
            if result.left_us + lost != left:
                raise ValueError(
                    f"stage {result.stage}: {left} µs came in, {lost} µs were lost, {result.left_us} µs are left"
                )
            if result.left_us < 0:
                raise ValueError(
                    f"stage {result.stage}: more was lost than came in: {result.left_us} µs are left"
                )
            left = result.left_us

    def left_us(self, stage: Stage) -> int | None:
        """Return the device-microseconds left after ``stage``, None when it was not measured."""
        return self.stages[list(Stage).index(stage)].left_us

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form: device-seconds with six decimals, None for what was not measured.

        Read as decimals, the numbers add up exactly below 2³³ device-seconds; above, a double has
        fewer than six decimals (``left_us`` and ``lost_us`` stay exact at any size).
        """
        return {
            "unit": "device_seconds",
            "simulated": self.is_simulated,
            "nameplate": _seconds(self.nameplate_us),
            "stages": [
                {
                    "name": result.stage.value,
                    "left": None if result.left_us is None else _seconds(result.left_us),
                    "lost": [
                        {"cause": cause, "device_s": _seconds(amount)}
                        for cause, amount in sorted(
                            result.lost_us.items(), key=lambda item: (-item[1], item[0])
                        )
                    ],
                }
                for result in self.stages
            ],
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, form: Mapping[str, Any]) -> "Waterfall":
        """Return the waterfall whose ``to_dict`` this is. Raises ValueError, KeyError, TypeError."""
        return cls(
            nameplate_us=to_us(form["nameplate"]),
            stages=tuple(
                StageResult(
                    stage=Stage(stage["name"]),
                    left_us=None if stage["left"] is None else to_us(stage["left"]),
                    lost_us={loss["cause"]: to_us(loss["device_s"]) for loss in stage["lost"]},
                )
                for stage in form["stages"]
            ),
            is_simulated=form["simulated"],
            notes=tuple(form["notes"]),
        )


def to_us(seconds: float) -> int:
    """Return ``seconds`` in whole microseconds, rounded half to even."""
    return round(seconds * US)


def _seconds(us: int) -> float:
    return float(Decimal(us) / US)
