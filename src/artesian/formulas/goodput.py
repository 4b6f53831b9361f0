"""Goodput: which share of the time a job that checkpoints and fails now and then spends on progress.

One word per quantity, all in seconds: ``interval`` is useful work between two checkpoints, ``stall`` what
a checkpoint holds training up, ``restart`` everything from a failure to the first step after it
(detect, schedule, start, restore; the replay of lost steps is not in it), ``mttf`` the mean time to
failure of the whole job. Failures are Poisson: independent, at a constant rate.
"""

import math

_DAY_S = 86_400.0


def mttf_s(nodes: int, failures_per_node_day: float) -> float:
    """Return the mean time to failure, in seconds, of a job on ``nodes`` nodes that all must live.

    Raises ValueError unless both are positive.
    """
    if nodes < 1 or failures_per_node_day <= 0:
        raise ValueError(
            f"nodes and failures_per_node_day must be positive, got {nodes} and {failures_per_node_day}"
        )
    return _DAY_S / (nodes * failures_per_node_day)


def young_interval_s(stall_s: float, mttf_s: float) -> float:
    """Return Young's checkpoint interval sqrt(2 * stall * mttf), in seconds (Young, CACM 1974).

    Raises ValueError unless 0 < stall_s < mttf_s / 2.
    """
    _check_stall(stall_s, mttf_s)
    return math.sqrt(2 * stall_s * mttf_s)


def optimal_interval_s(stall_s: float, mttf_s: float) -> float:
    """Return the checkpoint interval that wastes least time, in seconds.

    Daly's first-order optimum sqrt(2 * stall * mttf) - stall (Daly, FGCS 2006, eq. 20). It is within
    a percent of ``exact_interval_s`` where the stall is below a thousandth of the mean time to failure.

    Raises ValueError unless 0 < stall_s < mttf_s / 2.
    """
    return young_interval_s(stall_s, mttf_s) - stall_s


def exact_interval_s(stall_s: float, mttf_s: float) -> float:
    """Return the interval at which ``goodput`` is highest, in seconds, solved to machine precision.

    The root of (1 - interval / mttf) * exp((interval + stall) / mttf) = 1, whatever the restart takes.

    Raises ValueError unless 0 < stall_s < mttf_s / 2.
    """
    _check_stall(stall_s, mttf_s)
    stall = stall_s / mttf_s
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        # The logarithm of the condition; it falls monotonically from `stall` at 0 to -inf at 1.
        if math.log1p(-middle) + middle + stall > 0:
            low = middle
        else:
            high = middle
    return middle * mttf_s


def goodput(interval_s: float, stall_s: float, restart_s: float, mttf_s: float) -> float:
    """Return the share of time, 0 to 1, that becomes progress which no failure takes back.

    Exact for Poisson failures of the running job: with P = interval + stall, a period that ends in a
    checkpoint takes (mttf + restart) * (exp(P / mttf) - 1) seconds on average, failures and replays
    included. Failures during a restart are counted as part of ``restart_s``.

    Raises ValueError unless interval_s and mttf_s are positive and the others not negative.
    """
    _check_run(interval_s, stall_s, restart_s, mttf_s)
    exponent = (interval_s + stall_s) / mttf_s
    if exponent > 700:
        return 0.0  # exp() overflows: such a period practically never ends
    return interval_s / ((mttf_s + restart_s) * math.expm1(exponent))


def best_goodput(stall_s: float, restart_s: float, mttf_s: float) -> float:
    """Return ``goodput`` at the best checkpoint interval.

    Raises ValueError unless 0 < stall_s < mttf_s / 2 and restart_s is not negative.
    """
    return goodput(exact_interval_s(stall_s, mttf_s), stall_s, restart_s, mttf_s)


def replaced_share(spares: int, failures_per_s: float, repair_s: float) -> float:
    """Return the share of failed nodes that find a spare at once, 0 to 1.

    A failed node is under repair for ``repair_s`` and is a spare afterwards. As many nodes are under repair
    as failures fall into the time of one repair: a Poisson number, whatever the distribution of the repair
    times (Palm's theorem). A failure finds a spare when fewer than ``spares`` are. Idle spares do not fail,
    and a job that waits is counted as failing on: the share is at least this.

    Raises ValueError unless spares and repair_s are not negative and failures_per_s is positive.
    """
    if spares < 0 or not repair_s >= 0 or not failures_per_s > 0:
        raise ValueError(
            f"spares and repair_s must not be negative and failures_per_s must be positive, "
            f"got {spares}, {repair_s} and {failures_per_s}"
        )
    under_repair = failures_per_s * repair_s
    if under_repair == 0:
        return 1.0 if spares else 0.0
    # By logarithms: exp(-mean) alone underflows for a large fleet.
    terms = (
        math.exp(count * math.log(under_repair) - under_repair - math.lgamma(count + 1))
        for count in range(spares)
    )
    return min(1.0, math.fsum(terms))


def spares_needed(failures_per_s: float, repair_s: float, share: float) -> int:
    """Return the fewest spare nodes with which ``replaced_share`` reaches ``share``.

    Raises ValueError as ``replaced_share`` does, and unless 0 <= share < 1.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}")
    high = 1
    while replaced_share(high, failures_per_s, repair_s) < share:
        high *= 2
    low = 0
    while low < high:
        middle = (low + high) // 2
        if replaced_share(middle, failures_per_s, repair_s) < share:
            low = middle + 1
        else:
            high = middle
    return low


def expected_ettr(interval_s: float, stall_s: float, restart_s: float, mttf_s: float) -> float:
    """Return the expected effective training time ratio, 0 to 1, by Meta's approximation.

    [1 - (restart + interval / 2) / mttf] / (1 + stall / interval), from "Revisiting Reliability in
    Large-Scale Machine Learning Research Clusters" (HPCA 2025). It holds while failures are rare; for a
    figure without that limit take ``goodput``.

    Raises ValueError for figures out of range, and where restart and replay outlast the mean time to
    failure, where the approximation turns negative.
    """
    _check_run(interval_s, stall_s, restart_s, mttf_s)
    lost_share = (restart_s + interval_s / 2) / mttf_s
    if lost_share > 1:
        raise ValueError(
            f"the approximation holds while restart_s + interval_s / 2 is below mttf_s, "
            f"got {restart_s} + {interval_s / 2} against {mttf_s}"
        )
    return (1 - lost_share) / (1 + stall_s / interval_s)


def _check_stall(stall_s: float, mttf_s: float) -> None:
    if not 0 < stall_s < mttf_s / 2:
        raise ValueError(f"stall_s must lie between 0 and mttf_s / 2 = {mttf_s / 2}, got {stall_s}")


def _check_run(interval_s: float, stall_s: float, restart_s: float, mttf_s: float) -> None:
    if not (interval_s > 0 and mttf_s > 0):
        raise ValueError(f"interval_s and mttf_s must be positive, got {interval_s} and {mttf_s}")
    if not (stall_s >= 0 and restart_s >= 0):
        raise ValueError(f"stall_s and restart_s must not be negative, got {stall_s} and {restart_s}")
