"""A job that checkpoints and fails, played out failure by failure: what the closed form is checked against.

It knows more than the formula: spare nodes that run out, and what waiting for a repair costs. With spares
without end the two describe the same process, and agree within the standard error.
"""

import math

import numpy as np
import numpy.typing as npt
from msgspec import Struct

_Floats = npt.NDArray[np.float64]


class Estimate(Struct, frozen=True, kw_only=True, gc=False):
    """What the simulated runs add up to.

    ``goodput`` is the share of time, 0 to 1, that became progress; ``standard_error`` is that of this share,
    None for a single run. ``replaced_share`` is the share of failures that found a spare at once, ``waited_s``
    the mean wait for a repaired node per failure; None where spares never run out.
    """

    goodput: float
    standard_error: float | None
    runs: int
    failures: int
    simulated_s: float
    replaced_share: float | None
    waited_s: float | None


def simulate_goodput(
    *,
    interval_s: float,
    stall_s: float,
    restart_s: float,
    mttf_s: float,
    failures_per_run: int,
    runs: int = 200,
    seed: int = 0,
    spares: int | None = None,
    repair_s: float = 0.0,
) -> Estimate:
    """Return what ``runs`` independent runs of ``failures_per_run`` failures each come to.

    Between failures, whose times are exponential, the job works for ``interval_s`` and saves for ``stall_s``
    again and again; what is not saved when it fails is lost, and ``restart_s`` follows. Each failure takes a
    node, which is back after ``repair_s``; without a spare the job waits for the first that is back. ``spares``
    None: there is always one. A run ends with a whole cycle, so that its last moments bias nothing.

    Raises ValueError for figures out of range.
    """
    if not (interval_s > 0 and mttf_s > 0 and stall_s >= 0 and restart_s >= 0 and repair_s >= 0):
        raise ValueError(
            f"interval_s and mttf_s must be positive and the others not negative, got interval_s={interval_s}, "
            f"mttf_s={mttf_s}, stall_s={stall_s}, restart_s={restart_s}, repair_s={repair_s}"
        )
    if runs < 1 or failures_per_run < 1 or (spares is not None and spares < 0):
        raise ValueError(
            f"runs and failures_per_run must be positive and spares not negative, "
            f"got {runs}, {failures_per_run} and {spares}"
        )
    random = np.random.default_rng(seed)
    useful: _Floats = np.zeros(runs)
    now: _Floats = np.zeros(runs)
    waited: _Floats = np.zeros(runs)
    replaced = 0
    # When the node of each of the last `spares` failures is back: repairs take equally long, so the node
    # that failed `spares` failures ago is the first to return.
    returns: _Floats = np.full((max(spares or 0, 1), runs), -math.inf)
    for number in range(failures_per_run):
        up = random.exponential(mttf_s, runs)
        useful += np.floor(up / (interval_s + stall_s)) * interval_s
        now += up
        if spares is not None:
            slot = number % len(returns)
            back = returns[slot] if spares else now + repair_s
            wait = np.maximum(back - now, 0.0)
            returns[slot] = now + repair_s
            replaced += int(np.count_nonzero(wait == 0.0))
            waited += wait
            now += wait
        now += restart_s
    goodput = float(useful.sum() / now.sum())
    failures = runs * failures_per_run
    return Estimate(
        goodput=goodput,
        standard_error=_standard_error(useful, now, goodput),
        runs=runs,
        failures=failures,
        simulated_s=float(now.sum()),
        replaced_share=None if spares is None else replaced / failures,
        waited_s=None if spares is None else float(waited.sum()) / failures,
    )


def _standard_error(useful: _Floats, total: _Floats, ratio: float) -> float | None:
    """Return the standard error of a ratio of sums over independent runs, by the delta method."""
    if len(useful) < 2:
        return None
    return float(np.std(useful - ratio * total, ddof=1) / (total.mean() * math.sqrt(len(useful))))
